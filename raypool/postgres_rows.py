"""How tasks and endings lie in PostgreSQL's tables: the SQL, and rows to records and back.

PostgreSQL keeps no text with a NUL in it. Such a NUL is kept as a DLE and a `0`, and a DLE as a
DLE and a `1`; JSON needs neither, since it escapes both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from raypool import ledger_rows as rows
from raypool.lane import Lane
from raypool.ledger import KnownTask
from raypool.ledger_rows import EndingRow, ExtraRow, LoadedRow, TaskRow
from raypool.records import AcceptedTask, Death, Ending
from raypool.setbacks import Setback

_NUL = "\0"
_DLE = "\x10"
_KEPT_NUL = "\x100"
_KEPT_DLE = "\x101"

_TASK_COLUMNS = ", ".join(f"t.{column}" for column in TaskRow._fields).replace(
    "t.fingerprint", "encode(t.fingerprint, 'hex')"
)
_ENDING_COLUMNS = ", ".join(f"e.{column}" for column in EndingRow._fields)
_TASK_WIDTH = len(TaskRow._fields)

FIND_NUMBERS = """
SELECT tasks.id, tasks.number FROM unnest(%s::text[]) AS wanted (id) JOIN tasks USING (id)
"""

_LOAD = f"""
SELECT e.position, {_TASK_COLUMNS}, {_ENDING_COLUMNS}
FROM ({{wanted}}) AS wanted
JOIN tasks AS t USING (number)
LEFT JOIN endings AS e USING (number)
ORDER BY {{order}}
"""  # noqa: S608 - all is ours

LOAD = _LOAD.format(wanted="SELECT unnest(%s::bigint[]) AS number", order="t.number")
LOAD_UNFINISHED = _LOAD.format(
    wanted="SELECT number FROM unfinished WHERE number > %s ORDER BY number LIMIT %s",
    order="t.number",
)
LOAD_LANE = _LOAD.format(
    wanted=(
        "SELECT number FROM unfinished WHERE lane = (SELECT lane FROM lanes WHERE name = %s)"
        " AND number > %s ORDER BY number LIMIT %s"
    ),
    order="t.number",
)
LOAD_BOUND = _LOAD.format(
    wanted=(
        "SELECT number FROM unfinished WHERE lane IS NULL AND number > %s ORDER BY number LIMIT %s"
    ),
    order="t.number",
)
LOAD_ENDED = _LOAD.format(
    wanted="SELECT number FROM endings WHERE position > %s ORDER BY position LIMIT %s",
    order="e.position",
)

COPY_TASKS = f"COPY tasks ({', '.join(TaskRow._fields)}) FROM STDIN"
COPY_ENDINGS = f"COPY endings (position, {', '.join(EndingRow._fields)}) FROM STDIN"
COPY_TURNS = "COPY session_turns (number, session, place, is_whole, messages) FROM STDIN"

ADD_UNFINISHED = "INSERT INTO unfinished SELECT * FROM unnest(%s::bigint[], %s::bigint[])"
FIND_LANES = """
SELECT lanes.name, lanes.lane FROM unnest(%s::text[]) AS wanted (name) JOIN lanes USING (name)
"""
ADD_LANES = """
INSERT INTO lanes (name, role, tenant, priority)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::integer[]) RETURNING name, lane
"""
READ_LANES = """
SELECT role, tenant, priority, tasks
FROM (
    SELECT lane, count(*) AS tasks FROM unfinished WHERE lane IS NOT NULL GROUP BY lane
) AS counted JOIN lanes USING (lane)
"""
DROP_UNFINISHED = """
DELETE FROM unfinished USING unnest(%s::bigint[]) AS ended (number)
WHERE unfinished.number = ended.number RETURNING unfinished.number
"""
COUNT_ACCEPTED = """
SELECT count(*) FROM unnest(%s::bigint[]) AS wanted (number) JOIN tasks USING (number)
"""
FORGET_UNFINISHED_TASKS = """
WITH gone AS (
    DELETE FROM unfinished USING unnest(%s::bigint[]) AS wanted (number)
    WHERE unfinished.number = wanted.number RETURNING unfinished.number
)
DELETE FROM tasks USING gone WHERE tasks.number = gone.number
"""

NOTE_SENT = """
INSERT INTO sent SELECT noted.number, noted.worker
FROM unnest(%s::bigint[], %s::bigint[]) AS noted (number, worker) JOIN unfinished USING (number)
ON CONFLICT (number) DO UPDATE SET worker = excluded.worker
"""
FORGET_SENT = """
DELETE FROM sent USING unnest(%s::bigint[]) AS gone (number) WHERE sent.number = gone.number
"""
READ_SENT = "SELECT number, worker FROM sent ORDER BY number"

COPY_DEATHS = f"COPY deaths ({', '.join(Death.__struct_fields__)}) FROM STDIN"
READ_DEATHS = """
SELECT deaths.number, worker, died_at, reason FROM deaths JOIN unfinished USING (number)
ORDER BY place
"""
READ_DEATHS_OF_TASK = """
SELECT number, worker, died_at, reason FROM deaths WHERE number = %s ORDER BY place
"""
FORGET_LAST_DEATHS = """
DELETE FROM deaths WHERE place IN (SELECT place FROM deaths ORDER BY place DESC LIMIT %s)
"""
FORGET_DEATHS_OF_FAILED = """
DELETE FROM deaths USING endings WHERE deaths.number = endings.number AND state = 'failed'
"""

RESTATE = """
UPDATE tasks SET fingerprint = restated.fingerprint
FROM unnest(%s::bigint[], %s::bytea[]) AS restated (number, fingerprint)
JOIN unfinished USING (number)
WHERE tasks.number = restated.number
"""

ADD_TO_TOTALS = """
UPDATE totals SET
    endings = endings + %s,
    input_tokens = input_tokens + %s,
    output_tokens = output_tokens + %s,
    cache_read_tokens = cache_read_tokens + %s,
    cache_write_tokens = cache_write_tokens + %s,
    cost_usd = cost_usd + %s,
    unpriced = unpriced + %s
