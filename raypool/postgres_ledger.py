"""The ledger in a PostgreSQL database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, LiteralString, TypeVar

from psycopg import errors

from raypool import postgres_rows as rows
from raypool import sqlite_rows
from raypool.ledger import NO_EXTRA, EndedTask, Extra, KnownTask, Ledger, Totals
from raypool.postgres_connection import Connection
from raypool.postgres_place import PostgresPlace
from raypool.postgres_session import Counts, PostgresSession, Written
from raypool.postgres_sessions import (
    add_conversations,
    conversation,
    copy_in,
    last_places,
    only_row,
)
from raypool.records import AcceptedTask, Ending
from raypool.unicode import unicode_text
from raypool.usage import Usage

_FIRST_ROWS = 16
_PAGE_CHARACTERS = 16_000_000
_EXTRA_COLUMNS = len(sqlite_rows.ExtraRow._fields)

K = TypeVar("K")


class PostgresLedger(Ledger):
    """The ledger in a schema of a PostgreSQL database, made when it is missing, held until `close`.

    What is committed is as safe as the server makes it. A server that is restarted is waited for,
    and a connection that is lost comes back; see `PostgresSession`.

    Args:
        place: where it is.
        patience: how many seconds to wait for a server that is away at first.

    Raises:
        LedgerError: the database cannot be used, or another pool has the ledger.
    """

    def __init__(self, place: PostgresPlace, *, patience: float = 0.0) -> None:
        self._session = PostgresSession(place, patience)

    def write(
        self,
        tasks: Sequence[AcceptedTask],
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
    ) -> dict[int, KnownTask]:
        change = partial(_write, tasks=tasks, endings=endings, snapshots=snapshots, extra=extra)
        known: dict[int, KnownTask] = self._session.write(change)
        return known

    def find(self, task_id: str) -> KnownTask | None:
        return self.find_all([task_id]).get(task_id)

    def find_all(self, task_ids: Sequence[str]) -> dict[str, KnownTask]:
        return self._session.read(partial(_find_all, task_ids))

    def unfinished(self, after: int, limit: int) -> list[AcceptedTask]:
        return self._session.read(
            lambda reader: [
                rows.accepted_task(row) for row in _page(reader, rows.LOAD_UNFINISHED, after, limit)
            ]
        )

    def ended(self, after: int, limit: int) -> list[EndedTask]:
        return self._session.read(
            lambda reader: [
                rows.ended_task(row) for row in _page(reader, rows.LOAD_ENDED, after, limit)
            ]
        )

    def totals(self) -> Totals:
        sums = self._session.read(lambda reader: only_row(reader, rows.READ_TOTALS))
        unfinished, completed, failed, cancelled, *rest = sums[:-_EXTRA_COLUMNS]
        *tokens, cost_usd, unpriced, last_number = rest
        extra = sqlite_rows.extra_of(sqlite_rows.ExtraRow(*sums[-_EXTRA_COLUMNS:]))
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

    def requeue_failed(self) -> int:
        requeued: int = self._session.write(_requeue_failed)
        return requeued

    def session_turns(self, sessions: Sequence[str]) -> dict[str, int]:
        return self._session.read(lambda reader: last_places(reader, sessions))

    def conversation(self, session: str) -> list[dict[str, Any]]:
        return self._session.read(lambda reader: conversation(reader, session))

    def snapshot(self, worker: str) -> str | None:
        return self._read(rows.READ_SNAPSHOT, worker)

    def output_type(self, digest: str) -> str | None:
        return self._read(rows.READ_OUTPUT_TYPE, digest)

    def keep_output_type(self, digest: str, schema_json: str) -> None:
        self._write(rows.KEEP_OUTPUT_TYPE, digest, unicode_text(schema_json))

    def meta(self, key: str) -> str | None:
        return self._read(rows.READ_META, key)

    def set_meta(self, key: str, value: str) -> None:
        self._write(rows.WRITE_META, key, value)

    def close(self) -> None:
        self._session.close()

    def _read(self, query: LiteralString, key: str) -> str | None:
        found = self._session.read(
            lambda reader: reader.execute(query, (rows.kept_text(key),)).fetchone()
        )
        return rows.told_text(found[0]) if found else None

    def _write(self, statement: LiteralString, *texts: str) -> None:
        values = [rows.kept_text(text) for text in texts]

        def change(writer: Connection, counts: Counts) -> Written:
            writer.execute(statement, values)
            return Written(None, counts)

        self._session.write(change)


def _write(
    writer: Connection,
    counts: Counts,
    *,
    tasks: Sequence[AcceptedTask],
    endings: Sequence[Ending],
    snapshots: Mapping[str, str],
    extra: Extra,
) -> Written:
    left_out, new = _accept(writer, tasks) if tasks else ({}, [])
    recorded = _record(writer, endings, counts.last_position) if endings else 0
    if snapshots:
        _keep_snapshots(writer, snapshots)
    if extra != NO_EXTRA:
        writer.execute(rows.ADD_EXTRA, sqlite_rows.extra_row(extra))
    return Written(
        _load_by_number(writer, left_out),
        counts._replace(
            last_position=counts.last_position + recorded,
            unfinished=counts.unfinished + len(new) - recorded,
        ),
        partial(_undo, new=new, extra=extra),
    )


def _undo(writer: Connection, counts: Counts, *, new: list[int], extra: Extra) -> Written:
    """Take back a write that has failed for its caller: the tasks, unless they have ended, and
    what was spent. Of what else it wrote, writing it again changes nothing.
    """
    forgotten = writer.execute(rows.FORGET_UNFINISHED_TASKS, (new,)).rowcount
    if extra != NO_EXTRA:
        writer.execute(rows.ADD_EXTRA, [-value for value in sqlite_rows.extra_row(extra)])
    return Written(None, counts._replace(unfinished=counts.unfinished - forgotten))


def _accept(writer: Connection, tasks: Sequence[AcceptedTask]) -> tuple[dict[int, int], list[int]]:
    """Insert the tasks with new ids.

    Returns the numbers of the others, with those stored under their ids; and the new numbers.
    """
    stored = _find_numbers(writer, [task.id for task in tasks])
    new: list[AcceptedTask] = []
    left_out: dict[int, int] = {}
    for task in tasks:
        if task.id in stored:
            left_out[task.number] = stored[task.id]
        else:
            stored[task.id] = task.number
            new.append(task)
    numbers = [task.number for task in new]
    copy_in(writer, rows.COPY_TASKS, map(rows.task_row, new))
    writer.execute(rows.ADD_UNFINISHED, (numbers,))
    return left_out, numbers


def _record(writer: Connection, endings: Sequence[Ending], last_position: int) -> int:
    """Record the first ending of each task that has none; how many."""
    numbers = {ending.number for ending in endings}
    dropped = writer.execute(rows.DROP_UNFINISHED, (list(numbers),)).fetchall()
    open_numbers = {number for (number,) in dropped}
    ended = numbers - open_numbers
    if ended and only_row(writer, rows.COUNT_ACCEPTED, (list(ended),)) != (len(ended),):
        raise errors.ForeignKeyViolation(f"one of {sorted(ended)[:10]} is no task")
    kept: dict[int, Ending] = {}
    for ending in endings:
        if ending.number in open_numbers:
            kept.setdefault(ending.number, ending)
    copy_in(
        writer,
        rows.COPY_ENDINGS,
        (rows.ending_row(place, one) for place, one in enumerate(kept.values(), last_position + 1)),
    )
    _add_to_totals(writer, kept.values())
    add_conversations(writer, kept.values())
    return len(kept)


def _add_to_totals(writer: Connection, endings: Iterable[Ending]) -> None:
    by_state: defaultdict[str, list[Ending]] = defaultdict(list)
    for ending in endings:
        by_state[ending.state].append(ending)
    for state, group in by_state.items():
        costs = [one.cost_usd for one in group if one.cost_usd is not None]
        usage = [
            sum(amounts) for amounts in zip(*(_tokens(one.usage) for one in group), strict=True)
        ]
        sums = (len(group), *usage, sum(costs), len(group) - len(costs))
        writer.execute(rows.ADD_TO_TOTALS, (*sums, state))


def _tokens(usage: Usage) -> tuple[int, int, int, int]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
    )


def _keep_snapshots(writer: Connection, snapshots: Mapping[str, str]) -> None:
    texts = [rows.kept_text(unicode_text(snapshot)) for snapshot in snapshots.values()]
    writer.execute(rows.KEEP_SNAPSHOTS, (list(snapshots), texts))


def _requeue_failed(writer: Connection, counts: Counts) -> Written:
    requeued = writer.execute(rows.REQUEUE_FAILED).rowcount
    writer.execute(rows.FORGET_FAILED)
    writer.execute(rows.KEEP_COST_OF_FAILED)
    writer.execute(rows.FORGET_FAILED_TOTALS)
    return Written(requeued, counts._replace(unfinished=counts.unfinished + requeued))


def _find_all(task_ids: Sequence[str], reader: Connection) -> dict[str, KnownTask]:
    return _load_by_number(reader, _find_numbers(reader, task_ids))


def _find_numbers(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The numbers of the tasks that are stored under `ids`, by id."""
    kept = [rows.kept_text(one) for one in ids]
    found = connection.execute(rows.FIND_NUMBERS, (kept,)).fetchall()
    return {rows.told_text(task_id): number for task_id, number in found}


def _load_by_number(connection: Connection, numbers: Mapping[K, int]) -> dict[K, KnownTask]:
    """What is stored under each of `numbers`, by the key that the number has there."""
    if not numbers:
        return {}
    loaded = connection.execute(rows.LOAD, (list(set(numbers.values())),)).fetchall()
    by_number = {known.task.number: known for known in map(rows.known_task, loaded)}
    return {key: by_number[number] for key, number in numbers.items()}


def _page(
    reader: Connection, query: LiteralString, after: int, limit: int
) -> list[tuple[Any, ...]]:
    """At most `limit` rows and about `_PAGE_CHARACTERS`, read in steps that double."""
    page: list[tuple[Any, ...]] = []
    characters = 0
    while len(page) < limit and characters < _PAGE_CHARACTERS:
        step = min(max(_FIRST_ROWS, len(page)), limit - len(page))
        loaded = reader.execute(query, (after, step)).fetchall()
        if not loaded:
            break
        page += loaded
        characters += sum(len(value) for row in loaded for value in row if isinstance(value, str))
        position, number, *_ = loaded[-1]
        after = number if position is None else position
    return page
