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
from pyarrow import parquet

from raypool.testing import Call, Fault, MessagesServer

COMMAND = (sys.executable, "-c", "from raypool.cli import main; main(prog_name='raypool')")
PATIENCE_SECONDS = 100.0


class Terminal:
    """A directory to run the command in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with self.stderr.open("wb") as stderr:
            process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.path,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._started.append(process)
        return process

    @property
    def stderr(self) -> Path:
        """Where the command that was started last says what it says."""
        return self.path / ".stderr"

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
        """The exit status, stdout and stderr of a command, once it has ended."""
        stdout, _ = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, stdout.decode(), self.stderr.read_text()

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
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def await_that(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


@pytest.fixture
def address(local_ray: None) -> tuple[str, str]:
    """The option that names the Ray of the tests."""
    return "--address", ray.get_runtime_context().gcs_address


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
    terminal: Terminal, address: tuple[str, str], server: MessagesServer, refused: set[str]
) -> None:
    options = ("--base-url", server.url, "--size", "1", *address)
    command = ("run", "in.jsonl", "-o", "out.jsonl", *options)
    rows = [{"id": number, "prompt": str(number), "topic": "x"} for number in range(40)]
    terminal.write(rows)
    refused.add("7")
    killed = terminal.start(*command)
    terminal.await_lines(9)
    killed.kill()
    killed.wait()
    kept = terminal.lines()
    terminal.append(b'{"id": 39, "te')

    stopped = terminal.start(*command)
    terminal.await_lines(len(kept) + 9)
    stopped.send_signal(signal.SIGINT)
    status, stdout, stderr = terminal.end(stopped)

    assert (status, stdout) == (130, ""), stderr
    assert "stopping after the running turns" in stderr
    assert kept == terminal.lines()[: len(kept)]
    (failed,) = (line for line in terminal.lines() if "error" in line)
    assert failed["id"] == 7
    assert "not this one" in failed["error"]["message"]

    refused.clear()
    resume = shlex.split(stderr.rpartition("to finish the rest: raypool ")[2])
    status, stdout, stderr = terminal.end(terminal.start(*resume, "--retry-failed"))

    assert (status, stdout) == (0, ""), stderr
    assert "40 answered, 0 failed" in stderr
    found = [{name: line[name] for name in rows[0]} for line in terminal.lines()]
    assert sorted(found, key=itemgetter("id")) == rows
    assert all(line["text"] == line["prompt"] for line in terminal.lines())
    asked = Counter(call.prompt for call in server.calls)
    assert asked["7"] == 2
    assert [line["id"] for line in kept if asked[line["prompt"]] > 1] == [7]


def test_questions_are_answered_on_stdout_in_order(
    terminal: Terminal, address: tuple[str, str]
) -> None:
    questions = ("one", "two\nlines", "three")

    asked = terminal.start("ask", *questions, "--backend", "scripted", "--size", "2", *address)

    assert terminal.end(asked) == (
        0,
        "> one\none\n\n> two\n> lines\ntwo\nlines\n\n> three\nthree\n",
        "",
    )


@pytest.mark.timeout(240)
def test_stdout_has_results_alone_also_when_ray_prints_and_its_reader_may_leave(
    terminal: Terminal,
) -> None:
    (terminal.path / "in.txt").write_text("".join(f"{number}\n" for number in range(300_000)))
    newcomers = {name: os.environ[name] for name in os.environ if not name.startswith("RAY_")}
    process = terminal.start(
        "run", "in.txt", "-o", "-", "--backend", "scripted", "--size", "2", env=newcomers
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        lines = [stdout.readline()]
        os.kill(worker_of(process.pid), signal.SIGKILL)
        while b"(raylet)" not in terminal.stderr.read_bytes():
            lines += [stdout.readline() for _ in range(1_000)]

    assert process.wait(PATIENCE_SECONDS) == 1
    assert all(json.loads(line)["prompt"].isdigit() for line in lines)
    assert "raypool: nobody reads stdout any more" in terminal.stderr.read_text()
    assert "Traceback" not in terminal.stderr.read_text()


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
    terminal: Terminal, arguments: str, said: str
) -> None:
    (terminal.path / "in.txt").write_text("hello\n")

    status, stdout, stderr = terminal.end(terminal.start(*shlex.split(arguments)))

    assert (status, stdout) == (2, "")
    assert said in stderr
    assert "Traceback" not in stderr
    assert sorted(path.name for path in terminal.path.iterdir()) == [".stderr", "in.txt"]


@pytest.mark.timeout(240)
def test_run_of_tables_ends_when_its_budget_is_spent_and_goes_on_with_more(
    terminal: Terminal, address: tuple[str, str], server: MessagesServer
) -> None:
    long = " again" * 400
    for number in range(3):
        rows = "".join(f'{number}-{row},"say\n""{row}""{long}"\n' for row in range(4))
        (terminal.path / f"part-{number}.csv").write_text(f"id,words\n{rows}")
    command = ("run", "part-*.csv", "-o", "out.parquet", "--template", "Please {words}", "--json")
    options = (*command, "--base-url", server.url, "--size", "2", "--max-tokens", "20", *address)

    status, stdout, stderr = terminal.end(terminal.start(*options, "--budget-usd", "0.0015"))
    said = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]

    assert (status, stdout) == (1, "")
    assert said[-1]["event"] == "summary"
    assert said[-1]["trouble"].startswith("the budget is spent")
    assert 0 < said[-1]["answered"] < 12
    assert not (terminal.path / "out.parquet").exists()

    status, _, stderr = terminal.end(terminal.start(*options, "--budget-usd", "1", "--rpm", "6000"))

    assert status == 0, stderr
    table = parquet.read_table(terminal.path / "out.parquet").to_pylist()
    assert sorted(row["id"] for row in table) == sorted(
        f"{number}-{row}" for number in range(3) for row in range(4)
    )
    assert {row["prompt"] for row in table} == {f'Please say\n"{row}"{long}' for row in range(4)}
    assert len(server.calls) == 12
