"""The command itself, as a process: Ray, signals, pipes and exit statuses are real."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import ray

from raypool.testing import Call, Fault, MessagesServer

COMMAND = (sys.executable, "-c", "from raypool.cli import main; main(prog_name='raypool')")
PATIENCE_SECONDS = 60.0


class Terminal:
    """A directory to run the command in, against one Ray and one server."""

    def __init__(self, path: Path, server: MessagesServer, address: str) -> None:
        self.path = path
        self.server = server
        self.options = ("--base-url", server.url, "--address", address, "--size", "1")
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The exit status, stdout and stderr of a command that ends by itself."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, stdout, stderr

    def start_run(self, *options: str) -> subprocess.Popen[str]:
        return self.start("run", "in.jsonl", "-o", "out.jsonl", *self.options, *options)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        (self.path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def append(self, data: bytes) -> None:
        with (self.path / "out.jsonl").open("ab") as output:
            output.write(data)

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of the output."""
        path = self.path / "out.jsonl"
        data = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def await_lines(self, count: int) -> None:
        await_that(lambda: len(self.lines()) >= count)

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


def await_that(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def terminal(local_ray: None, tmp_path: Path, server: MessagesServer) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, server, ray.get_runtime_context().gcs_address)
    yield terminal
    terminal.close()


@pytest.fixture
def refused() -> set[str]:
    """The prompts that the server refuses; a test may change it."""
    return set()


@pytest.fixture
def server(refused: set[str]) -> Iterator[MessagesServer]:
    def fault(call: Call) -> Fault | None:
        return Fault.status(400, message="not this one") if call.prompt in refused else None

    with MessagesServer(latency=0.15, faults=fault) as server:
        yield server


@pytest.mark.timeout(240)
def test_killed_and_interrupted_run_goes_on_and_failed_rows_wait_to_be_retried(
    terminal: Terminal, refused: set[str]
) -> None:
    rows = [{"id": number, "prompt": str(number), "topic": "x"} for number in range(40)]
    terminal.write(rows)
    refused.add("7")
    killed = terminal.start_run()
    terminal.await_lines(9)
    killed.kill()
    killed.wait()
    kept = terminal.lines()
    terminal.append(b'{"id": 39, "te')

    stopped = terminal.start_run()
    terminal.await_lines(len(kept) + 9)
    stopped.send_signal(signal.SIGINT)
    stdout, stderr = stopped.communicate(timeout=PATIENCE_SECONDS)

    assert stopped.returncode == 130, stderr
    assert stdout == ""
    assert "stopping after the running turns" in stderr
    assert kept == terminal.lines()[: len(kept)]
    (failed,) = (line for line in terminal.lines() if "error" in line)
    assert failed["id"] == 7
    assert "not this one" in failed["error"]["message"]

    refused.clear()
    resume = shlex.split(stderr.rpartition("to finish the rest: raypool ")[2])
    status, stdout, stderr = terminal.run(*resume, "--retry-failed")

    assert (status, stdout) == (0, ""), stderr
    assert "40 answered, 0 failed" in stderr
    found = [{name: line[name] for name in rows[0]} for line in terminal.lines()]
    assert sorted(found, key=itemgetter("id")) == rows
    assert all(line["text"] == line["prompt"] for line in terminal.lines())
    asked = Counter(call.prompt for call in terminal.server.calls)
    assert asked["7"] == 2
    assert [line["id"] for line in kept if asked[line["prompt"]] > 1] == [7]


def test_questions_are_answered_on_stdout_in_order(terminal: Terminal) -> None:
    address = terminal.options[2:4]

    status, stdout, stderr = terminal.run(
        "ask", "one", "two\nlines", "three", "--backend", "scripted", *address
    )

    assert status == 0, stderr
    assert stdout == "> one\none\n\n> two\n> lines\ntwo\nlines\n\n> three\nthree\n"
    assert stderr == ""


def test_stdout_has_results_alone_also_when_ray_prints_and_its_reader_may_leave(
    tmp_path: Path,
) -> None:
    (tmp_path / "in.txt").write_text("".join(f"{number}\n" for number in range(300_000)))
    said = tmp_path / "stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "run", "in.txt", "-o", "-", "--backend", "scripted", "--size", "2"],
            cwd=tmp_path,
            env={name: os.environ[name] for name in os.environ if not name.startswith("RAY_")},
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    with process.stdout as stdout:
        lines = [stdout.readline()]
        os.kill(worker_of(process.pid), signal.SIGKILL)
        while b"WorkerDied" not in lines[-1]:
            lines.append(stdout.readline())
        await_that(lambda: b"(raylet)" in said.read_bytes())

    assert process.wait(PATIENCE_SECONDS) == 1
    assert all(json.loads(line)["prompt"].isdigit() for line in lines)
    assert "raypool: nobody reads stdout any more" in said.read_text()
    assert "Traceback" not in said.read_text()


def worker_of(pid: int) -> int:
    """A worker process among the descendants of `pid`."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], check=True, capture_output=True, text=True
    )
    parents: dict[int, int] = {}
    workers: list[int] = []
    for line in listed.stdout.splitlines():
        child, parent, arguments = line.split(maxsplit=2)
        parents[int(child)] = int(parent)
        if arguments.startswith("ray::Worker"):
            workers.append(int(child))
    return next(worker for worker in workers if is_below(worker, pid, parents))


def is_below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run missing.jsonl -o x --backend scripted", "cannot read missing.jsonl"),
        ("run in.txt -o missing/x --backend scripted", "cannot write missing/x"),
        ("ask '  ' --backend scripted", "the prompt is empty"),
        ("run in.txt", "Missing option '-o'"),
    ],
    ids=["missing input", "unwritable output", "empty question", "no output"],
)
def test_wrong_usage_is_said_in_a_line_without_starting_anything(
    tmp_path: Path, arguments: str, said: str
) -> None:
    (tmp_path / "in.txt").write_text("hello\n")

    ended = subprocess.run(
        [*COMMAND, *shlex.split(arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
