"""The SQLite ledger under faults: what it survives, what it says, what it leaves behind."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raypool import sqlite_file, sqlite_sessions
from raypool.errors import LedgerError
from raypool.records import AcceptedTask, Ending
from raypool.sqlite_ledger import SqliteLedger
from raypool.sqlite_rows import KEEP_SNAPSHOTS
from raypool.sqlite_statements import insert

WRITE_UNTIL_KILLED = """
import sys
from raypool.records import AcceptedTask, Ending
from raypool.sqlite_ledger import SqliteLedger

ledger = SqliteLedger(sys.argv[1])
last = ledger.totals().last_number
while True:
    tasks = [AcceptedTask(last + n, f"task-{last + n}", "why?") for n in range(1, 21)]
    endings = [Ending(task.number, "completed", None, 1, 0) for task in tasks[:10]]
    ledger.write(tasks, endings)
    last += 20
    print(last, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(path)
    yield ledger
    ledger.close()


def task(number: int, prompt: str = "why?") -> AcceptedTask:
    return AcceptedTask(number, f"task-{number}", prompt)


def ending(number: int) -> Ending:
    return Ending(number, "completed", "pool-1", 1, 1_700_000_000_000)


class KilledWriter(NamedTuple):
    """What was left by a process that was killed while it wrote.

    Attributes:
        path: its ledger.
        refusal: what another opener of the ledger was told meanwhile.
        committed: the number of the last task that it said was committed.
    """

    path: Path
    refusal: str
    committed: int


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> KilledWriter:
    path = tmp_path_factory.mktemp("killed") / "run.db"
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        try:
            committed = [int(writer.stdout.readline()) for _ in range(100)]
            with pytest.raises(LedgerError) as refusal:
                SqliteLedger(path)
        finally:
            writer.kill()
        committed += [int(line) for line in writer.stdout.read().split()]
    return KilledWriter(path, str(refusal.value), committed[-1])


def names_in(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


class TestFaults:
    def test_file_in_use_by_another_process_is_refused(self, killed: KilledWriter) -> None:
        assert "is in use by another pool: connect to that pool, stop it" in killed.refusal

    def test_everything_acknowledged_is_there_after_a_kill(self, killed: KilledWriter) -> None:
        ledger = SqliteLedger(killed.path)

        totals = ledger.totals()
        ended = [one.task.number for one in ledger.ended(0, 1_000_000)]
        numbers = range(1, totals.last_number + 1)
        assert totals.last_number >= killed.committed >= 2000
        assert totals.completed == totals.unfinished == totals.last_number // 2
        assert ended == [number for number in numbers if (number - 1) % 20 < 10]
        ledger.accept([task(totals.last_number + 1)])
        ledger.close()

    def test_full_disk_fails_the_write_and_the_next_goes_on(self, ledger: SqliteLedger) -> None:
        ledger.accept([task(1)])
        pages = ledger._file.writer.execute("PRAGMA page_count").fetchone()[0]
        ledger._file.writer.execute(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(LedgerError, match="the disk is full; free some space"):
            ledger.write([task(2, "x" * 100_000)], [ending(1)])

        assert ledger.unfinished(0, 10) == [task(1)]
        ledger._file.writer.execute("PRAGMA max_page_count = 1000000")
        ledger.write([task(2, "x" * 100_000)], [ending(1)])
        assert ledger.totals().completed == 1

    def test_read_only_disk_fails_the_write_and_reads_go_on(self, ledger: SqliteLedger) -> None:
        ledger.accept([task(1)])
        ledger._file.writer.execute("PRAGMA query_only = ON")

        with pytest.raises(LedgerError, match="it is read-only; make the file"):
            ledger.record([ending(1)])

        assert ledger.unfinished(0, 10) == [task(1)]

    def test_locked_file_fails_the_write_and_the_next_goes_on(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0)
        ledger = SqliteLedger(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="another program has locked it"):
                ledger.accept([task(1)])
            other.execute("ROLLBACK")

            ledger.accept([task(1)])

        assert ledger.unfinished(0, 10) == [task(1)]
        ledger.close()

    def test_column_that_cannot_be_read_is_damage(self, ledger: SqliteLedger) -> None:
        ledger.accept([task(1)])
        with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
            other.execute("UPDATE tasks SET metadata = '{'")

        with pytest.raises(LedgerError, match="it is damaged"):
            ledger.unfinished(0, 10)
        with pytest.raises(LedgerError, match="it is damaged"):
            ledger.find("task-1")

    def test_error_names_the_path(self, ledger: SqliteLedger) -> None:
        with pytest.raises(LedgerError) as error:
            ledger.record([ending(1)])

        assert str(ledger.path) in str(error.value)


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "parameters"),
        [
            (sqlite_sessions.LAST_PLACES.format(rows="(?), (?)"), ["a", "b"]),
            (sqlite_sessions.LOAD_CONVERSATION, {"session": "a"}),
        ],
        ids=["session turns", "conversation"],
    )
    def test_sessions_are_found_without_reading_the_others(
        self, ledger: SqliteLedger, query: str, parameters: Any
    ) -> None:
        plan = ledger._file.reader.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()

        reads = [step for *_, step in plan if "session_turns" in step]
        assert reads
        assert all(step.startswith("SEARCH") and "(session=?" in step for step in reads)

    def test_few_statements_write_any_number_of_rows(self, ledger: SqliteLedger) -> None:
        written: set[str] = set()
        ledger._file.writer.set_trace_callback(written.add)

        for number in range(1, 200):
            insert(ledger._file.writer, KEEP_SNAPSHOTS, [("pool-1", "{}")] * number)

        assert len(written) <= 10

    def test_rows_with_and_without_a_value_are_written_together(self, ledger: SqliteLedger) -> None:
        timeouts = [None, 1.5, None, *[2.5] * 600]
        tasks = [AcceptedTask(n, str(n), "why?", timeout=t) for n, t in enumerate(timeouts, 1)]

        ledger.accept(tasks)

        assert ledger.unfinished(0, 5000) == tasks


class TestDurability:
    def test_named_ledger_waits_for_the_disk_at_every_commit(self, ledger: SqliteLedger) -> None:
        assert ledger._file.writer.execute("PRAGMA synchronous").fetchone() == (2,)

    def test_temporary_ledger_does_not_wait_for_the_disk(self) -> None:
        with closing(SqliteLedger()) as ledger:
            assert ledger._file.writer.execute("PRAGMA synchronous").fetchone() == (0,)

    def test_temporary_ledger_lies_in_a_fresh_directory_and_is_removed_with_it(self) -> None:
        ledger = SqliteLedger()
        ledger.accept([task(1)])
        directory = ledger.path.parent
        assert directory.name.startswith("raypool-")

        ledger.close()

        assert not directory.exists()

    def test_temporary_ledger_may_have_a_place_of_its_own(self, path: Path) -> None:
        ledger = SqliteLedger(path, temporary=True)
        ledger.accept([task(1)])

        ledger.close()

        assert names_in(path.parent) == []

    def test_closed_ledger_is_one_file(self, path: Path) -> None:
        ledger = SqliteLedger(path)
        ledger.write([task(1)], [ending(1)])

        ledger.close()

        assert names_in(path.parent) == [path.name]

    def test_values_lie_in_columns_that_people_can_read(self, ledger: SqliteLedger) -> None:
        ledger.write([task(1)], [ending(1)])

        with closing(sqlite3.connect(ledger.path)) as other:
            rows = other.execute(
                "SELECT id, prompt, state, worker FROM tasks JOIN endings USING (number)"
            ).fetchall()

        assert rows == [("task-1", "why?", "completed", "pool-1")]
