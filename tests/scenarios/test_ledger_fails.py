"""The disk fills, or another program locks the ledger: nothing is lost, and nothing new is sent."""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from raypool import LedgerError, Pool, PoolStatus, TaskFuture, WaitTimeout
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool
from tests.programs import await_that

pytestmark = pytest.mark.timeout(180)

DEADLINE_SECONDS = 60.0
STOP_SECONDS = 30.0


class Turns:
    """Notes in a directory which turns begin, and answers once a file says so."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)

    def __call__(self, prompt: str) -> str:
        Path(self._directory, f"{prompt} {time.time_ns()}").touch()
        while prompt.startswith("slow") and not Path(self._directory, "go").exists():
            time.sleep(0.02)
        return prompt.upper()

    @property
    def counts(self) -> Counter[str]:
        names = (one.name for one in Path(self._directory).iterdir())
        return Counter(name.rpartition(" ")[0] for name in names if name != "go")

    def go(self) -> None:
        Path(self._directory, "go").touch()

    def hold(self) -> None:
        Path(self._directory, "go").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger")


@pytest.fixture(scope="module")
def turns(directory: Path) -> Turns:
    (directory / "turns").mkdir()
    return Turns(directory / "turns")


@pytest.fixture(scope="module")
def pool(local_ray: None, turns: Turns, directory: Path) -> Iterator[Pool]:
    """Two workers that run one turn each; each test leaves its ledger as it was."""
    with Pool.start(2, backend=ScriptedBackend(turns), ledger=str(directory / "run.db")) as pool:
        yield pool


@contextmanager
def full_disk(ledger: Path) -> Iterator[None]:
    """Have no file of the dispatcher's grow any more."""
    process = _process_that_has(ledger)
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(process, resource.RLIMIT_FSIZE, before)


@contextmanager
def lock(ledger: Path) -> Iterator[None]:
    """Be another program that writes into the ledger for long."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _process_that_has(ledger: Path) -> int:
    for process in psutil.process_iter():
        try:
            files = {file.path for file in process.open_files()}
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if str(ledger) in files and process.pid != os.getpid():
            return process.pid
    raise AssertionError(f"no process has {ledger} open")


def await_standstill(pool: Pool) -> PoolStatus:
    """What the status says once nothing is sent and nothing runs any more."""

    def has_come() -> bool:
        status = pool.status()
        return status.blocked is not None and not status.running and status.unrecorded > 0

    await_that(has_come)
    return pool.status()


def begin(pool: Pool, turns: Turns, name: str) -> list[TaskFuture]:
    """Two turns that run until `turns.go`, and 40 tasks that wait behind them."""
    turns.hold()
    slow = [f"slow {name} {number}" for number in range(2)]
    futures = pool.submit_many([*slow, *(f"{name} {number}" for number in range(40))])
    await_that(lambda: all(turns.counts[one] for one in slow))
    return futures


def finish(pool: Pool, turns: Turns, futures: list[TaskFuture]) -> None:
    """All of it is answered within seconds, and no turn has run twice."""
    results = [pool.future(future.id).result(DEADLINE_SECONDS) for future in futures]
    pool.wait_for_all(DEADLINE_SECONDS)
    prompts = [result.text.lower() for result in results]
    assert len(set(prompts)) == len(futures)
    assert [turns.counts[prompt] for prompt in prompts] == [1] * len(futures)
    recorded = Counter(result.prompt for result in pool.iter_results())
    assert [recorded[prompt] for prompt in prompts] == [1] * len(futures)
    status = pool.status()
    assert (status.blocked, status.unrecorded, status.queued) == (None, 0, 0)


def test_answers_are_kept_while_the_disk_is_full(pool: Pool, turns: Turns, directory: Path) -> None:
    futures = begin(pool, turns, "full")
    with full_disk(directory / "run.db"):
        turns.go()
        with pytest.raises(LedgerError, match=r"run\.db' failed: its disk fails") as told:
            futures[0].result(DEADLINE_SECONDS)
        assert f"pool.future({futures[0].id!r}) waits for that" in str(told.value)
        status = await_standstill(pool)
        assert status.blocked is not None
        assert "nothing is sent until the ledger can be written" in status.blocked
        assert status.unrecorded + status.queued == len(futures)
        begun = turns.counts

        with pytest.raises(LedgerError, match=r"run\.db' failed: its disk fails"):
            pool.submit("never accepted").result(DEADLINE_SECONDS)
        with pytest.raises(WaitTimeout, match="nothing is sent until the ledger"):
            pool.wait_for_all(1.0)
        assert pool.poll(futures[0].id).state == "running"
        assert turns.counts == begun
    finish(pool, turns, futures)


def test_pool_goes_on_after_another_program_has_locked_the_ledger(
    pool: Pool, turns: Turns, directory: Path
) -> None:
    futures = begin(pool, turns, "locked")
    with lock(directory / "run.db"):
        turns.go()
        with pytest.raises(LedgerError, match="another program has locked it; end what"):
            futures[0].result(DEADLINE_SECONDS)
        await_standstill(pool)
    finish(pool, turns, futures)


def test_stop_says_what_could_not_be_recorded_and_a_later_start_runs_it(
    start_pool: StartPool, turns: Turns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = str(tmp_path / "run.db")
    pool = start_pool(2, backend=ScriptedBackend(turns), ledger=ledger)
    futures = begin(pool, turns, "stop")
    with full_disk(Path(ledger)):
        turns.go()
        kept = await_standstill(pool).unrecorded
        started = time.monotonic()
        pool.stop(grace=1.0)
        assert time.monotonic() - started < STOP_SECONDS

    assert f"how {kept} tasks had ended could not be recorded; a start" in caplog.text
    later = start_pool(2, backend=ScriptedBackend(turns), ledger=ledger)
    later.wait_for_all(DEADLINE_SECONDS)
    assert {later.poll(future.id).state for future in futures} == {"completed"}
