"""A Ray cluster of two nodes on this machine, and a program with a pool on it, to be killed."""

from __future__ import annotations

import os
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args
from unittest import mock

import psutil
from ray.cluster_utils import Cluster

Victim: TypeAlias = Literal["worker", "dispatcher", "program", "model server", "node", "everything"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)

ENVIRONMENT = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""What Ray is started with: it declares a node dead after two seconds of silence."""

NODE = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False}
GONE_SECONDS = 30.0

_TITLES: dict[Victim, re.Pattern[str]] = {
    "worker": re.compile(r"ray::Worker\b|ray::\S+/worker"),
    "dispatcher": re.compile(r"ray::Dispatcher\b|ray::\S+/dispatcher"),
    "model server": re.compile(r"ray::ModelServer\b|ray::model-server/"),
}


class Program:
    """A program with a pool; `says` has what it has said, each line once."""

    def __init__(self, address: str, ledger: Path, turns: Path, log: Path) -> None:
        command = [sys.executable, "-m", "tests.chaos.program", address, str(ledger), str(turns)]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._said: set[str] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, batch: str, questions: Iterable[str]) -> None:
        """Have it submit questions."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"ask {batch} {' '.join(questions)}\n")
            self.process.stdin.flush()

    def await_line(self, line: str, seconds: float) -> bool:
        """Wait until it says so; false when it does not."""
        deadline = time.monotonic() + seconds
        while line not in self._said:
            with suppress(queue.Empty):
                self._said.add(self._lines.get(timeout=0.1))
                continue
            if time.monotonic() > deadline or self.process.poll() is not None:
                return line in self._said
        return True

    def close(self) -> None:
        """Kill it, if it lives, and let go of it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError):
            for line in self.process.stdout:
                self._lines.put(line.strip())


class Shot(NamedTuple):
    """What is to be killed, and which workers' processes are among it, or end with it."""

    victim: Victim
    processes: list[psutil.Process]
    pids: set[int]


class Stage:
    """What is killed, brought back when it does not come back by itself."""

    def __init__(self, directory: Path) -> None:
        self.turns = directory / "turns"
        self.turns.mkdir(parents=True)
        self.ledger = directory / "run.db"
        self.log = directory / "programs.log"
        self._cluster: Any = None
        self._side: Any = None
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        """The one that runs, after `set_up`."""
        assert self._program is not None
        return self._program

    def set_up(self) -> None:
        """Start what is missing: the cluster, its second node, the program."""
        with mock.patch.dict(os.environ, ENVIRONMENT):
            if self._cluster is None:
                head = {**NODE, "no_monitor": True}
                self._cluster = Cluster(initialize_head=True, head_node_args=head)
            if self._side is None:
                self._side = self._cluster.add_node(wait=self._program is None, **NODE)
            if self._program is None:
                self._program = Program(self._cluster.address, self.ledger, self.turns, self.log)

    def clear_away(self) -> None:
        """Kill all at once, and return when it is gone."""
        everything = self._everything()
        kill(everything)
        self._forget_everything(everything)

    def find(self, victim: Victim) -> list[psutil.Process]:
        """The processes of that kind: workers, the dispatcher, the model server."""
        return [one for one in self._processes() if _TITLES[victim].match(_title(one))]

    def aim(self, victim: Victim, chance: random.Random) -> Shot:
        """Have everything ready for `shoot`."""
        workers = self.find("worker")
        pids = {one.pid for one in workers}
        if victim == "everything":
            return Shot(victim, self._everything(), pids)
        if victim == "program":
            assert self._program is not None
            return Shot(victim, [psutil.Process(self._program.process.pid)], pids)
        if victim == "node":
            there = list(_family(self._side))
            return Shot(victim, there, {one.pid for one in there} & pids)
        found = workers if victim == "worker" else self.find(victim)
        chosen = [chance.choice(found)] if found else []
        return Shot(victim, chosen, {one.pid for one in chosen} & pids)

    def shoot(self, shot: Shot) -> None:
        """Kill, then clear away what is left of it."""
        kill(shot.processes)
        if shot.victim == "everything":
            self._forget_everything(shot.processes)
        elif shot.victim == "program":
            self.end_program()
        elif shot.victim == "node":
            psutil.wait_procs(shot.processes, timeout=GONE_SECONDS)
            with suppress(Exception):
                self._cluster.remove_node(self._side, allow_graceful=False)
            self._side = None

    def freeze(self) -> list[psutil.Process]:
        """Stop the dispatcher in the middle of whatever it does, until `thaw`."""
        frozen = self.find("dispatcher")
        for one in frozen:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGSTOP)
        return frozen

    def end_program(self) -> None:
        """Have a new program, and a pool whose workers are spread over the nodes that there are."""
        if self._program is not None:
            self._program.close()
            self._program = None

    def _everything(self) -> list[psutil.Process]:
        left = list(self._processes())
        if self._program is not None:
            with suppress(psutil.NoSuchProcess):
                program = psutil.Process(self._program.process.pid)
                left += [program, *program.children(recursive=True)]
        return left

    def _forget_everything(self, killed: list[psutil.Process]) -> None:
        self.end_program()
        psutil.wait_procs(killed, timeout=GONE_SECONDS)
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.shutdown()
            self._cluster = self._side = None

    def _processes(self) -> Iterator[psutil.Process]:
        if self._cluster is not None:
            for node in (self._cluster.head_node, *self._cluster.worker_nodes):
                yield from _family(node)


def thaw(frozen: Iterable[psutil.Process]) -> None:
    """Let what was frozen go on, if it lives."""
    for one in frozen:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGCONT)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _family(node: Any) -> Iterator[psutil.Process]:
    """The processes of a Ray node: its own, and those of its actors."""
    for infos in node.all_processes.values():
        for info in infos:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(info.process.pid)
                yield from root.children(recursive=True)
                yield root


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""
