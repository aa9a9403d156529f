"""The SQL that a report reads a ledger's endings by: a piece of them at a time.

A long read would keep SQLite from shortening the file's log while a pool writes.
"""

from __future__ import annotations

LAST_POSITION = "SELECT coalesce(max(position), 0) FROM endings"

SETBACK_EDGES = """
SELECT min(since) AS edge FROM setbacks HAVING edge IS NOT NULL
UNION SELECT max(since) AS edge FROM setbacks HAVING edge IS NOT NULL
"""

KEEP_ROLES = "CREATE TEMP TABLE roles (worker TEXT PRIMARY KEY, role TEXT) WITHOUT ROWID"
ADD_ROLE = "INSERT INTO temp.roles VALUES (?, ?)"

MOMENTS = """
SELECT completed_at / :step * :step AS since,
       count(*) FILTER (WHERE state = 'completed'),
       count(*) FILTER (WHERE state = 'failed'),
       count(*) FILTER (WHERE state = 'cancelled'),
       sum(input_tokens + cache_read_tokens + cache_write_tokens),
       sum(output_tokens),
       total(cost_usd)
FROM endings WHERE position > :after AND position <= :upto
GROUP BY since
"""

GROUPS = """
SELECT role, model, state,
       CASE WHEN duration_ms < 10 THEN round(duration_ms, 2)
            WHEN duration_ms < 100 THEN round(duration_ms, 1)
            WHEN duration_ms < 1000 THEN round(duration_ms)
            WHEN duration_ms < 10000 THEN round(duration_ms / 10) * 10
            WHEN duration_ms < 100000 THEN round(duration_ms / 100) * 100
            ELSE round(duration_ms / 1000) * 1000 END AS duration,
       count(*),
       sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
       total(cost_usd), count(*) - count(cost_usd)
FROM endings LEFT JOIN temp.roles USING (worker)
WHERE position > :after AND position <= :upto
GROUP BY role, model, state, duration
"""

ERRORS = """
SELECT json_extract(error, '$.kind') AS kind, json_extract(error, '$.type') AS type, count(*)
FROM endings
WHERE position > :after AND position <= :upto AND state = 'failed'
GROUP BY kind, type
"""

SLOWEST = """
SELECT duration_ms, position FROM endings
WHERE position > :after AND position <= :upto AND duration_ms >= :least
ORDER BY duration_ms DESC, position LIMIT :limit
"""

LAST_FAILED = """
SELECT position FROM endings INDEXED BY failed
WHERE state = 'failed' AND position <= :upto
ORDER BY position DESC LIMIT :limit
"""

LINE = """
SELECT t.id, e.state, coalesce(r.role, t.role), e.worker, e.model, e.attempts, e.completed_at,
       e.duration_ms, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_tokens,
       e.cost_usd, json_extract(e.error, '$.type')
FROM endings AS e JOIN tasks AS t USING (number) LEFT JOIN temp.roles AS r USING (worker)
WHERE e.position = ?
"""

CONTENT = """
SELECT t.prompt, t.messages, e.text, json_extract(e.error, '$.message')
FROM endings AS e JOIN tasks AS t USING (number)
WHERE e.position = ?
"""
