"""Temporary ledgers: there as long as anybody may need them, and no longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from raypool import janitor
from raypool.sqlite_ledger import SqliteLedger
from raypool.temporary import discard_ledger, sweep

PROGRAM = """
import sys
from raypool.temporary import make_ledger

print(make_ledger(outlives_program=sys.argv[1] == "detached"), flush=True)
print(make_ledger(outlives_program=sys.argv[1] == "detached"), flush=True)
sys.stdin.read()
"""
"""Makes two temporary ledgers, and goes on until its standard input ends."""

DAY = 24 * 3600.0


class Program:
    """A program with two temporary ledgers."""

    def __init__(self, place: Path, kind: str = "attached") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(place)},
        )
        assert self._process.stdout is not None
        self.ledgers = [Path(self._process.stdout.readline().strip()) for _ in range(2)]

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, how: signal.Signals | None = None) -> None:
        if how is not None:
            self._process.send_signal(how)
        self._process.communicate(timeout=30)

    def janitor(self) -> psutil.Process:
        """The process that waits for the end of this one."""
        for process in psutil.process_iter(["cmdline"]):
            if janitor.__file__ in (process.info["cmdline"] or []) and _shares_a_pipe(
                process.pid, self.pid
            ):
                return process
        raise AssertionError("there is no janitor")


def _shares_a_pipe(one: int, other: int) -> bool:
    if sys.platform != "linux":
        pytest.skip("which process has a pipe can be seen on Linux alone")
    return bool(_pipes(one) & _pipes(other))


def _pipes(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("pipe:"):
            found.add(target)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def program(place: Path) -> Iterator[Program]:
    program = Program(place)
    yield program
    program.end()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left(place: Path) -> list[Path]:
    return list(place.glob("raypool-*"))


def make_old(directory: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in (*directory.iterdir(), directory):
        os.utime(path, (then, then))


def keep_something(directory: Path) -> None:
    """As a pool does that is killed."""
    with closing(SqliteLedger(directory / "ledger.db")) as ledger:
        ledger.set_meta("anything", "kept")


@pytest.mark.parametrize(
    "how", [None, signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["by itself", "9", "15", "2"]
)
def test_temporary_ledgers_are_gone_soon_after_their_program(
    place: Path, program: Program, how: signal.Signals | None
) -> None:
    keep_something(program.ledgers[0].parent)

    program.end(how)

    wait_for(lambda: left(place) == [])


def test_ledger_stays_until_the_pool_that_has_it_is_gone_too(place: Path, program: Program) -> None:
    used, unused = program.ledgers
    ledger = SqliteLedger(used)

    program.end(signal.SIGKILL)

    wait_for(lambda: not unused.parent.exists())
    ledger.set_meta("still", "there")
    ledger.close()
    assert used.exists()
    wait_for(lambda: left(place) == [])


def test_pool_whose_dispatcher_has_died_finds_its_ledger_again(program: Program) -> None:
    keep_something(program.ledgers[0].parent)

    make_old(program.ledgers[0].parent, 2 * DAY)
    sweep(program.ledgers[0].parent.parent)

    with closing(SqliteLedger(program.ledgers[0])) as ledger:
        assert ledger.meta("anything") == "kept"


def test_janitor_is_no_child_and_hears_no_signal(place: Path, program: Program) -> None:
    helper = program.janitor()
    assert helper not in psutil.Process(program.pid).children(recursive=True)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        helper.send_signal(number)
    program.end(signal.SIGKILL)

    wait_for(lambda: left(place) == [])
    helper.wait(timeout=20)


def test_janitor_forgets_what_is_gone_before_its_program(place: Path) -> None:
    made = [place / f"raypool-abcdefg{number}" for number in range(3)]
    descriptors: list[int] = []

    def told() -> Iterator[bytes]:
        for directory in made:
            directory.mkdir()
            yield f"{os.fsencode(directory).hex()}\n".encode()
            descriptors.append(len(list(Path("/dev/fd").iterdir())))
            directory.rmdir()

    janitor.keep_watch(told())

    assert descriptors[0] == descriptors[-1]


def test_ledger_that_outlives_its_program_stays(place: Path) -> None:
    program = Program(place, "detached")

    program.end(signal.SIGKILL)
    keep_something(program.ledgers[0].parent)
    sweep(place)

    assert sorted(left(place)) == sorted(ledger.parent for ledger in program.ledgers)


def test_what_was_left_behind_is_swept_after_a_day(place: Path) -> None:
    program = Program(place, "detached")
    program.end(signal.SIGKILL)
    young, old = (ledger.parent for ledger in program.ledgers)
    keep_something(old)
    make_old(young, 0.9 * DAY)
    make_old(old, 1.1 * DAY)

    later = Program(place)

    assert young.exists()
    assert not old.exists()
    later.end()


def test_ledger_in_use_is_not_swept_however_old(place: Path) -> None:
    program = Program(place, "detached")
    program.end(signal.SIGKILL)
    with closing(SqliteLedger(program.ledgers[0])) as ledger:
        for one in program.ledgers:
            make_old(one.parent, 100 * DAY)

        sweep(place)

        ledger.set_meta("still", "there")
    assert left(place) == [program.ledgers[0].parent]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("raypool-abcdefgh", ("ledger.db", "notes.txt")),
        ("raypool-abcdefgh", ("other.db",)),
        ("raypool-mine", ("ledger.db",)),
        ("raypool-abcdefghi", ("ledger.db",)),
        ("important", ("ledger.db",)),
    ],
)
def test_nothing_is_removed_that_is_not_ours(
    place: Path, name: str, files: tuple[str, ...]
) -> None:
    directory = place / name
    directory.mkdir()
    for file in files:
        (directory / file).touch()
    make_old(directory, 100 * DAY)

    sweep(place)
    discard_ledger(str(directory / "ledger.db"))

    assert sorted(path.name for path in directory.iterdir()) == sorted(files)


def test_link_to_a_directory_is_not_followed(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "ledger.db").touch()
    (place / "raypool-abcdefgh").symlink_to(place / "elsewhere")

    sweep(place, stale_seconds=-1.0)
    discard_ledger(str(place / "raypool-abcdefgh" / "ledger.db"))

    assert (place / "elsewhere" / "ledger.db").exists()


def test_directory_with_a_link_in_it_is_left_alone(place: Path) -> None:
    (place / "precious").write_text("kept")
    directory = place / "raypool-abcdefgh"
    directory.mkdir()
    (directory / "ledger.db").symlink_to(place / "precious")

    discard_ledger(str(directory / "ledger.db"))

    assert (directory / "ledger.db").read_text() == "kept"