WHERE state = %s
"""

READ_TOTALS = f"""
SELECT ended.*, {", ".join(f"extra.{column}" for column in ExtraRow._fields)}
FROM extra, (SELECT
    (SELECT unfinished FROM ledger),
    sum(endings) FILTER (WHERE state = 'completed')::bigint,
    sum(endings) FILTER (WHERE state = 'failed')::bigint,
    sum(endings) FILTER (WHERE state = 'cancelled')::bigint,
    sum(input_tokens)::bigint,
    sum(output_tokens)::bigint,
    sum(cache_read_tokens)::bigint,
    sum(cache_write_tokens)::bigint,
    sum(cost_usd),
    sum(unpriced) FILTER (WHERE state = 'completed')::bigint,
    (SELECT coalesce(max(number), 0) FROM tasks)
FROM totals) AS ended
"""  # noqa: S608 - all is ours

ADD_EXTRA = f"UPDATE extra SET {', '.join(f'{one} = {one} + %s' for one in ExtraRow._fields)}"  # noqa: S608

REQUEUE_FAILED = """
INSERT INTO unfinished SELECT t.number, l.lane
FROM endings JOIN tasks AS t USING (number)
LEFT JOIN lanes AS l ON l.priority = t.priority
    AND l.role IS NOT DISTINCT FROM t.role AND l.tenant IS NOT DISTINCT FROM t.tenant
    AND t.session IS NULL AND t.race IS NULL AND t.only_worker IS NULL
WHERE state = 'failed'
"""
FORGET_FAILED_TOTALS = """
UPDATE totals SET
    endings = 0, input_tokens = 0, output_tokens = 0, cache_read_tokens = 0,
    cache_write_tokens = 0, cost_usd = 0, unpriced = 0
