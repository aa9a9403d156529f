"""Workers that die: what they had runs again, and their agents know what they knew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from raypool import Agent, AgentStart, Pool, Response, RetryPolicy, WorkerDied
from raypool.agent import Turn
from raypool.backends import ScriptedBackend
from raypool.task import Content
from tests.conftest import StartPool
from tests.scenarios.acting import seconds_of, worker_of
from tests.scenarios.watching import wait_for_event, watching

HOW_MANY = "how many?"


class Counting(Agent):
    """Counts its answers, and keeps the count."""

    def __init__(self) -> None:
        self.count = 0

    def pre_turn(self, turn: Turn, prompt: Content) -> Content:
        return f"so far {self.count}" if prompt == HOW_MANY else prompt

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.count += "so far" not in response.text

    def snapshot(self) -> dict[str, int]:
        return {"count": self.count}

    def restore(self, snapshot: dict[str, int]) -> None:
        self.count = snapshot["count"]


class StartsOnce(Agent):
    """An agent that cannot be started a second time."""

    def init_agent(self, start: AgentStart) -> None:
        Path(start.options["mark"]).touch(exist_ok=False)


def answer(prompt: str) -> str:
    """Ends the process for `die`, and for `die once …` unless the file named there is there."""
    if prompt == "die":
        os._exit(1)
    if prompt.startswith("die once "):
        mark = Path(prompt.removeprefix("die once "))
        if not mark.exists():
            mark.touch()
            os._exit(1)
    return prompt


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    with Pool.start(
        roles={"mortal": 1, "other": 1},
        agent=Counting,
        backend=ScriptedBackend(answer, latency=seconds_of),
        retry=RetryPolicy(max_deaths=2),
    ) as pool:
        yield pool


def restarts_of(pool: Pool, role: str) -> int:
    """How often the worker of that role was replaced."""
    return {one.worker: one.restarts for one in pool.status().workers}[worker_of(pool, role)]


def test_tasks_of_a_dead_worker_run_again_and_the_pool_is_back_at_size(
    pool: Pool, tmp_path: Path
) -> None:
    before = restarts_of(pool, "mortal")
    prompts = [f"die once {tmp_path / 'mark'}", *(f"question {n}" for n in range(9))]

    with watching(pool) as events:
        futures = [pool.submit(prompt, role="mortal") for prompt in prompts]
        pool.wait_for_all(timeout=60)
        died = wait_for_event(events, "worker.died")
        replaced = wait_for_event(events, "worker.replaced")
        pool.broadcast("is anybody here?")
        pool.wait_for_all(timeout=30)

    assert [future.result(timeout=0).text for future in futures] == prompts
    assert restarts_of(pool, "mortal") == before + 1
    assert [worker.state for worker in pool.status().workers] == ["idle", "idle"]
    assert died.worker == replaced.worker == worker_of(pool, "mortal")
    assert died.fields["held"] >= 1
    ended = [result.id for result in pool.iter_results()]
    assert len(ended) == len(set(ended))


def test_agent_knows_after_a_death_what_it_knew_with_its_last_task(
    pool: Pool, tmp_path: Path
) -> None:
    first = pool.submit(HOW_MANY, role="mortal").result(timeout=30).text
    known = int(first.split()[-1])

    tasks = ["one", "two", f"die once {tmp_path / 'mark'}", HOW_MANY]
    futures = [pool.submit(prompt, role="mortal") for prompt in tasks]

    assert futures[-1].result(timeout=60).text == f"so far {known + 3}"


def test_task_that_kills_its_worker_each_time_fails_and_the_others_finish(pool: Pool) -> None:
    before = restarts_of(pool, "mortal")
    deadly = pool.submit("die", role="mortal")
    others = [pool.submit(f"question {n}", role="mortal") for n in range(5)]

    with pytest.raises(WorkerDied, match="2 workers have died with the task") as raised:
        deadly.result(timeout=90)
    assert str(raised.value).count(f"worker {worker_of(pool, 'mortal')!r} died: ") == 2
    answers = [future.result(timeout=60).text for future in others]

    assert answers == [f"question {n}" for n in range(5)]
    assert restarts_of(pool, "mortal") == before + 2


def test_notice_is_heard_though_its_worker_dies_before_it(pool: Pool, tmp_path: Path) -> None:
    before = restarts_of(pool, "mortal")
    pool.submit(f"die once {tmp_path / 'mark'}", role="mortal")

    pool.notify(worker_of(pool, "mortal"), "hello")
    pool.wait_for_all(timeout=60)

    assert restarts_of(pool, "mortal") == before + 1


def test_agent_knows_what_it_knew_in_an_earlier_pool_on_its_ledger(
    start_pool: StartPool, tmp_path: Path
) -> None:
    path = str(tmp_path / "run.db")
    with start_pool(1, agent=Counting, ledger=path) as first:
        first.submit_many(["one", "two", "three"])
        first.wait_for_all(timeout=30)

    second = start_pool(1, agent=Counting, ledger=path)

    assert second.submit(HOW_MANY).result(timeout=30).text == "so far 3"


def test_pool_whose_worker_cannot_be_replaced_says_so_instead_of_hanging(
    start_pool: StartPool, tmp_path: Path
) -> None:
    mark = {"mark": str(tmp_path / "mark")}
    pool = start_pool(1, agent=StartsOnce, agent_options=mark, backend=ScriptedBackend(answer))

    with pytest.raises(WorkerDied, match="every worker of the pool has died"):
        pool.submit(f"die once {tmp_path / 'died'}").result(timeout=90)
    assert [worker.state for worker in pool.status().workers] == ["dead"]
    with pytest.raises(WorkerDied, match="every worker of the pool has died"):
        pool.submit("hello").result(timeout=30)


class Occupant:
    """An actor that takes all the room of the tests' Ray."""

    def is_in(self) -> bool:
        return True


def test_pool_without_room_for_a_new_process_says_so_instead_of_hanging(
    start_pool: StartPool, tmp_path: Path
) -> None:
    pool = start_pool(
        1,
        backend=ScriptedBackend(answer),
        worker_resources={"num_cpus": 4},
        start_timeout=12.0,
    )
    actor_class: Any = ray.remote(num_cpus=4)(Occupant)
    occupant = actor_class.remote()
    is_in = occupant.is_in.remote()

    with pytest.raises(WorkerDied, match="every worker of the pool has died"):
        pool.submit(f"die once {tmp_path / 'died'}").result(timeout=110)

    assert ray.get(is_in)
    ray.kill(occupant)
