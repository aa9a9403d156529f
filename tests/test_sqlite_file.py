"""The SQLite ledger as a file: what it refuses to open, and who may read it meanwhile."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from raypool import sqlite_file
from raypool.errors import LedgerError
from raypool.ledger import POOL_NAME, Totals
from raypool.records import AcceptedTask, Ending
from raypool.sqlite_ledger import SqliteLedger

COUNT_TASKS = """
import sqlite3, sys

reader = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print(reader.execute("SELECT count(*) FROM tasks").fetchone()[0])
"""


@contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Root may write everything, so be nobody meanwhile."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


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


def names_in(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


class TestOpening:
    def test_path_may_be_a_text_with_signs_that_mean_something_in_a_uri(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "50% of all? #1 ü.db"

        ledger = SqliteLedger(str(path))

        assert ledger.path == path
        assert path.exists()
        ledger.close()

    def test_relative_path_belongs_to_the_directory_of_the_caller(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)

        ledger = SqliteLedger("run.db")

        assert ledger.path == tmp_path / "run.db"
        ledger.close()

    def test_empty_file_becomes_a_ledger(self, path: Path) -> None:
        path.touch()

        ledger = SqliteLedger(path)

        assert ledger.totals() == Totals()
        ledger.close()

    def test_missing_directory_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "nowhere" / "run.db"

        with pytest.raises(LedgerError, match="directory does not exist; make it first") as error:
            SqliteLedger(path)

        assert str(path) in str(error.value)

    def test_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="is a directory; give the path of a file in it"):
            SqliteLedger(tmp_path)

    def test_path_through_a_file_is_refused(self, path: Path) -> None:
        path.touch()

        with pytest.raises(LedgerError, match="its directory is a file"):
            SqliteLedger(path / "run.db")

    def test_pipe_is_refused(self, path: Path) -> None:
        os.mkfifo(path)

        with pytest.raises(LedgerError, match="not a regular file"):
            SqliteLedger(path)

    def test_file_that_may_not_be_written_is_refused(self) -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as directory:
            path = Path(directory, "run.db")
            SqliteLedger(path).close()
            path.chmod(0o444)
            path.parent.chmod(0o755)

            with (
                an_ordinary_user(),
                pytest.raises(LedgerError, match="make the file and its directory writable"),
            ):
                SqliteLedger(path)

    def test_file_of_another_kind_is_refused_and_left_as_it_is(self, path: Path) -> None:
        path.write_text("id,prompt\n1,why?\n")

        with pytest.raises(LedgerError, match="is not a raypool ledger"):
            SqliteLedger(path)

        assert path.read_text() == "id,prompt\n1,why?\n"
        assert names_in(path.parent) == [path.name]

    def test_database_of_another_program_is_refused_and_left_as_it_is(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE tasks (title)")
        before = path.read_bytes()

        with pytest.raises(LedgerError, match="is not a raypool ledger"):
            SqliteLedger(path)

        assert path.read_bytes() == before
        assert names_in(path.parent) == [path.name]

    @pytest.mark.parametrize(
        ("step", "what"),
        [(1, "made by a newer raypool .*upgrade raypool"), (-1, "made by an older raypool")],
        ids=["newer", "older"],
    )
    def test_ledger_of_another_raypool_is_refused_and_left_as_it_is(
        self, path: Path, step: int, what: str
    ) -> None:
        SqliteLedger(path).close()
        with closing(sqlite3.connect(path)) as other:
            other.execute(f"PRAGMA user_version = {sqlite_file.SCHEMA_VERSION + step}")
        before = path.read_bytes()

        with pytest.raises(LedgerError, match=what):
            SqliteLedger(path)

        assert path.read_bytes() == before

    def test_old_sqlite_is_refused_by_its_version(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

        with pytest.raises(LedgerError, match=r"SQLite 3\.37\.0 or newer.* has 3\.34\.1"):
            SqliteLedger(path)

    def test_ledger_that_could_not_be_opened_is_not_held(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as old:
            old.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
            with pytest.raises(LedgerError):
                SqliteLedger(path)

        SqliteLedger(path).close()


class TestHolding:
    def test_same_file_by_another_name_is_in_use(self, ledger: SqliteLedger) -> None:
        link = ledger.path.with_name("link.db")
        link.symlink_to(ledger.path)

        with pytest.raises(LedgerError, match=r"link\.db.* is in use by another pool"):
            SqliteLedger(link)

    def test_other_programs_read_while_a_pool_writes(self, ledger: SqliteLedger) -> None:
        ledger.accept([task(1), task(2)])

        counted = subprocess.run(
            [sys.executable, "-c", COUNT_TASKS, str(ledger.path)],
            capture_output=True,
            text=True,
            check=True,
        )

        assert counted.stdout == "2\n"
        ledger.accept([task(3)])

    def test_reads_run_on_another_thread_inside_a_write(self, ledger: SqliteLedger) -> None:
        ledger.write([task(1), task(2)], [ending(1)])

        with ThreadPoolExecutor(1) as other, ledger._transaction() as writer:
            writer.execute("DELETE FROM unfinished")
            unfinished = other.submit(ledger.unfinished, 0, 10).result()
            ended = other.submit(ledger.ended, 0, 10).result()
            found = other.submit(ledger.find, "task-2").result()

        assert unfinished == [task(2)]
        assert [one.task for one in ended] == [task(1)]
        assert found is not None


class TestPeekingAtTheName:
    def test_no_file_has_no_name(self, path: Path) -> None:
        assert SqliteLedger.peek_name(path) is None
        assert not path.exists()

    def test_empty_file_has_no_name(self, path: Path) -> None:
        path.touch()

        assert SqliteLedger.peek_name(path) is None

    def test_ledger_without_a_name_has_none(self, ledger: SqliteLedger) -> None:
        assert SqliteLedger.peek_name(ledger.path) is None

    def test_name_is_read_while_a_pool_has_the_ledger(self, ledger: SqliteLedger) -> None:
        ledger.set_meta(POOL_NAME, "crew")

        assert SqliteLedger.peek_name(ledger.path) == "crew"

        ledger.accept([task(1)])

    def test_name_is_read_when_no_pool_has_the_ledger(self, path: Path) -> None:
        ledger = SqliteLedger(path)
        ledger.set_meta(POOL_NAME, "crew")
        ledger.close()

        assert SqliteLedger.peek_name(path) == "crew"

    @pytest.mark.parametrize("content", [b"id,prompt\n", b"x" * 5000], ids=["short", "long"])
    def test_file_of_another_kind_is_refused(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)

        with pytest.raises(LedgerError, match="is not a raypool ledger"):
            SqliteLedger.peek_name(path)

    def test_database_of_another_program_is_refused(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE meta (key, value)")

        with pytest.raises(LedgerError, match="is not a raypool ledger"):
            SqliteLedger.peek_name(path)

    def test_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="is not a raypool ledger"):
            SqliteLedger.peek_name(tmp_path)
