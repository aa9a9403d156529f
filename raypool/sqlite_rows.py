"""The SQL of a ledger in SQLite, and what its JSON decodes to.

Python gives up its lock at every step of a statement, and beside a busy event loop each step then
waits up to 5 ms to get it back. So rows are written many to a statement, and read as one JSON
text: measured beside a busy thread, 30 times faster than `executemany` and `fetchall`.
"""

from __future__ import annotations

import msgspec

from raypool.lane import Lane
from raypool.ledger_rows import EndingRow, LoadedRow, TaskRow
from raypool.records import Death
from raypool.setbacks import Setback, SetbackKind
from raypool.sqlite_statements import Insert

FIND_NUMBERS = "SELECT json_group_object(id, number) FROM tasks WHERE id IN "

# quote() writes a REAL so that it reads back the same; JSON would round it to 15 digits.
LOAD = """
SELECT json_group_array(json_array(
    e.position,
    json_array(
        t.number, t.id, t.role, nullif(quote(t.timeout), 'NULL'), t.session, t.only_worker,
        t.output_type, t.priority, t.tenant, t.hedge_after, t.race, hex(t.fingerprint),
        t.metadata, t.prompt, t.messages
    ),
    json(iif(e.number IS NULL, 'null', json_array(
        e.number, e.state, e.worker, e.attempts, e.completed_at,
        nullif(quote(e.duration_ms), 'NULL'),
        e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_tokens,
        e.model, e.stop_reason, e.session_id, nullif(quote(e.cost_usd), 'NULL'), e.turns,
        e.text, e.answers, e.error
    )))
))
FROM json_each(:numbers) AS wanted
CROSS JOIN tasks AS t ON t.number = wanted.value
LEFT JOIN endings AS e ON e.number = t.number
"""

LOAD_UNFINISHED = LOAD.replace(
    ":numbers",
    "(SELECT json_group_array(number) FROM"
    " (SELECT number FROM unfinished WHERE number > :after ORDER BY number LIMIT :limit))",
)
LOAD_LANE = LOAD_UNFINISHED.replace(
    "WHERE",
    "WHERE lane = (SELECT lane FROM lanes"
    " WHERE priority = :priority AND role IS :role AND tenant IS :tenant) AND",
)
LOAD_BOUND = LOAD_UNFINISHED.replace("WHERE", "WHERE lane IS NULL AND")

LOAD_ENDED = LOAD.replace(
    ":numbers",
    "(SELECT json_group_array(number) FROM"
    " (SELECT number FROM endings WHERE position > :after ORDER BY position LIMIT :limit))",
)

_IS_OF_LANE = """
    l.priority = t.priority AND l.role IS t.role AND l.tenant IS t.tenant
    AND t.session IS NULL AND t.race IS NULL AND t.only_worker IS NULL
"""
ADD_LANES = f"""
INSERT INTO lanes (role, tenant, priority)
SELECT DISTINCT t.role, t.tenant, t.priority
FROM json_each(?) AS new CROSS JOIN tasks AS t ON t.number = new.value
WHERE t.session IS NULL AND t.race IS NULL AND t.only_worker IS NULL
    AND NOT EXISTS (SELECT 1 FROM lanes AS l WHERE {_IS_OF_LANE})
"""  # noqa: S608 - all is ours
ADD_UNFINISHED = f"""
INSERT INTO unfinished (number, lane)
SELECT t.number, (SELECT l.lane FROM lanes AS l WHERE {_IS_OF_LANE})
FROM json_each(?) AS new CROSS JOIN tasks AS t ON t.number = new.value
"""  # noqa: S608 - all is ours
DROP_UNFINISHED = "DELETE FROM unfinished WHERE number IN (SELECT value FROM json_each(?))"

READ_LANES = """
SELECT json_group_array(json_array(json_array(role, tenant, priority), tasks))
FROM (SELECT lane, count(*) AS tasks FROM unfinished WHERE lane IS NOT NULL GROUP BY lane)
CROSS JOIN lanes USING (lane)
"""

RESTATE = """
UPDATE tasks SET fingerprint = restated.column2 FROM (VALUES {rows}) AS restated
WHERE number = restated.column1 AND number IN (SELECT number FROM unfinished)
"""

NOTE_SENT = """
INSERT INTO sent SELECT CAST(key AS INTEGER), value FROM json_each(?) AS noted
WHERE type <> 'null' AND CAST(key AS INTEGER) IN (SELECT number FROM unfinished)
ON CONFLICT (number) DO UPDATE SET worker = excluded.worker
"""
FORGET_SENT = "DELETE FROM sent WHERE number IN (SELECT value FROM json_each(?))"
READ_SENT = "SELECT json_group_object(number, worker) FROM sent"

