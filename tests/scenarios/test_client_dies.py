"""A program with a pool dies: what ends with it, and what goes on for others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from raypool import Pool
from raypool.backends import AnthropicBackend
from raypool.testing import MessagesServer
from tests.conftest import StartPool
from tests.programs import (
    StartProgram,
    are_gone,
    await_that,
    pools_processes,
    ray_address,
)

GONE_SECONDS = 10.0

PROGRAM = """
import os, sys, time
from raypool import Agent, Pool
from raypool.backends import AnthropicBackend, LocalBackend

class Blocking(Agent):
    def handle_response(self, turn, response):
        if turn.task.id == "blocks":
            time.sleep(3600)

backends = {
    "local": lambda: LocalBackend(slots=3),
    "anthropic": lambda: AnthropicBackend(base_url=sys.argv[2], api_key="key-of-one-that-dies"),
}
pool = Pool.start(2, agent=Blocking, backend=backends[sys.argv[1]]())
pool.submit("Say yes.").result(timeout=60)
if sys.argv[1] == "anthropic":
    pool.submit("block", id="blocks")
    while pool.poll("blocks").state != "running":
        time.sleep(0.05)
pool.submit_many([f"Tell a story of {number} words." for number in range(20)])
print("started", flush=True)
if sys.stdin.readline() == "leave\\n":
    os._exit(3)
"""

DETACHED = """
import sys
from raypool import Pool
from raypool.backends import AnthropicBackend

backend = AnthropicBackend(base_url=sys.argv[1], api_key="key")
pool = Pool.start(1, backend=backend, name="stays", detached=True)
futures = [pool.submit(f"question {number}", id=f"task-{number}") for number in range(12)]
futures[1].result(timeout=60)
print("started", flush=True)
sys.stdin.readline()
"""

NAMED = """
import sys
from raypool import Pool
from raypool.backends import AnthropicBackend

backend = AnthropicBackend(base_url=sys.argv[1], api_key="key")
pool = Pool.start(1, backend=backend, ledger=sys.argv[2])
futures = [pool.submit(f"question {number}", id=f"task-{number}") for number in range(12)]
futures[1].result(timeout=60)
print("started", flush=True)
sys.stdin.readline()
"""


pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer(latency=0.3) as server:
        yield server


def files(place: Path) -> list[Path]:
    return list(place.glob("raypool-*"))


@pytest.mark.parametrize(("backend", "how"), [("local", "SIGKILL"), ("anthropic", "_exit")])
def test_pool_of_a_dead_program_is_gone_within_ten_seconds_on_a_cluster_that_goes_on(
    start_program: StartProgram,
    tmp_path: Path,
    server: MessagesServer,
    backend: str,
    how: str,
) -> None:
    before = pools_processes()
    program = start_program(PROGRAM, backend, server.url, address=ray_address())
    program.await_line("started")
    processes = pools_processes() - before
    titles = sorted(process.cmdline()[0].partition(".")[0] for process in processes)
    server_of_it = {"local": "ray::ModelServer", "anthropic": "ray::Governor"}[backend]
    assert titles == ["ray::Dispatcher", *sorted([server_of_it, "ray::Worker", "ray::Worker"])]
    assert len(files(tmp_path)) == 1

    if how == "SIGKILL":
        program.process.kill()
    else:
        program.process.communicate("leave\n")

    await_that(lambda: are_gone(processes) and not files(tmp_path), GONE_SECONDS)


def test_pool_of_a_dead_program_is_gone_within_ten_seconds_with_the_ray_that_it_brought(
    start_program: StartProgram, tmp_path: Path
) -> None:
    program = start_program(PROGRAM, "local", "no server")
    program.await_line("started")
    processes = pools_processes(program.process.pid)
    assert len(processes) == 4
    assert len(files(tmp_path)) == 1

    program.process.kill()

    await_that(lambda: are_gone(processes) and not files(tmp_path), GONE_SECONDS)


def test_detached_pool_goes_on_without_its_program_and_another_collects(
    start_program: StartProgram, tmp_path: Path, server: MessagesServer
) -> None:
    program = start_program(DETACHED, server.url, address=ray_address())
    program.await_line("started")
    program.process.kill()
    program.process.wait()

    pool = Pool.connect("stays")
    texts = [pool.future(f"task-{number}").result(timeout=60).text for number in range(12)]

    assert texts == [f"question {number}" for number in range(12)]
    assert len(server.calls) == 12
    assert len(files(tmp_path)) == 1
    pool.stop()
    assert files(tmp_path) == []


def test_another_program_goes_on_with_the_ledger_of_one_that_was_killed_just_now(
    start_program: StartProgram, start_pool: StartPool, tmp_path: Path, server: MessagesServer
) -> None:
    path = str(tmp_path / "run.db")
    program = start_program(NAMED, server.url, path, address=ray_address())
    program.await_line("started")
    program.process.kill()
    program.process.wait()

    backend = AnthropicBackend(base_url=server.url, api_key="key")
    pool = start_pool(1, backend=backend, ledger=path)
    texts = [pool.future(f"task-{number}").result(timeout=60).text for number in range(12)]

    assert texts == [f"question {number}" for number in range(12)]
    assert pool.status().completed == 12


def test_death_of_the_dispatcher_alone_removes_no_file(
    start_program: StartProgram, tmp_path: Path, server: MessagesServer
) -> None:
    program = start_program(PROGRAM, "anthropic", server.url, address=ray_address())
    program.await_line("started")
    (ledger,) = tmp_path.glob("raypool-*/ledger.db")
    (dispatcher,) = (
        process
        for process in pools_processes()
        if any(Path(file.path) == ledger for file in process.open_files())
    )

    dispatcher.send_signal(signal.SIGKILL)
    psutil.wait_procs([dispatcher], timeout=30)

    assert ledger.exists()
    program.process.kill()
    await_that(lambda: not files(tmp_path))
