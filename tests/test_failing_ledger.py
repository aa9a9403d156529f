"""A real ledger that cannot be written for a while: full, locked, read-only, damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
import pytest_asyncio

from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.ledger import Ledger
from raypool.records import AcceptedTask, Ending
from raypool.sqlite_ledger import SqliteLedger

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

LONG = "because " * 10_000
MANY_PAGES = 1_000_000
QUICK_MS = 20
PAGE = 4096

Fault: TypeAlias = Callable[["Office"], AbstractContextManager[None]]


class Office(NamedTuple):
    """A ledger, and what writes it."""

    file: SqliteLedger
    ledger: GroupCommit

    def execute(self, pragma: str) -> int:
        """What a pragma of the connection that writes gives."""
        row = self.file._file.writer.execute(f"PRAGMA {pragma}").fetchone()
        return int(row[0]) if row else 0


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    file = SqliteLedger(tmp_path / "run.db")
    office = Office(file, GroupCommit(file))
    office.execute(f"busy_timeout = {QUICK_MS}")
    await office.ledger.accept([task(1), task(2)])
    yield office
    await office.ledger.close()


def task(number: int, prompt: str = "why?") -> AcceptedTask:
    return AcceptedTask(number, f"task-{number}", prompt)


def ending(number: int) -> Ending:
    return Ending(number, "completed", "pool-1", 1, 0, text=LONG)


@contextmanager
def full(office: Office) -> Iterator[None]:
    """The file may have no more pages: SQLite says what it says of a full disk."""
    office.execute(f"max_page_count = {office.execute('page_count')}")
    yield
    office.execute(f"max_page_count = {MANY_PAGES}")


@contextmanager
def locked(office: Office) -> Iterator[None]:
    """Another program is in the middle of a change, for longer than is waited for it."""
    with closing(sqlite3.connect(office.file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def read_only(office: Office) -> Iterator[None]:
    """What is written is refused as on a file system that has become read-only, also to root."""
    office.execute("query_only = ON")
    yield
    office.execute("query_only = OFF")


def damage(office: Office) -> None:
    """Overwrite every page but the first."""
    path = office.file.path
    with closing(sqlite3.connect(path, isolation_level=None)) as other:  # so that all look again
        other.execute("INSERT INTO meta VALUES ('touched', '')")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, PAGE, b"\xff" * (path.stat().st_size - PAGE))


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (full, "the disk is full; free some space"),
        (locked, "another program has locked it; end what that program does"),
        (read_only, "it is read-only; make the file and its directory writable"),
    ],
    ids=["full", "locked", "read-only"],
)
async def test_nothing_is_accepted_meanwhile_and_endings_are_kept_until_they_can_be_written(
    office: Office, fault: Fault, what: str
) -> None:
    failed = asyncio.Event()
    office.ledger.on_failure = lambda _: failed.set()
    with fault(office):
        recording = office.ledger.record([ending(1)], {"pool-1": "1"})
        await failed.wait()
        with pytest.raises(LedgerError, match=what) as error:
            await office.ledger.accept([task(3, LONG)])
        assert str(office.file.path) in str(error.value)
        assert not recording.done()

    await recording

    assert [one.ending for one in office.file.ended(0, 9)] == [ending(1)]
    assert office.file.unfinished(0, 9) == [task(2)]
    assert office.file.snapshot("pool-1") == "1"
    await office.ledger.accept([task(3, LONG)])


@pytest.mark.parametrize("fault", [full, locked, read_only], ids=["full", "locked", "read-only"])
async def test_what_is_there_can_be_read_meanwhile(office: Office, fault: Fault) -> None:
    with fault(office):
        found = await office.ledger.read(lambda ledger: ledger.find("task-1"))

    assert found is not None


QUESTIONS: dict[str, Callable[[Ledger], object]] = {
    "find": lambda ledger: ledger.find("task-1"),
    "totals": lambda ledger: ledger.totals(),
    "session_turns": lambda ledger: ledger.session_turns(["user-42"]),
    "conversation": lambda ledger: ledger.conversation("user-42"),
    "ended": lambda ledger: ledger.ended(0, 9),
    "snapshot": lambda ledger: ledger.snapshot("pool-1"),
}


async def test_damage_is_told_to_whoever_reads_or_writes_and_endings_are_kept_to_the_end(
    office: Office,
) -> None:
    failed = asyncio.Event()
    office.ledger.on_failure = lambda _: failed.set()
    damage(office)

    for question in QUESTIONS.values():
        with pytest.raises(LedgerError, match=r"it is damaged; `sqlite3 LEDGER \.recover`"):
            await office.ledger.read(question)
    recording = office.ledger.record([ending(1)])
    await failed.wait()
    with pytest.raises(LedgerError, match="it is damaged"):
        await office.ledger.accept([task(3)])
    assert not recording.done()
    await office.ledger.close()
    with pytest.raises(LedgerError, match="it is damaged"):
        await recording


@pytest.mark.parametrize("kept", [100, PAGE, 2 * PAGE], ids=["100 bytes", "1 page", "2 pages"])
async def test_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "run.db"
    with closing(SqliteLedger(path)) as whole:
        whole.accept([task(number) for number in range(1, 1000)])
    size = path.stat().st_size
    overwrite(path, kept, b"\xff" * (size - kept))
    before = path.read_bytes()

    with pytest.raises(LedgerError, match=r"run\.db' failed: it is damaged"):
        SqliteLedger(path)

    is_as_it_was = path.read_bytes() == before
    assert is_as_it_was


async def test_file_that_was_cut_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with closing(SqliteLedger(path)) as whole:
        whole.accept([task(number) for number in range(1, 1000)])
    path.write_bytes(before := path.read_bytes()[:20_000])

    with pytest.raises(LedgerError, match=r"run\.db' failed: it is damaged"):
        SqliteLedger(path)

    is_as_it_was = path.read_bytes() == before
    assert is_as_it_was
