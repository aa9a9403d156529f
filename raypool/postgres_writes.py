"""What a ledger in PostgreSQL does in a transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from psycopg import errors

from raypool import ledger_rows
from raypool import postgres_rows as rows
from raypool.lane import lane_of
from raypool.ledger import NO_EXTRA, Extra, KnownTask, Progress
from raypool.postgres_connection import Connection
from raypool.postgres_session import Counts, Written
from raypool.postgres_sessions import add_conversations, copy_in, only_row
from raypool.records import AcceptedTask, Ending
from raypool.setbacks import Setback
from raypool.unicode import unicode_text
from raypool.usage import Usage

K = TypeVar("K")


def write(
    writer: Connection,
    counts: Counts,
    *,
    tasks: Sequence[AcceptedTask],
    endings: Sequence[Ending],
    snapshots: Mapping[str, str],
    extra: Extra,
    progress: Progress,
) -> Written:
    """What `Ledger.write` does, to be committed."""
    left_out, new = _accept(writer, tasks) if tasks else ({}, [])
    _keep_progress(writer, progress)
    recorded = _record(writer, endings, counts.last_position) if endings else 0
    if snapshots:
        _keep_snapshots(writer, snapshots)
    if extra != NO_EXTRA:
        writer.execute(rows.ADD_EXTRA, ledger_rows.extra_row(extra))
    return Written(
        load_by_number(writer, left_out),
        counts._replace(
            last_position=counts.last_position + recorded,
            unfinished=counts.unfinished + len(new) - recorded,
        ),
        partial(_undo, new=new, extra=extra, progress=progress),
    )


def _undo(
    writer: Connection, counts: Counts, *, new: list[int], extra: Extra, progress: Progress
) -> Written:
    """Take back a write that has failed for its caller, but for what is the same written again.

    That is the endings, and what was sent as long as nobody says otherwise.
    """
    forgotten = writer.execute(rows.FORGET_UNFINISHED_TASKS, (new,)).rowcount
    writer.execute(rows.FORGET_SENT, (new,))
    writer.execute(rows.FORGET_LAST_DEATHS, (len(progress.deaths),))
    if extra != NO_EXTRA:
        writer.execute(rows.ADD_EXTRA, [-value for value in ledger_rows.extra_row(extra)])
    return Written(None, counts._replace(unfinished=counts.unfinished - forgotten))


def _accept(writer: Connection, tasks: Sequence[AcceptedTask]) -> tuple[dict[int, int], list[int]]:
    """Insert the tasks with new ids.

    Returns the numbers of the others, with those stored under their ids; and the new numbers.
    """
    stored = find_numbers(writer, [task.id for task in tasks])
    new, left_out = ledger_rows.new_tasks(tasks, stored)
    numbers = [task.number for task in new]
    copy_in(writer, rows.COPY_TASKS, map(rows.task_row, new))
    lanes = _lanes_of(writer, new)
    writer.execute(rows.ADD_UNFINISHED, (numbers, lanes))
    return left_out, numbers


def _lanes_of(writer: Connection, tasks: Sequence[AcceptedTask]) -> list[int | None]:
    """The number of each task's lane, which is made when it is missing."""
    lanes = [lane_of(task) for task in tasks]
    names = {lane: rows.lane_name(lane) for lane in lanes if lane is not None}
    found: dict[str, int] = dict(
        writer.execute(rows.FIND_LANES, (list(names.values()),)).fetchall()
    )
    missing = [(name, *rows.kept_row(lane)) for lane, name in names.items() if name not in found]
    if missing:
        columns = [list(column) for column in zip(*missing, strict=True)]
        found |= dict(writer.execute(rows.ADD_LANES, columns).fetchall())
    return [None if lane is None else found[names[lane]] for lane in lanes]


def _keep_progress(writer: Connection, progress: Progress) -> None:
    if progress.sent:
        sent = {number: one for number, one in progress.sent.items() if one is not None}
        writer.execute(rows.NOTE_SENT, (list(sent), list(sent.values())))
        writer.execute(rows.FORGET_SENT, ([one for one in progress.sent if one not in sent],))
    if progress.deaths:
        _refuse_strangers(writer, {death.number for death in progress.deaths})
        deaths = (rows.kept_row(ledger_rows.death_row(one)) for one in progress.deaths)
        copy_in(writer, rows.COPY_DEATHS, deaths)


def _record(writer: Connection, endings: Sequence[Ending], last_position: int) -> int:
    """Record the first ending of each task that has none; how many."""
    numbers = {ending.number for ending in endings}
    dropped = writer.execute(rows.DROP_UNFINISHED, (list(numbers),)).fetchall()
    open_numbers = {number for (number,) in dropped}
    _refuse_strangers(writer, numbers - open_numbers)
    writer.execute(rows.FORGET_SENT, (list(open_numbers),))
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


def _refuse_strangers(writer: Connection, numbers: set[int]) -> None:
    """Raise when one of these numbers is no task's."""
    if numbers and only_row(writer, rows.COUNT_ACCEPTED, (list(numbers),)) != (len(numbers),):
        raise errors.ForeignKeyViolation(f"one of {sorted(numbers)[:10]} is no task")


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


def add_setbacks(
    writer: Connection, counts: Counts, *, setbacks: Sequence[Setback], sign: int = 1
) -> Written:
    """What `Ledger.add_setbacks` does, to be committed; with a `sign` of -1 it is taken back."""
    table = [
        (one.since, one.kind, rows.kept_text(unicode_text(one.type)), sign * one.count)
        for one in setbacks
    ]
    columns = [list(column) for column in zip(*table, strict=True)] or [[], [], [], []]
    writer.execute(rows.ADD_SETBACKS, columns)
    return Written(None, counts, partial(add_setbacks, setbacks=setbacks, sign=-sign))


def requeue_failed(writer: Connection, counts: Counts) -> Written:
    """What `Ledger.requeue_failed` does, to be committed."""
    requeued = writer.execute(rows.REQUEUE_FAILED).rowcount
    writer.execute(rows.FORGET_DEATHS_OF_FAILED)
    writer.execute(ledger_rows.FORGET_FAILED)
    writer.execute(ledger_rows.KEEP_COST_OF_FAILED)
    writer.execute(rows.FORGET_FAILED_TOTALS)
    return Written(requeued, counts._replace(unfinished=counts.unfinished + requeued))


def find_numbers(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The numbers of the tasks that are stored under `ids`, by id."""
    kept = [rows.kept_text(one) for one in ids]
    found = connection.execute(rows.FIND_NUMBERS, (kept,)).fetchall()
    return {rows.told_text(task_id): number for task_id, number in found}


def load_by_number(connection: Connection, numbers: Mapping[K, int]) -> dict[K, KnownTask]:
    """What is stored under each of `numbers`, by the key that the number has there."""
    if not numbers:
        return {}
    loaded = connection.execute(rows.LOAD, (list(set(numbers.values())),)).fetchall()
    by_number = {known.task.number: known for known in map(rows.known_task, loaded)}
    return {key: by_number[number] for key, number in numbers.items()}
