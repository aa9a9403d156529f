"""Programs that are killed: plain Python ones, each a process of its own on the tests' Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import ray

StartProgram = Callable[..., "Program"]

PATIENCE_SECONDS = 60.0
POOLS_PROCESSES = ("ray::Dispatcher", "ray::Worker", "ray::ModelServer", "ray::Governor")


class Program:
    """A running program, whose temporary files are in `place`; it starts with `source`.

    Attributes:
        said: the lines that it has printed.
        stderr: where it says everything else.
    """

    def __init__(
        self, source: str, place: Path, *arguments: str, address: str | None = None
    ) -> None:
        environment = {**os.environ, "TMPDIR": str(place), "RAY_TMPDIR": "/tmp"}
        environment.pop("RAY_ADDRESS", None)
        if address is not None:
            environment["RAY_ADDRESS"] = address
        self.said: list[str] = []
        self.stderr = place / "stderr"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", source, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            )

    def await_line(self, line: str) -> None:
        """Wait until the program prints that line."""
        assert self.process.stdout is not None
        while line not in self.said:
            read = self.process.stdout.readline()
            assert read, self.stderr.read_text()
            self.said.append(read.strip())

    def await_error(self, text: str) -> None:
        """Wait until the program says that on stderr."""
        await_that(lambda: text in self.stderr.read_text())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said on stderr, once it has ended."""
        stdout, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        self.said += stdout.splitlines()
        return self.process.returncode, self.stderr.read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_SECONDS)


def await_that(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ray_address() -> str:
    """Where the Ray of the tests is."""
    return str(ray.get_runtime_context().gcs_address)


def pools_processes(ancestor: int | None = None) -> set[psutil.Process]:
    """The processes of pools below a process, which are those of the tests' Ray by default."""
    family = psutil.Process(ancestor).children(recursive=True)
    return {one for one in family if _is_pools(one)}


def are_gone(processes: set[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def _is_pools(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith(POOLS_PROCESSES)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