LAST_POSITION = "SELECT coalesce(max(position), 0) FROM endings"

ADD_TO_TOTALS = """
INSERT INTO totals
SELECT state, count(*), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),
       sum(cache_write_tokens), total(cost_usd), count(*) - count(cost_usd)
FROM endings WHERE position > ? GROUP BY state
ON CONFLICT (state) DO UPDATE SET
    endings = endings + excluded.endings,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
    cost_usd = cost_usd + excluded.cost_usd,
    unpriced = unpriced + excluded.unpriced
"""

READ_TOTALS = """
SELECT ended.*, extra.* FROM extra, (SELECT
    (SELECT count(*) FROM unfinished),
    coalesce(sum(endings) FILTER (WHERE state = 'completed'), 0),
    coalesce(sum(endings) FILTER (WHERE state = 'failed'), 0),
    coalesce(sum(endings) FILTER (WHERE state = 'cancelled'), 0),
    coalesce(sum(input_tokens), 0),
    coalesce(sum(output_tokens), 0),
    coalesce(sum(cache_read_tokens), 0),
    coalesce(sum(cache_write_tokens), 0),
    total(cost_usd),
    coalesce(sum(unpriced) FILTER (WHERE state = 'completed'), 0),
    (SELECT coalesce(max(number), 0) FROM tasks)
FROM totals) AS ended
"""

ADD_EXTRA = """
UPDATE extra SET
    turns = turns + ?,
    turns_usd = turns_usd + ?,
    input_tokens = input_tokens + ?,
    output_tokens = output_tokens + ?,
    cache_read_tokens = cache_read_tokens + ?,
    cache_write_tokens = cache_write_tokens + ?,
    usage_usd = usage_usd + ?,
    kept_usd = kept_usd + ?,
    kept_tokens = kept_tokens + ?,
    maybe_billed = maybe_billed + ?
"""

REQUEUE_FAILED = ADD_UNFINISHED.replace(
    "json_each(?)", "(SELECT number AS value FROM endings WHERE state = 'failed')"
)
FORGET_FAILED_TOTALS = "DELETE FROM totals WHERE state = 'failed'"

FORGET_DEATHS_OF_FAILED = """
DELETE FROM deaths WHERE number IN (SELECT number FROM endings WHERE state = 'failed')
"""

ADD_DEATHS = Insert("deaths", Death.__struct_fields__)
READ_DEATHS = """
SELECT number, worker, died_at, reason FROM deaths
WHERE number IN (SELECT number FROM unfinished) ORDER BY place
"""
READ_DEATHS_OF_TASK = """
SELECT number, worker, died_at, reason FROM deaths WHERE number = ? ORDER BY place
"""

KEEP_SNAPSHOTS = Insert(
    "snapshots",
    ("worker", "snapshot"),
    "ON CONFLICT (worker) DO UPDATE SET snapshot = excluded.snapshot",
)
READ_SNAPSHOT = "SELECT snapshot FROM snapshots WHERE worker = ?"

ADD_SETBACKS = Insert(
    "setbacks",
    Setback.__struct_fields__,
    "ON CONFLICT (since, kind, type) DO UPDATE SET count = count + excluded.count",
)
READ_SETBACKS = """
SELECT json_group_array(json_array(span, kind, type, count)) FROM (
    SELECT since / :span * :span AS span, kind, type, sum(count) AS count
    FROM setbacks GROUP BY span, kind, type ORDER BY span, kind, type
)
"""

KEEP_OUTPUT_TYPE = "INSERT INTO output_types VALUES (?, ?) ON CONFLICT (digest) DO NOTHING"
READ_OUTPUT_TYPE = "SELECT schema FROM output_types WHERE digest = ?"

READ_META = "SELECT value FROM meta WHERE key = ?"
WRITE_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


INSERT_TASKS = Insert("tasks", TaskRow._fields)
INSERT_ENDINGS = Insert("endings", EndingRow._fields, "ON CONFLICT (number) DO NOTHING")

decode_loaded = msgspec.json.Decoder(list[LoadedRow]).decode
decode_setbacks = msgspec.json.Decoder(list[tuple[int, SetbackKind, str, int]]).decode
decode_lanes = msgspec.json.Decoder(list[tuple[Lane, int]]).decode
decode_workers = msgspec.json.Decoder(dict[int, int]).decode
decode_numbers = msgspec.json.Decoder(dict[str, int]).decode
