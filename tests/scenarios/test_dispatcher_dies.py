"""The dispatcher is killed: its workers go on, and nobody's task is lost or run twice."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from raypool import Agent, Budget, Halt, Pool, Prompt
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool
from tests.programs import StartProgram, pools_processes, ray_address

pytestmark = pytest.mark.timeout(180)

DEADLINE_SECONDS = 60.0


class Turns:
    """Notes in a directory which turns begin, whichever process runs them."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)

    def __call__(self, prompt: str) -> str:
        Path(self._directory, f"{prompt} {time.time_ns()}").touch()
        return prompt.upper()

    @property
    def counts(self) -> Counter[str]:
        return Counter(one.name.rpartition(" ")[0] for one in Path(self._directory).iterdir())


@pytest.fixture
def turns(tmp_path: Path) -> Turns:
    directory = tmp_path / "turns"
    directory.mkdir()
    return Turns(directory)


def process_of_dispatcher(pool: Pool) -> psutil.Process:
    title = f"ray::{pool.name}/dispatcher"
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith((title, "ray::Dispatcher")) and _is_of(process, pool):
            return process
    raise AssertionError(f"no process of the dispatcher of {pool.name!r}")


def _is_of(process: psutil.Process, pool: Pool) -> bool:
    """Whether it has the pool's ledger open."""
    files = [file.path for file in process.open_files()]
    return pool.name.encode() in b"".join(Path(one).read_bytes()[:200_000] for one in files)


def kill_dispatcher(pool: Pool) -> None:
    os.kill(process_of_dispatcher(pool).pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_futures_resolve_and_no_turn_runs_twice(
    start_pool: StartPool, turns: Turns, tmp_path: Path
) -> None:
    backend = ScriptedBackend(turns, latency=0.3)
    pool = start_pool(2, backend=backend, concurrency=4, ledger=tmp_path / "run.db")
    prompts = [f"question {number}" for number in range(60)]
    futures = pool.submit_many(prompts)
    wait_until(lambda: len(turns.counts) > 10)

    kill_dispatcher(pool)
    late = pool.submit("late")

    assert late.result(DEADLINE_SECONDS).text == "LATE"
    pool.wait_for_all(DEADLINE_SECONDS)
    assert [future.result().text for future in futures] == [one.upper() for one in prompts]
    assert turns.counts == Counter([*prompts, "late"])
    results = [result for worker in pool.results() for result in worker.results]
    assert Counter(result.prompt for result in results) == turns.counts
    status = pool.status()
    assert (status.completed, status.maybe_billed) == (61, 0)


def test_every_verb_waits_for_the_dispatcher_to_come_back(
    start_pool: StartPool, tmp_path: Path
) -> None:
    pool = start_pool(2, ledger=tmp_path / "run.db", budget=Budget(tokens=1_000_000))
    pool.submit("first", id="first").result()
    pool.set_budget(Budget(tokens=2_000_000))
    workers = pool.workers

    kill_dispatcher(pool)
    status = pool.status()

    assert status.completed == 1
    assert status.budget is not None
    assert status.budget.tokens == 2_000_000
    assert pool.workers == workers
    assert pool.poll("first").text == "first"
    assert pool.submit("first", id="first").result(DEADLINE_SECONDS).text == "first"
    kill_dispatcher(pool)
    pool.scale(3)
    assert len(pool.workers) == 3
    kill_dispatcher(pool)
    assert len(pool.workers) == 3


def test_task_of_a_worker_that_dies_with_the_dispatcher_runs_again(
    start_pool: StartPool, turns: Turns, tmp_path: Path
) -> None:
    async def slowly(prompt: str) -> str:
        answer = turns(prompt)
        await asyncio.sleep(5.0)
        return answer

    pool = start_pool(2, backend=ScriptedBackend(slowly), ledger=tmp_path / "run.db")
    futures = pool.submit_many(["a", "b"])
    wait_until(lambda: len(turns.counts) == 2)
    victim = pool.workers
    name = next(iter(victim))
    processes = [one for one in pools_processes() if one.cmdline()[0].startswith("ray::Worker")]

    kill_dispatcher(pool)
    for process in processes:
        if process.is_running():
            process.kill()

    assert [future.result(DEADLINE_SECONDS).text for future in futures] == ["A", "B"]
    assert pool.status().maybe_billed == 2
    assert set(pool.workers) == set(victim)
    assert name in pool.workers


DETACHED = """
import sys
from raypool import Pool
from raypool.backends import ScriptedBackend

replies = {"question": "answer", "a long one": "x" * 300_000}
Pool.start(1, backend=ScriptedBackend(replies), name="outlives", detached=True)
print("started", flush=True)
"""


def test_detached_pool_whose_program_is_gone_comes_back_too(
    local_ray: None, start_program: StartProgram
) -> None:
    program = start_program(DETACHED, address=ray_address())
    program.await_line("started")
    assert program.end()[0] == 0

    with closing_pool(Pool.connect("outlives")) as pool:
        assert pool.submit("question", id="first").result(DEADLINE_SECONDS).text == "answer"
        kill_dispatcher(pool)

        assert pool.poll("first").text == "answer"
        assert pool.submit("question").result(DEADLINE_SECONDS).text == "answer"


@contextmanager
def closing_pool(pool: Pool) -> Iterator[Pool]:
    try:
        yield pool
    finally:
        pool.stop()


class Reviewed(Agent):
    """Halts after the first answer, and asks on when it is told to."""

    def init_agent(self, start: Any) -> None:
        self.heard: list[object] = []

    def handle_event(self, event: object) -> Prompt | None:
        self.heard.append(event)
        return Prompt(f"heard {event}")

    def handle_response(self, turn: Any, response: Any) -> Halt | None:
        return Halt("review") if turn.task.metadata == "halt" else None


def test_halt_holds_and_an_event_is_heard_once(
    start_pool: StartPool, turns: Turns, tmp_path: Path
) -> None:
    backend = ScriptedBackend(turns, latency=1.0)
    pool = start_pool(1, backend=backend, agent=Reviewed, ledger=tmp_path / "run.db")
    [worker] = pool.workers
    pool.notify(worker, "news")
    wait_until(lambda: "heard news" in turns.counts)

    kill_dispatcher(pool)
    pool.wait_for_all(DEADLINE_SECONDS)

    assert turns.counts == Counter(["heard news"])
    [result] = pool.results()[0].results
    assert result.text == "HEARD NEWS"


def test_conversation_of_a_session_goes_on(start_pool: StartPool, tmp_path: Path) -> None:
    pool = start_pool(2, ledger=tmp_path / "run.db", backend=ScriptedBackend(latency=0.5))
    first = pool.submit("one", session="ann")
    second = pool.submit("two", session="ann")
    first.result(DEADLINE_SECONDS)

    kill_dispatcher(pool)
    pool.submit("three", session="ann").result(DEADLINE_SECONDS)

    assert second.result(DEADLINE_SECONDS).text == "two"
    asked = [one["content"] for one in pool.conversation("ann") if one["role"] == "user"]
    assert asked == ["one", "two", "three"]


def test_stream_has_every_word_once(start_pool: StartPool, tmp_path: Path) -> None:
    pool = start_pool(1, ledger=tmp_path / "run.db", backend=ScriptedBackend(latency=2.0))
    future = pool.submit("so far so good", stream=True)
    killing = threading.Timer(0.5, kill_dispatcher, [pool])
    killing.start()

    assert "".join(future.stream()) == "so far so good"
    killing.join()
