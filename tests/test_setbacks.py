"""What is asked again is counted, and the ledger keeps the counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from raypool import setback_log
from raypool.clock import FakeClock
from raypool.errors import LedgerError
from raypool.events import Verdict
from raypool.group_commit import GroupCommit
from raypool.messages import Failure
from raypool.records import AcceptedTask
from raypool.setback_log import SetbackLog
from raypool.setbacks import Setback, SetbackTally
from raypool.settling import Delayed
from raypool.sqlite_ledger import SqliteLedger
from raypool.task_record import TaskRecord


class FullDisk(SqliteLedger):
    """A ledger that may be full when setbacks are written."""

    is_full = False

    def add_setbacks(self, setbacks: Sequence[Setback]) -> None:
        if self.is_full:
            raise LedgerError("the disk is full")
        super().add_setbacks(setbacks)


def delayed(verdict: Verdict, error_type: str = "OSError") -> Delayed:
    record = TaskRecord(AcceptedTask(1, "task-1", "why?"))
    return Delayed(record, Failure("BackendError", verdict, error_type, "it failed"), 1.0)


@pytest.fixture
def ledger(tmp_path: Path) -> FullDisk:
    return FullDisk(tmp_path / "run.db")


@pytest_asyncio.fixture
async def commits(ledger: FullDisk) -> AsyncIterator[GroupCommit]:
    commits = GroupCommit(ledger)
    yield commits
    await commits.close()


def test_tally_counts_by_ten_seconds_kinds_and_types() -> None:
    clock = FakeClock(start=1_003.0)
    tally = SetbackTally(clock)

    tally.add("refused", "rate_limit_error")
    tally.add("refused", "rate_limit_error")
    tally.add("retried", "OSError")
    clock.advance(7.0)
    tally.add("refused", "rate_limit_error")

    assert tally.take() == [
        Setback(1_000_000, "refused", "rate_limit_error", 2),
        Setback(1_000_000, "retried", "OSError", 1),
        Setback(1_010_000, "refused", "rate_limit_error", 1),
    ]
    assert tally.take() == []


def test_what_is_put_back_is_taken_with_what_comes_next() -> None:
    tally = SetbackTally(FakeClock())
    tally.add("retried", "OSError")

    tally.put_back(tally.take())
    tally.add("retried", "OSError")

    assert tally.take() == [Setback(0, "retried", "OSError", 2)]


@pytest.mark.asyncio
async def test_flushed_counts_are_in_the_ledger_once(
    ledger: FullDisk, commits: GroupCommit
) -> None:
    log = SetbackLog(commits, FakeClock())

    log.note(delayed("refused", "rate_limit_error"))
    log.note(delayed("transient"))
    log.flush()
    log.flush()
    await commits.write(lambda _: None)

    assert ledger.setbacks(10_000) == [
        Setback(0, "refused", "rate_limit_error", 1),
        Setback(0, "retried", "OSError", 1),
    ]


@pytest.mark.asyncio
async def test_counts_reach_the_ledger_by_themselves(
    ledger: FullDisk, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setback_log, "FLUSH_SECONDS", 0.0)
    log = SetbackLog(commits, FakeClock())

    log.note(delayed("refused"))

    while not ledger.setbacks(10_000):
        await commits.write(lambda _: None)


@pytest.mark.asyncio
async def test_counts_that_could_not_be_written_wait_for_the_next_time(
    ledger: FullDisk, commits: GroupCommit
) -> None:
    log = SetbackLog(commits, FakeClock())
    ledger.is_full = True
    log.note(delayed("transient"))
    log.flush()
    with pytest.raises(LedgerError):
        await commits.write(lambda _: None)

    ledger.is_full = False
    log.note(delayed("transient"))
    log.flush()
    await commits.write(lambda _: None)

    assert ledger.setbacks(10_000) == [Setback(0, "retried", "OSError", 2)]


@pytest.mark.asyncio
async def test_counts_after_the_end_are_let_go(commits: GroupCommit) -> None:
    log = SetbackLog(commits, FakeClock())
    log.note(delayed("transient"))
    await commits.close()

    log.flush()
