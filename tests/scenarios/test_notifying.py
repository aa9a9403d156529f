"""Events for agents: in order, between turns, and from one agent to another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raypool import Agent, Pool, Prompt, Response, UnknownWorker
from raypool.agent import Turn
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool
from tests.scenarios.acting import Acting, new_entries, seconds_of, worker_of


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    """Two workers of one role each."""
    backend = ScriptedBackend(latency=seconds_of)
    with Pool.start(roles={"left": 1, "right": 1}, agent=Acting, backend=backend) as pool:
        yield pool


class Debater(Agent):
    """Answers whatever its opponent says, so many times."""

    def handle_event(self, event: list[str | int]) -> Prompt:
        said, self.left = str(event[0]), int(event[1])
        return Prompt(f"{said}!")

    def handle_response(self, turn: Turn, response: Response) -> None:
        opponent = next(name for name in self.pool.workers if name != self.worker)
        if self.left:
            self.pool.notify(opponent, [response.text, self.left - 1])


class Ticking(Agent):
    """Asks on and on once it is told to start, until it is told to stop."""

    def __init__(self) -> None:
        self.is_stopped = False

    def handle_event(self, event: str) -> Prompt | None:
        self.is_stopped = event == "stop"
        return Prompt("0.02 tick") if event == "start" else None

    def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
        return None if self.is_stopped else Prompt("0.02 tock")


def test_events_are_heard_in_order_between_the_running_turn_and_the_next(pool: Pool) -> None:
    with new_entries(pool, "left") as entries:
        runs = pool.submit("0.5 runs", role="left")
        waits = pool.submit("waits", role="left")
        while pool.poll(runs.id).state != "running":
            pass
        for number in range(20):
            pool.notify(worker_of(pool, "left"), number)
        waits.result(timeout=30)

    assert entries == [
        ["pre_turn", "0.5 runs"],
        ["handle_response", "0.5 runs"],
        *(["handle_event", number] for number in range(20)),
        ["pre_turn", "waits"],
        ["handle_response", "waits"],
    ]


def test_event_is_heard_between_the_turns_of_a_chain(pool: Pool) -> None:
    with new_entries(pool, "left") as entries:
        chain = pool.submit("0.5 one", role="left", metadata={"then": ["0.1 two"]})
        while pool.poll(chain.id).state != "running":
            pass
        pool.notify(worker_of(pool, "left"), "listen")
        chain.result(timeout=30)

    heard = entries.index(["handle_event", "listen"])
    assert entries.index(["handle_response", "0.5 one"]) < heard
    assert heard < entries.index(["handle_response", "0.1 two"])


def test_turn_that_an_event_led_to_is_a_task_with_a_result(pool: Pool) -> None:
    worker = worker_of(pool, "right")

    pool.notify(worker, {"ask": "0.3 what is new?"})
    pool.wait_for_all(timeout=30)

    last = pool.results()[-1].results[-1]
    assert (last.worker, last.prompt, last.text) == (worker, "0.3 what is new?", "0.3 what is new?")
    assert pool.poll(last.id).state == "completed"


def test_event_may_halt_its_agent_after_what_runs(pool: Pool) -> None:
    worker = worker_of(pool, "left")
    runs = pool.submit("0.3 runs", role="left")
    while pool.poll(runs.id).state != "running":
        pass

    pool.notify(worker, {"halt": "told so"})
    pool.wait_for_all(timeout=30)

    assert runs.done()
    assert {one.worker: one.halted for one in pool.status().workers}[worker] == "told so"
    kept = pool.submit("kept", role="left")
    pool.resume(worker)
    assert kept.result(timeout=30).text == "kept"


def test_agents_notify_one_another_through_their_pool(pool: Pool) -> None:
    left, right = worker_of(pool, "left"), worker_of(pool, "right")

    with new_entries(pool, "right") as entries:
        pool.notify(left, {"notify": right, "with": "from the left"})
        pool.wait_for_all(timeout=30)

    assert entries == [["handle_event", "from the left"]]


def test_two_agents_debate_and_are_waited_for_to_the_last_word(start_pool: StartPool) -> None:
    pool = start_pool(2, agent=Debater, backend=ScriptedBackend(latency=0.1))
    first, second = pool.workers

    pool.notify(first, ["No", 5])
    pool.wait_for_all(timeout=30)

    said = {one.worker: [result.text for result in one.results] for one in pool.results()}
    assert said == {
        first: ["No!", "No!!!", "No!!!!!"],
        second: ["No!!", "No!!!!", "No!!!!!!"],
    }


def test_agent_that_an_event_set_going_hears_the_event_that_stops_it(
    start_pool: StartPool,
) -> None:
    pool = start_pool(
        1, agent=Ticking, backend=ScriptedBackend(latency=seconds_of), max_turns_per_task=10_000
    )
    worker = next(iter(pool.workers))

    pool.notify(worker, "start")
    while not pool.status().running:
        pass
    pool.notify(worker, "stop")
    pool.wait_for_all(timeout=30)

    assert [result.state for result in pool.iter_results()] == ["completed"]


@pytest.mark.parametrize("verb", ["notify", "interrupt", "resume"])
def test_unknown_worker_is_refused_with_those_that_there_are(pool: Pool, verb: str) -> None:
    args = ["hello"] if verb == "notify" else []

    with pytest.raises(UnknownWorker, match=rf"no worker 'nobody'; it has: '{pool.name}-1', '"):
        getattr(pool, verb)("nobody", *args)


def test_event_that_json_cannot_hold_is_refused(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"an event must be what JSON can hold: .*object"):
        pool.notify(worker_of(pool, "left"), object())
