"""How tasks and endings lie in SQLite's tables: the SQL, and rows to records and back.

Python gives up its lock at every step of a statement, and beside a busy event loop each step then
waits up to 5 ms to get it back. So rows are written many to a statement, and read as one JSON
text: measured beside a busy thread, 30 times faster than `executemany` and `fetchall`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from raypool.lane import Lane
from raypool.ledger import EndedTask, Extra, KnownTask
from raypool.records import AcceptedTask, Death, Ending, EndState, StoredCause
from raypool.sqlite_statements import Insert
from raypool.task import Content
from raypool.unicode import unicode_text, unicode_value
from raypool.usage import Usage

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

KEEP_COST_OF_FAILED = """
UPDATE extra SET
    input_tokens = extra.input_tokens + failed.input_tokens,
    output_tokens = extra.output_tokens + failed.output_tokens,
    cache_read_tokens = extra.cache_read_tokens + failed.cache_read_tokens,
    cache_write_tokens = extra.cache_write_tokens + failed.cache_write_tokens,
    usage_usd = usage_usd + failed.cost_usd
FROM (SELECT * FROM totals WHERE state = 'failed') AS failed
"""
REQUEUE_FAILED = ADD_UNFINISHED.replace(
    "json_each(?)", "(SELECT number AS value FROM endings WHERE state = 'failed')"
)
FORGET_FAILED = "DELETE FROM endings WHERE state = 'failed'"
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

KEEP_OUTPUT_TYPE = "INSERT INTO output_types VALUES (?, ?) ON CONFLICT (digest) DO NOTHING"
READ_OUTPUT_TYPE = "SELECT schema FROM output_types WHERE digest = ?"

READ_META = "SELECT value FROM meta WHERE key = ?"
WRITE_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class ExtraRow(NamedTuple):
    """The row of `extra`."""

    turns: int
    turns_usd: float
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    usage_usd: float
    kept_usd: float
    kept_tokens: int
    maybe_billed: int


class TaskRow(NamedTuple):
    """A row of `tasks`; a REAL comes back as text, a BLOB in hexadecimal."""

    number: int
    id: str
    role: str | None
    timeout: float | str | None
    session: str | None
    only_worker: str | None
    output_type: str | None
    priority: int
    tenant: str | None
    hedge_after: str | None
    race: str | None
    fingerprint: Any
    metadata: str | None
    prompt: str | None
    messages: str | None


class EndingRow(NamedTuple):
    """A row of `endings` without its position; a REAL comes back as text."""

    number: int
    state: EndState
    worker: str | None
    attempts: int
    completed_at: int
    duration_ms: float | str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    model: str | None
    stop_reason: str | None
    session_id: str | None
    cost_usd: float | str | None
    turns: int
    text: str | None
    answers: str | None
    error: str | None


class LoadedRow(NamedTuple):
    """What `LOAD` gives of a task; without an ending it has no position."""

    position: int | None
    task: TaskRow
    ending: EndingRow | None

    @property
    def place(self) -> int:
        """What the next page comes after: the position of what ended, the number of the rest."""
        return self.task.number if self.position is None else self.position


INSERT_TASKS = Insert("tasks", TaskRow._fields)
INSERT_ENDINGS = Insert("endings", EndingRow._fields, "ON CONFLICT (number) DO NOTHING")

decode_loaded = msgspec.json.Decoder(list[LoadedRow]).decode
decode_lanes = msgspec.json.Decoder(list[tuple[Lane, int]]).decode
decode_workers = msgspec.json.Decoder(dict[int, int]).decode
decode_numbers = msgspec.json.Decoder(dict[str, int]).decode
_decode_answers = msgspec.json.Decoder(list[str]).decode
_decode_cause = msgspec.json.Decoder(StoredCause).decode


def extra_row(extra: Extra) -> ExtraRow:
    """The row that adds `extra`."""
    usage = extra.usage
    return ExtraRow(
        extra.turns,
        extra.turns_usd,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        extra.usage_usd,
        extra.kept_usd,
        extra.kept_tokens,
        extra.maybe_billed,
    )


def extra_of(row: ExtraRow) -> Extra:
    """What the row of `extra` holds."""
    return Extra(
        turns=row.turns,
        turns_usd=row.turns_usd,
        usage=Usage(
            row.input_tokens,
            row.output_tokens,
            row.cache_read_tokens,
            row.cache_write_tokens,
        ),
        usage_usd=row.usage_usd,
        kept_usd=row.kept_usd,
        kept_tokens=row.kept_tokens,
        maybe_billed=row.maybe_billed,
    )


def task_row(task: AcceptedTask) -> TaskRow:
    """The row that keeps `task`."""
    text, messages = _prompt_columns(task.prompt)
    return TaskRow(
        number=task.number,
        id=task.id,
        role=task.role,
        timeout=task.timeout,
        session=task.session,
        only_worker=task.worker,
        output_type=task.output_type,
        priority=task.priority,
        tenant=task.tenant,
        hedge_after=None if task.hedge_after is None else str(task.hedge_after),
        race=task.race,
        fingerprint=task.fingerprint,
        metadata=None if task.metadata is None else _json(task.metadata),
        prompt=text,
        messages=messages,
    )


def death_row(death: Death) -> tuple[Any, ...]:
    """The row that keeps `death`; what is not Unicode in it becomes U+FFFD."""
    return (death.number, death.worker, death.died_at, unicode_text(death.reason))


def ending_row(ending: Ending) -> EndingRow:
    """The row that keeps `ending`; what is not Unicode in it becomes U+FFFD."""
    usage = ending.usage
    return EndingRow(
        number=ending.number,
        state=ending.state,
        worker=ending.worker,
        attempts=ending.attempts,
        completed_at=ending.completed_at,
        duration_ms=ending.duration_ms,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        model=_unicode(ending.model),
        stop_reason=_unicode(ending.stop_reason),
        session_id=_unicode(ending.session_id),
        cost_usd=ending.cost_usd,
        turns=ending.turns,
        text=_unicode(ending.text),
        answers=None if ending.answers is None else payload(ending.answers),
        error=None if ending.cause is None else payload(ending.cause),
    )


def known_task(loaded: LoadedRow) -> KnownTask:
    """The task that `loaded` keeps, with its ending if it has one."""
    ending = None if loaded.ending is None else _ending(loaded.ending)
    return KnownTask(accepted_task(loaded.task), ending)


def ended_task(loaded: LoadedRow) -> EndedTask:
    """The task with an ending that `loaded` keeps."""
    assert loaded.position is not None
    assert loaded.ending is not None
    return EndedTask(loaded.position, accepted_task(loaded.task), _ending(loaded.ending))


def accepted_task(row: TaskRow) -> AcceptedTask:
    """The task that `row` keeps."""
    return AcceptedTask(
        number=row.number,
        id=row.id,
        prompt=_prompt(row),
        role=row.role,
        metadata=None if row.metadata is None else msgspec.json.decode(row.metadata),
        timeout=_real(row.timeout),
        session=row.session,
        worker=row.only_worker,
        output_type=row.output_type,
        priority=row.priority,
        tenant=row.tenant,
        hedge_after=_hedge_after(row.hedge_after),
        race=row.race,
        fingerprint=bytes.fromhex(row.fingerprint),
    )


def payload(value: Any) -> str:
    """The JSON that keeps `value`; what is not Unicode in it becomes U+FFFD."""
    try:
        return _json(value)
    except UnicodeEncodeError:
        return _json(unicode_value(msgspec.to_builtins(value)))


def _prompt_columns(prompt: Content) -> tuple[str | None, str | None]:
    return (prompt, None) if isinstance(prompt, str) else (None, _json(prompt))


def _prompt(row: TaskRow) -> Content:
    if row.prompt is not None:
        return row.prompt
    messages: Content = msgspec.json.decode(row.messages or "", type=list[dict[str, Any]])
    return messages


def _ending(row: EndingRow) -> Ending:
    return Ending(
        number=row.number,
        state=row.state,
        worker=row.worker,
        attempts=row.attempts,
        completed_at=row.completed_at,
        duration_ms=_real(row.duration_ms),
        text=row.text,
        usage=Usage(
            row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens
        ),
        model=row.model,
        stop_reason=row.stop_reason,
        session_id=row.session_id,
        cost_usd=_real(row.cost_usd),
        cause=None if row.error is None else _decode_cause(row.error),
        turns=row.turns,
        answers=None if row.answers is None else _decode_answers(row.answers),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _real(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _hedge_after(text: str | None) -> float | str | None:
    return text if text is None or text.startswith("p") else float(text)


def _unicode(text: str | None) -> str | None:
    return text if text is None or text.isascii() else unicode_text(text)
