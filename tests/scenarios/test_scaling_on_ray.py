"""Workers that come and go while a pool runs, by hand and by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypool import Agent, AgentStart, Autoscale, Pool, PoolStartError, Response
from raypool.agent import Turn
from raypool.backends import ScriptedBackend
from raypool.task import Content
from tests.conftest import StartPool
from tests.scenarios.acting import seconds_of

TURNS = "turns?"
MOST = 4


class Counting(Agent):
    """Counts its turns in its snapshot, and writes its farewell into a file.

    Worker 5 cannot start.
    """

    def __init__(self) -> None:
        self.turns = 0

    def init_agent(self, start: AgentStart) -> None:
        if start.worker.endswith(f"-{MOST + 1}"):
            raise RuntimeError("there is no chair for it")
        self._farewell = Path(start.options["farewells"]) / start.worker

    def pre_turn(self, turn: Turn, prompt: Content) -> Content | None:
        return str(self.turns) if prompt == TURNS else None

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.turns += 1

    def terminate_agent(self, reason: str) -> None:
        self._farewell.write_text(reason)

    def snapshot(self) -> int:
        return self.turns

    def restore(self, snapshot: Any) -> None:
        self.turns = snapshot


@pytest.fixture(scope="module")
def farewells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("farewells")


@pytest.fixture(scope="module")
def pool(local_ray: None, farewells: Path) -> Iterator[Pool]:
    """Three workers named `seasons-1` to `seasons-3`; each test sets the size that it needs."""
    with Pool.start(
        3,
        agent=Counting,
        agent_options={"farewells": str(farewells)},
        backend=ScriptedBackend(latency=seconds_of),
        name="seasons",
    ) as pool:
        yield pool


def wait_until_left(pool: Pool, workers: list[str]) -> None:
    """Look until only these are there; the test's time limit is the end."""
    while list(pool.workers) != workers:
        pass


def wait_until_busy(pool: Pool, count: int) -> None:
    while pool.status().busy < count:
        pass


def test_busy_workers_leave_after_their_turn_and_others_get_what_they_had_not_started(
    pool: Pool, farewells: Path
) -> None:
    pool.scale(3)
    running = pool.submit_many([f"1.5 question {n}" for n in range(3)])
    waiting = pool.submit_many([f"0.01 question {n}" for n in range(12)])
    wait_until_busy(pool, 3)

    pool.scale(1)

    results = [pool.poll(future.id) for future in (*running, *waiting) if future.result(timeout=60)]
    assert [result.text for result in results] == [result.prompt for result in results]
    assert [result.attempts for result in results] == [1] * 15
    assert {future.worker for future in running} == {"seasons-1", "seasons-2", "seasons-3"}
    assert {future.worker for future in waiting} == {"seasons-1"}
    wait_until_left(pool, ["seasons-1"])
    assert [one.worker for one in pool.results()] == ["seasons-1", "seasons-2", "seasons-3"]
    for worker in ("seasons-2", "seasons-3"):
        assert (farewells / worker).read_text() == "scaled down"


def test_idle_workers_are_gone_when_scale_returns_and_come_back_with_their_state(
    pool: Pool,
) -> None:
    pool.scale(3)
    for future in pool.broadcast("a question"):
        future.result(timeout=30)
    counts = {one.worker: one.count for one in pool.results()}

    pool.scale(1)
    alone = list(pool.workers)
    pool.scale(MOST)

    assert alone == ["seasons-1"]
    assert list(pool.workers) == [f"seasons-{n}" for n in range(1, MOST + 1)]
    turns = {one.worker: one.result(timeout=30).text for one in pool.broadcast(TURNS)}
    assert turns == {name: str(counts.get(name, 0)) for name in pool.workers}


def test_session_goes_on_when_its_worker_has_gone(pool: Pool) -> None:
    pool.scale(3)
    first = pool.submit("my name is Ada", session="ada")
    first.result(timeout=30)
    owner = first.worker

    pool.scale(1 if owner != "seasons-1" else 0)
    pool.scale(1)
    second = pool.submit("who am I?", session="ada")
    second.result(timeout=30)

    said = [message["content"] for message in pool.conversation("ada")]
    assert said == ["my name is Ada", "my name is Ada", "who am I?", "who am I?"]


def test_tasks_wait_while_there_are_no_workers(pool: Pool) -> None:
    pool.scale(0)
    future = pool.submit("is anybody there?")
    assert future.accepted(timeout=30)
    status = pool.status()

    pool.scale(1)

    assert (status.workers, status.queued) == ([], 1)
    assert future.result(timeout=30).text == "is anybody there?"


def test_pool_goes_on_as_it_was_when_new_workers_cannot_come(pool: Pool) -> None:
    pool.scale(2)

    with pytest.raises(PoolStartError, match=r"'seasons-5' could not start: .*no chair for it"):
        pool.scale(MOST + 1)

    assert list(pool.workers) == ["seasons-1", "seasons-2"]
    futures = pool.submit_many(["a question"] * 4)
    assert [future.result(timeout=30).text for future in futures] == ["a question"] * 4


def test_wrong_sizes_are_refused(pool: Pool) -> None:
    with pytest.raises(ValueError, match="size must be a number of workers, 0 or more, got -1"):
        pool.scale(-1)
    with pytest.raises(ValueError, match="roles must name roles that the pool has"):
        pool.scale(roles={"poet": 1})


def test_pool_grows_with_what_waits_and_shrinks_to_none(start_pool: StartPool) -> None:
    pool = start_pool(
        backend=ScriptedBackend(latency=seconds_of),
        autoscale=Autoscale(min_size=0, max_size=3, up_delay=0.5, down_delay=1.0),
    )
    events = pool.events()
    futures = pool.submit_many([f"0.2 question {n}" for n in range(60)])

    for future in futures:
        future.result(timeout=60)
    sizes = []
    for event in events:
        if event.name in ("scale.up", "scale.down"):
            sizes.append(event.fields["workers"])
        if sizes and sizes[-1] == 0:
            break
    wait_until_left(pool, [])

    assert max(sizes) == 3
    assert sizes[: sizes.index(3)] == sorted(sizes[: sizes.index(3)])
    assert len({future.worker for future in futures}) == 3
    assert pool.submit("are you back?").result(timeout=60).text == "are you back?"
