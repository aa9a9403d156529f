"""Kills parts of a pool, or all of it, at a moment that a seed decides."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import psutil

from tests.chaos.program import CONCURRENCY, WORKERS

Victim: TypeAlias = Literal["worker", "dispatcher", "program", "everything"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)

LONGEST_WAIT_SECONDS = 2.0
TURNS_LOST: dict[Victim, int] = {
    "worker": CONCURRENCY,
    "dispatcher": 0,
    "program": WORKERS * CONCURRENCY,
    "everything": WORKERS * CONCURRENCY,
}
"""How many turns each kill may have run again: those that ran in what was killed."""


class Program:
    """A program with a pool on a Ray of its own."""

    def __init__(self, ledger: Path, turns: Path, count: int, log: Path) -> None:
        command = [sys.executable, "-m", "tests.chaos.program", str(ledger), str(turns), str(count)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        self._root = psutil.Process(self._process.pid)

    def wait_for(self, word: str) -> bool:
        """Wait until the program says so; false when it ends before."""
        assert self._process.stdout is not None
        return any(line.strip() == word.encode() for line in self._process.stdout)

    def wait(self, seconds: float) -> int:
        """The status with which the program ends."""
        return self._process.wait(seconds)

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def kill(self, victim: Victim, chance: random.Random) -> bool:
        """Kill; false when there was nothing of that kind."""
        processes = list(self._processes())
        if victim == "program":
            self._process.kill()
        elif victim == "everything":
            _kill([self._root, *processes])
        else:
            title = "ray::Worker" if victim == "worker" else "ray::Dispatcher"
            found = [one for one in processes if _title(one).startswith(title)]
            if not found:
                return False
            _kill([chance.choice(found)])
        return True

    def clear_away(self) -> None:
        """Return when nothing of it is left."""
        left = list(self._processes())
        if not self.has_ended:
            left.append(self._root)
        _kill(left)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        psutil.wait_procs(left, timeout=30)

    def _processes(self) -> Iterator[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            yield from self._root.children(recursive=True)


def pause(chance: random.Random) -> None:
    """Let a random while pass."""
    time.sleep(chance.uniform(0.0, LONGEST_WAIT_SECONDS))


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
