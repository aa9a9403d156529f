"""How tasks and endings lie in the rows of a ledger, whatever its database, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from raypool.ledger import EndedTask, Extra, KnownTask, Totals
from raypool.records import AcceptedTask, Death, Ending, EndState, StoredCause
from raypool.task import Content
from raypool.unicode import unicode_text, unicode_value
from raypool.usage import Usage

_FIRST_ROWS = 16
_PAGE_CHARACTERS = 16_000_000


FORGET_FAILED = "DELETE FROM endings WHERE state = 'failed'"
KEEP_COST_OF_FAILED = """
UPDATE extra SET
    input_tokens = extra.input_tokens + failed.input_tokens,
    output_tokens = extra.output_tokens + failed.output_tokens,
    cache_read_tokens = extra.cache_read_tokens + failed.cache_read_tokens,
    cache_write_tokens = extra.cache_write_tokens + failed.cache_write_tokens,
    usage_usd = usage_usd + failed.cost_usd
FROM (SELECT * FROM totals WHERE state = 'failed') AS failed
"""
"""Statements that every database understands."""


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
    """What is read of a task; without an ending it has no position."""

    position: int | None
    task: TaskRow
    ending: EndingRow | None

    @property
    def place(self) -> int:
        """What the next page comes after: the position of what ended, the number of the rest."""
        return self.task.number if self.position is None else self.position


_decode_answers = msgspec.json.Decoder(list[str]).decode
_decode_cause = msgspec.json.Decoder(StoredCause).decode


def read_page(
    load: Callable[[int, int], tuple[list[LoadedRow], int]], after: int, limit: int
) -> list[LoadedRow]:
    """At most `limit` rows and about `_PAGE_CHARACTERS`, read in steps that double.

    `load(after, step)` gives at most so many of the next rows, and their length in characters.
    """
    page: list[LoadedRow] = []
    characters = 0
    while len(page) < limit and characters < _PAGE_CHARACTERS:
        step = min(max(_FIRST_ROWS, len(page)), limit - len(page))
        loaded, length = load(after, step)
        if not loaded:
            break
        page += loaded
        characters += length
        after = loaded[-1].place
    return page


def new_tasks(
    tasks: Sequence[AcceptedTask], stored: Mapping[str, int]
) -> tuple[list[AcceptedTask], dict[int, int]]:
    """The tasks with new ids; the others' numbers, with those that their ids have.

    `stored` are the numbers of the tasks that the ledger has, by id.
    """
    numbers = dict(stored)
    new: list[AcceptedTask] = []
    left_out: dict[int, int] = {}
    for task in tasks:
        if task.id in numbers:
            left_out[task.number] = numbers[task.id]
        else:
            numbers[task.id] = task.number
            new.append(task)
    return new, left_out


def totals_of(sums: Sequence[Any]) -> Totals:
    """What a row of sums says: the tasks and endings, then the row of `extra`."""
    width = len(ExtraRow._fields)
    unfinished, completed, failed, cancelled, *rest = sums[:-width]
    *tokens, cost_usd, unpriced, last_number = rest
    extra = extra_of(ExtraRow(*sums[-width:]))
    return Totals(
        unfinished=unfinished,
        completed=completed,
        failed=failed,
        cancelled=cancelled,
        usage=Usage(*tokens) + extra.usage,
        cost_usd=cost_usd + extra.usage_usd,
        unpriced=unpriced,
        last_number=last_number,
        extra=extra,
    )


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
