"""Group commit: order, grouping, failure, reads beside writes, and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from raypool.errors import LedgerError
from raypool.group_commit import PROBE, GroupCommit
from raypool.ledger import NO_EXTRA, NO_PROGRESS, Extra, KnownTask, Ledger, Progress, Unfit
from raypool.records import AcceptedTask, Ending
from raypool.sqlite_ledger import SqliteLedger

pytestmark = pytest.mark.asyncio


class SlowLedger(SqliteLedger):
    """A ledger whose writes wait at a gate, and fail when told to.

    Attributes:
        gate: writes wait until it is set.
        entered: a write has come to the gate.
        failures: what the next writes raise; `None` lets one through.
        groups: the task numbers and the ended numbers of each write.
        threads: the threads that wrote.
    """

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failures: list[Exception | None] = []
        self.groups: list[tuple[list[int], list[int]]] = []
        self.threads: set[int] = set()

    def write(
        self,
        tasks: Sequence[AcceptedTask],
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
        progress: Progress = NO_PROGRESS,
    ) -> dict[int, KnownTask]:
        self.entered.set()
        self.gate.wait()
        self.threads.add(threading.get_ident())
        self.groups.append(([one.number for one in tasks], [one.number for one in endings]))
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        return super().write(tasks, endings, snapshots, extra, progress)


@asynccontextmanager
async def group_commit(
    ledger: SlowLedger | None = None,
) -> AsyncIterator[tuple[GroupCommit, SlowLedger]]:
    ledger = ledger or SlowLedger()
    group = GroupCommit(ledger)
    try:
        yield group, ledger
    finally:
        ledger.gate.set()
        await group.close()


async def shut_gate(group: GroupCommit, ledger: SlowLedger) -> asyncio.Future[Any]:
    """Keep the writer at the gate with a write of its own."""
    ledger.gate.clear()
    ledger.entered.clear()
    first = group.accept([task(1000)])
    await asyncio.to_thread(ledger.entered.wait)
    return first


def task(number: int, task_id: str | None = None) -> AcceptedTask:
    return AcceptedTask(number, task_id or f"task-{number}", "why?")


def ending(number: int) -> Ending:
    return Ending(number, "completed", "pool-1", 1, 0)


async def test_accepted_and_recorded_tasks_are_in_the_ledger() -> None:
    async with group_commit() as (group, ledger):
        assert await group.accept([task(1), task(2)]) == {}
        await group.record([ending(1)])

        assert ledger.unfinished(0, 10) == [task(2)]


async def test_calls_of_one_moment_share_a_transaction() -> None:
    async with group_commit() as (group, ledger):
        await asyncio.gather(*(group.accept([task(number)]) for number in range(1, 101)))

        assert ledger.groups == [(list(range(1, 101)), [])]


async def test_what_is_asked_during_a_write_forms_the_next_group() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        rest = [group.accept([task(1)]), group.record([ending(1)]), group.accept([task(2)])]
        ledger.gate.set()

        await asyncio.gather(first, *rest)

        assert ledger.groups == [([1000], []), ([1, 2], [1])]


async def test_writes_run_on_one_thread_that_is_not_the_loops() -> None:
    async with group_commit() as (group, ledger):
        for number in range(1, 4):
            await group.accept([task(number)])

        assert len(ledger.threads) == 1
        assert threading.get_ident() not in ledger.threads


async def test_callers_are_resumed_in_the_order_in_which_they_asked() -> None:
    async with group_commit() as (group, ledger):
        resumed: list[int] = []

        async def ask(number: int) -> None:
            await group.accept([task(number)])
            resumed.append(number)

        first = await shut_gate(group, ledger)
        asked = [asyncio.ensure_future(ask(number)) for number in (3, 1, 2)]
        ledger.gate.set()
        await asyncio.gather(first, *asked)

        assert resumed == [3, 1, 2]


async def test_loop_is_woken_once_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async with group_commit() as (group, _):
        loop = asyncio.get_running_loop()
        wake_ups: list[object] = []
        wake = loop.call_soon_threadsafe

        def count(callback: Any, *arguments: Any, context: Any = None) -> asyncio.Handle:
            wake_ups.append(callback)
            return wake(callback, *arguments, context=context)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        await asyncio.gather(*(group.accept([task(number)]) for number in range(1, 101)))

        assert len(wake_ups) == 1


async def test_each_caller_learns_of_its_own_known_tasks() -> None:
    async with group_commit() as (group, _):
        await group.accept([task(1, "a")])

        known = await asyncio.gather(
            group.accept([task(2, "b")]),
            group.accept([task(3, "a"), task(4, "c")]),
            group.accept([task(5, "b")]),
            group.accept([]),
        )

        assert list(known) == [{}, {3: KnownTask(task(1, "a"))}, {5: KnownTask(task(2, "b"))}, {}]


async def test_known_task_comes_with_an_ending_that_was_asked_before() -> None:
    async with group_commit() as (group, _):
        await group.accept([task(1, "a")])

        _, known = await asyncio.gather(group.record([ending(1)]), group.accept([task(2, "a")]))

        assert known == {2: KnownTask(task(1, "a"), ending(1))}


async def test_failed_group_fails_all_its_callers_and_leaves_nothing_behind() -> None:
    async with group_commit() as (group, ledger):
        ledger.failures = [LedgerError("the disk is full")]

        outcomes = await asyncio.gather(
            group.accept([task(1)]), group.record([]), return_exceptions=True
        )

        assert [type(one) for one in outcomes] == [LedgerError, LedgerError]
        assert [str(one) for one in outcomes] == ["the disk is full"] * 2
        assert outcomes[0] is not outcomes[1]
        assert ledger.unfinished(0, 10) == []


async def test_group_after_a_failed_one_is_written() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        ledger.failures = [LedgerError("the disk is full")]
        second = group.accept([task(1)])
        ledger.gate.set()

        with pytest.raises(LedgerError, match="the disk is full"):
            await first
        await second

        assert ledger.unfinished(0, 10) == [task(1)]


async def test_error_that_no_ledger_should_raise_reaches_the_caller_as_ledger_error() -> None:
    async with group_commit() as (group, ledger):
        ledger.failures = [OverflowError("too large")]

        with pytest.raises(LedgerError, match="too large") as error:
            await group.accept([task(1)])

        assert isinstance(error.value.__cause__, OverflowError)


async def test_caller_that_gives_up_disturbs_nobody() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        given_up, kept = group.accept([task(1)]), group.accept([task(2)])
        given_up.cancel()
        ledger.gate.set()

        await asyncio.gather(first, kept)

        assert ledger.unfinished(0, 10) == [task(1), task(2), task(1000)]


async def test_caller_that_gives_up_in_a_failed_group_disturbs_nobody() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        ledger.failures = [None, LedgerError("the disk is full")]
        given_up, kept = group.accept([task(1)]), group.accept([task(2)])
        given_up.cancel()
        ledger.gate.set()

        await first
        with pytest.raises(LedgerError):
            await kept


async def test_reads_are_answered_during_a_write() -> None:
    async with group_commit() as (group, ledger):
        await group.accept([task(1)])
        first = await shut_gate(group, ledger)

        assert await group.read(lambda ledger: ledger.unfinished(0, 10)) == [task(1)]

        assert not first.done()
        ledger.gate.set()
        await first


async def test_reads_run_on_a_thread_that_is_not_the_loops() -> None:
    async with group_commit() as (group, _):
        assert await group.read(lambda _: threading.get_ident()) != threading.get_ident()


async def test_read_raises_what_the_question_raises() -> None:
    async with group_commit() as (group, _):
        with pytest.raises(ZeroDivisionError):
            await group.read(lambda _: 1 // 0)


async def test_last_snapshot_of_a_worker_in_a_group_is_kept() -> None:
    async with group_commit() as (group, ledger):
        await group.accept([task(1), task(2)])
        first = await shut_gate(group, ledger)
        rest = [
            group.record([ending(1)], {"pool-1": "1", "pool-2": "2"}),
            group.record([ending(2)], {"pool-1": "3"}),
            group.record([]),
        ]
        ledger.gate.set()

        await asyncio.gather(first, *rest)

        assert ledger.groups[-1] == ([], [1, 2])
        assert (ledger.snapshot("pool-1"), ledger.snapshot("pool-2")) == ("3", "2")


async def test_endings_and_what_goes_with_them_are_written_again_until_that_works() -> None:
    async with group_commit() as (group, ledger):
        await group.accept([task(1), task(2)])
        ledger.failures = [LedgerError("the disk is full")] * 3

        await asyncio.gather(
            group.record([ending(1)]),
            group.record([ending(2)], {"pool-1": "1"}, Extra(turns=1)),
            group.record([], {}, Extra(turns=1)),
        )

        assert ledger.groups[1:] == [([], [1, 2])] * 4
        assert [ended.task.number for ended in ledger.ended(0, 10)] == [1, 2]
        assert ledger.snapshot("pool-1") == "1"
        assert ledger.totals().extra.turns == 2


async def test_answered_task_is_kept_as_its_ending_is() -> None:
    async with group_commit() as (group, ledger):
        ledger.failures = [LedgerError("the disk is full")] * 2

        refused, known = await asyncio.gather(
            group.accept([task(1)]), group.accept([task(2)], is_kept=True), return_exceptions=True
        )

        assert isinstance(refused, LedgerError)
        assert known == {}
        assert ledger.unfinished(0, 10) == [task(2)]


async def test_kept_endings_are_written_with_what_is_asked_next() -> None:
    async with group_commit() as (group, ledger):
        await group.accept([task(1)])
        group._pauses = tenacity.wait_fixed(60.0)
        failed = asyncio.Event()
        group.on_failure = lambda _: failed.set()
        ledger.failures = [LedgerError("the disk is full")]
        recording = group.record([ending(1)])
        await failed.wait()

        await group.accept([task(2)])

        assert recording.done()
        assert ledger.groups[1:] == [([], [1]), ([2], [1])]


async def test_failure_and_recovery_are_told_and_the_ledger_is_tried_until_it_works() -> None:
    async with group_commit() as (group, ledger):
        told: list[str | None] = []
        recovered = asyncio.Event()
        group.on_failure = told.append
        group.on_recovery = recovered.set
        ledger.failures = [LedgerError("the disk is full")]
        with pytest.raises(LedgerError):
            await group.accept([task(1)])
        assert group.failure == "the disk is full"

        await recovered.wait()

        assert told == ["the disk is full"]
        assert group.failure is None
        assert ledger.meta(PROBE) is not None


async def test_what_the_ledger_cannot_hold_fails_its_own_caller_alone() -> None:
    async with group_commit() as (group, ledger):
        await group.accept([task(1), task(2)])
        told: list[str] = []
        group.on_failure = told.append

        outcomes = await asyncio.gather(
            group.record([ending(1)]),
            group.record([ending(1000)]),
            group.accept([task(3)]),
            group.record([ending(2)], {"pool-1": "1"}),
            return_exceptions=True,
        )

        assert [type(one) for one in outcomes] == [type(None), Unfit, dict, type(None)]
        assert [ended.task.number for ended in ledger.ended(0, 10)] == [1, 2]
        assert told == []


async def test_what_is_kept_is_tried_once_more_at_the_end_and_then_given_up() -> None:
    ledger = SlowLedger()
    group = GroupCommit(ledger)
    await group.accept([task(1)])
    failed = asyncio.Event()
    group.on_failure = lambda _: failed.set()
    ledger.failures = [LedgerError("the disk is full")] * 100
    recording = group.record([ending(1)])
    await failed.wait()
    tries = len(ledger.groups)

    await group.close()

    with pytest.raises(LedgerError, match="the disk is full"):
        await recording
    assert len(ledger.groups) <= tries + 1


async def test_change_is_written_between_what_was_asked_before_and_after_it() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        seen: list[int] = []

        def look(ledger: Ledger) -> None:
            seen.append(ledger.totals().unfinished)

        rest = [
            group.accept([task(1)]),
            group.accept([task(2)]),
            group.write(look),
            group.write(look),
            group.accept([task(3)]),
        ]
        ledger.gate.set()

        await asyncio.gather(first, *rest)

        assert seen == [3, 3]
        assert ledger.groups == [([1000], []), ([1, 2], []), ([3], [])]


async def test_change_gives_its_caller_what_it_returns_and_runs_on_the_writers_thread() -> None:
    async with group_commit() as (group, ledger):
        await group.accept([task(1)])

        def keep(ledger: Ledger) -> int:
            ledger.keep_output_type("digest", "{}")
            return threading.get_ident()

        assert {await group.write(keep)} == ledger.threads
        assert await group.read(lambda ledger: ledger.output_type("digest")) == "{}"


async def test_change_that_fails_fails_its_caller_alone() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        refused = group.write(lambda ledger: ledger.record([ending(7)]))
        broken = group.write(lambda _: 1 // 0)
        after = group.accept([task(1)])
        ledger.gate.set()

        with pytest.raises(LedgerError, match="never accepted"):
            await refused
        with pytest.raises(LedgerError, match="ZeroDivisionError") as error:
            await broken

        assert isinstance(error.value.__cause__, ZeroDivisionError)
        assert (await first, await after) == ({}, {})


async def test_caller_that_gives_up_on_a_change_disturbs_nobody() -> None:
    async with group_commit() as (group, ledger):
        first = await shut_gate(group, ledger)
        given_up = group.write(lambda ledger: ledger.set_meta("name", "crew"))
        failing = group.write(lambda _: 1 // 0)
        kept = group.accept([task(1)])
        given_up.cancel()
        failing.cancel()
        ledger.gate.set()

        await asyncio.gather(first, kept)

        assert ledger.meta("name") == "crew"


async def test_close_writes_what_waits_and_closes(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with group_commit(SlowLedger(path)) as (group, ledger):
        first = await shut_gate(group, ledger)
        second = group.accept([task(1)])
        change = group.write(lambda ledger: ledger.set_meta("name", "crew"))
        closing = asyncio.ensure_future(group.close())
        ledger.gate.set()

        await closing

        assert first.done()
        assert second.done()
        assert change.done()
        reopened = SqliteLedger(path)
        assert reopened.unfinished(0, 10) == [task(1), task(1000)]
        assert reopened.meta("name") == "crew"
        reopened.close()


async def test_close_answers_the_reads_that_wait() -> None:
    async with group_commit() as (group, _):
        release = threading.Event()
        slow = asyncio.ensure_future(group.read(lambda _: release.wait()))
        waiting = asyncio.ensure_future(group.read(lambda ledger: ledger.totals().last_number))
        await group.accept([task(7)])
        closing = asyncio.ensure_future(group.close())
        release.set()

        await closing

        assert slow.result()
        assert waiting.result() == 7


async def test_close_that_is_cancelled_still_closes(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with group_commit(SlowLedger(path)) as (group, ledger):
        await shut_gate(group, ledger)
        closing = asyncio.ensure_future(group.close())
        await asyncio.sleep(0)
        closing.cancel()
        ledger.gate.set()

        await group.close()

        SqliteLedger(path).close()


async def test_closed_ledger_refuses_every_use() -> None:
    async with group_commit() as (group, _):
        await group.close()

        with pytest.raises(LedgerError, match="closed"):
            group.accept([task(1)])
        with pytest.raises(LedgerError, match="closed"):
            group.record([ending(1)])
        with pytest.raises(LedgerError, match="closed"):
            group.write(lambda ledger: ledger.set_meta("name", "crew"))
        with pytest.raises(LedgerError, match="closed"):
            await group.read(lambda ledger: ledger.totals())


@settings(deadline=None, max_examples=30)
@given(
    calls=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=20),
    failing=st.lists(st.booleans(), max_size=10),
)
async def test_caller_is_resumed_without_error_exactly_when_its_tasks_are_committed(
    calls: list[tuple[int, bool]], failing: list[bool]
) -> None:
    async with group_commit() as (group, ledger):
        ledger.failures = [LedgerError("the disk is full") if fails else None for fails in failing]
        asked: list[tuple[list[AcceptedTask], asyncio.Future[Any]]] = []
        number = 0
        for count, is_awaited in calls:
            tasks = [task(number + n) for n in range(1, count + 1)]
            number += count
            asked.append((tasks, group.accept(tasks)))
            if is_awaited:
                await asyncio.wait([asked[-1][1]])
        await asyncio.gather(*(done for _, done in asked), return_exceptions=True)

        committed = [one for tasks, done in asked if not done.exception() for one in tasks]
        assert ledger.unfinished(0, 100) == committed