WHERE state = 'failed'
"""

LAST_PLACES = """
SELECT wanted.session, (
    SELECT max(place) FROM session_turns WHERE session_turns.session = wanted.session
) FROM unnest(%s::text[]) AS wanted (session)
"""
LOAD_CONVERSATION = """
SELECT messages FROM session_turns
WHERE session = %(session)s AND place >= coalesce(
    (SELECT max(place) FROM session_turns WHERE session = %(session)s AND is_whole), 0
)
ORDER BY place
"""

KEEP_SNAPSHOTS = """
INSERT INTO snapshots SELECT * FROM unnest(%s::text[], %s::text[])
ON CONFLICT (worker) DO UPDATE SET snapshot = excluded.snapshot
"""
READ_SNAPSHOT = "SELECT snapshot FROM snapshots WHERE worker = %s"

ADD_SETBACKS = """
INSERT INTO setbacks
SELECT since, kind, type, sum(count)::bigint
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) AS added (since, kind, type, count)
GROUP BY since, kind, type
ON CONFLICT (since, kind, type) DO UPDATE SET count = setbacks.count + excluded.count
"""
READ_SETBACKS = """
SELECT since / %(span)s * %(span)s AS span, kind, type, sum(count)::bigint
FROM setbacks GROUP BY span, kind, type ORDER BY span, kind, type
"""

KEEP_OUTPUT_TYPE = "INSERT INTO output_types VALUES (%s, %s) ON CONFLICT (digest) DO NOTHING"
READ_OUTPUT_TYPE = "SELECT schema FROM output_types WHERE digest = %s"

READ_META = "SELECT value FROM meta WHERE key = %s"
WRITE_META = """
INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""


def kept_text(text: str) -> str:
    """`text` as PostgreSQL can keep it."""
    if _NUL in text or _DLE in text:
        return text.replace(_DLE, _KEPT_DLE).replace(_NUL, _KEPT_NUL)
    return text


def told_text(kept: str) -> str:
    """The text that is kept as `kept`."""
    return kept.replace(_KEPT_NUL, _NUL).replace(_KEPT_DLE, _DLE) if _DLE in kept else kept


def kept_row(row: Iterable[Any]) -> list[Any]:
    """A row with its texts as PostgreSQL can keep them."""
    return [kept_text(value) if value.__class__ is str else value for value in row]


def loaded_row(row: Sequence[Any]) -> LoadedRow:
    """A row of what the `LOAD` queries give."""
    told: list[Any] = [told_text(value) if value.__class__ is str else value for value in row]
    position = told[0]
    ending = None if position is None else EndingRow(*told[1 + _TASK_WIDTH :])
    return LoadedRow(position, TaskRow(*told[1 : 1 + _TASK_WIDTH]), ending)


def known_task(row: Sequence[Any]) -> KnownTask:
    """The task in a loaded row, with its ending if it has one."""
    return rows.known_task(loaded_row(row))


def lane_name(lane: Lane) -> str:
    """What a lane is found by."""
    return msgspec.json.encode(lane).decode()


def lane_of_row(row: Sequence[Any]) -> tuple[Lane, int]:
    """A lane that `READ_LANES` gives, and how many tasks it has."""
    role, tenant, priority, tasks = row
    role, tenant = (text if text is None else told_text(text) for text in (role, tenant))
    return Lane(role, tenant, priority), tasks


def told_setback(row: Sequence[Any]) -> Setback:
    """What was asked again, as `READ_SETBACKS` gives it."""
    since, kind, error_type, count = row
    return Setback(since, kind, told_text(error_type), count)


def told_death(row: Sequence[Any]) -> Death:
    """A death that is kept as `row`."""
    number, worker, died_at, reason = row
    return Death(number, told_text(worker), died_at, told_text(reason))


def task_row(task: AcceptedTask) -> list[Any]:
    """The row that keeps `task`."""
    return kept_row(rows.task_row(task))


def ending_row(position: int, ending: Ending) -> list[Any]:
    """The row that keeps `ending` at its place in the order of completion."""
    return [position, *kept_row(rows.ending_row(ending))]
