"""What can be seen of a pool from outside: its turns' marks, and the rows of its ledger."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

LOOK_SECONDS = 0.01


class Mark(NamedTuple):
    """What a turn has left: which question, when, in which process, and what happened."""

    question: str
    time_ns: int
    pid: int
    what: str

    @classmethod
    def of(cls, path: Path) -> Mark:
        """What a file's name says."""
        question, time_ns, pid, what = path.name.split(" ")
        return cls(question, int(time_ns), int(pid), what)


class Row(NamedTuple):
    """A task in the ledger, with one of its endings, if it has any."""

    question: str
    state: str | None
    text: str | None


class Sights:
    """A directory of marks and a ledger's file, whoever else uses them."""

    def __init__(self, turns: Path, ledger: Path) -> None:
        self.turns = turns
        self.ledger = ledger

    def marks(self) -> list[Mark]:
        """What turns have left, in no order."""
        return [Mark.of(path) for path in self.turns.iterdir()]

    def forget_marks(self) -> list[Mark]:
        """What turns have left until now, which the next round does not find."""
        paths = list(self.turns.iterdir())
        for path in paths:
            path.unlink()
        return [Mark.of(path) for path in paths]

    def rows(self, prefix: str) -> list[Row]:
        """The tasks whose ids begin so; none where there is no ledger yet."""
        question = (
            "SELECT id, state, text FROM tasks LEFT JOIN endings USING (number) WHERE id GLOB ?"
        )
        try:
            with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as connection:
                return [Row(*row) for row in connection.execute(question, (f"{prefix}*",))]
        except sqlite3.OperationalError:
            return []

    def ended(self, prefix: str) -> set[str]:
        """The questions that have an ending."""
        return {row.question for row in self.rows(prefix) if row.state is not None}

    def await_write(self, seconds: float) -> bool:
        """Return the moment that something is written to the ledger; false when nothing is."""
        log = Path(f"{self.ledger}-wal")
        deadline = time.monotonic() + seconds
        before = _version(log)
        while time.monotonic() < deadline:
            if _version(log) != before:
                return True
        return False


def await_that(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition, at most so long; whether it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
