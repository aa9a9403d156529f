"""Turns and callbacks that must end: interrupts, time-outs, and what cannot be interrupted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest

from raypool import Agent, Interrupted, Pool, Response, TurnTimeout
from raypool.agent import Turn
from raypool.backends import ScriptedBackend
from raypool.testing import Fault
from tests.conftest import StartPool
from tests.scenarios.acting import Acting, new_entries, seconds_of, worker_of
from tests.scenarios.conftest import Provider


class Blocking(Agent):
    """An agent whose callback never ends for a task that says so."""

    def handle_response(self, turn: Turn, response: Response) -> None:
        if turn.task.metadata == "block":
            time.sleep(3600.0)


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    """Two workers of one role each."""
    backend = ScriptedBackend(latency=seconds_of)
    with Pool.start(roles={"single": 1, "other": 1}, agent=Acting, backend=backend) as pool:
        yield pool


def wait_until_running(pool: Pool, count: int = 1) -> None:
    """Look until so many turns run; the test's time limit is the end."""
    while pool.status().running < count:
        pass


def test_interrupt_ends_the_running_turn_and_the_worker_goes_on(pool: Pool) -> None:
    with new_entries(pool, "single") as entries:
        runs, waits = (pool.submit(prompt, role="single") for prompt in ("60 runs", "waits"))
        wait_until_running(pool)

        assert pool.interrupt(worker_of(pool, "single")) == 1

        with pytest.raises(Interrupted, match=r"interrupted by Pool\.interrupt") as raised:
            runs.result(timeout=10)
        assert waits.result(timeout=10).text == "waits"
    assert raised.value.attempts == 1
    assert ["handle_error", "Interrupted"] in entries
    assert pool.interrupt(worker_of(pool, "single")) == 0


def test_agent_may_ask_something_else_after_an_interrupt(pool: Pool) -> None:
    act = {"after_error": "then a short one"}
    future = pool.submit("60 a long one", role="single", metadata=act)
    wait_until_running(pool)

    pool.interrupt(worker_of(pool, "single"))

    assert future.result(timeout=10).text == "then a short one"


def test_interrupt_ends_the_request_too_within_100_ms(api_pool: Pool, provider: Provider) -> None:
    worker = worker_of(api_pool, "plain")
    seconds = []
    for number in range(1, 6):
        provider.begin(faults=[Fault.stall() if number % 2 else Fault.hang()])
        future = api_pool.submit("a long story", role="plain")
        provider.wait_for_calls(1)

        started = time.monotonic()
        assert api_pool.interrupt(worker) == 1
        provider.server.wait_until_idle()
        seconds.append(time.monotonic() - started)

        with pytest.raises(Interrupted):
            future.result(timeout=10)

    assert statistics.median(seconds) < 0.1, seconds
    assert api_pool.submit("a short one", role="plain").result(timeout=10).text == "a short one"


def test_interrupt_ends_every_turn_of_a_worker_that_runs_several(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(faults=[Fault.hang()] * 4)
    futures = [api_pool.submit(f"question {n}", role="plain") for n in range(4)]
    provider.wait_for_calls(4)

    assert api_pool.interrupt(worker_of(api_pool, "plain")) == 4

    for future in futures:
        with pytest.raises(Interrupted):
            future.result(timeout=10)
    provider.server.wait_until_idle()


def test_turn_that_runs_out_of_time_is_cut_off_with_its_request_and_not_tried_again(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(faults=[Fault.hang()])

    with pytest.raises(TurnTimeout, match=r"did not finish within 0\.3 s.*timeout=…") as raised:
        api_pool.submit("a long story", role="plain", timeout=0.3).result(timeout=10)

    provider.server.wait_until_idle()
    assert raised.value.attempts == 1
    assert len(provider.calls) == 1


def test_agent_is_told_that_a_turn_ran_out_of_time(pool: Pool) -> None:
    with new_entries(pool, "single") as entries:
        future = pool.submit("60 late", role="single", timeout=0.2)
        with pytest.raises(TurnTimeout):
            future.result(timeout=10)

    assert entries == [["pre_turn", "60 late"], ["handle_error", "TurnTimeout"]]


def test_blocking_callback_stops_neither_status_nor_other_turns(start_pool: StartPool) -> None:
    pool = start_pool(1, agent=Acting, backend=ScriptedBackend(latency=seconds_of), concurrency=3)
    beside = pool.submit("0.5 beside")
    blocks = pool.submit("blocks", metadata={"block": 2.0})
    wait_until_running(pool, 2)
    time.sleep(0.1)

    started = time.monotonic()
    running = [pool.status().running for _ in range(10)]
    took = time.monotonic() - started
    timed = pool.submit("60 timed", timeout=0.2)
    with pytest.raises(TurnTimeout):
        timed.result(timeout=10)

    assert took / 10 < 0.2
    assert min(running) >= 1
    assert blocks.result(timeout=10).text == "blocks"
    assert beside.result(timeout=10).text == "0.5 beside"


def test_callback_that_cannot_be_interrupted_costs_the_process_and_no_other_task(
    start_pool: StartPool,
) -> None:
    pool = start_pool(1, agent=Blocking, turn_timeout=0.5)
    guilty = pool.submit("guilty", metadata="block")
    others = pool.submit_many([f"innocent {n}" for n in range(5)])

    with pytest.raises(TurnTimeout) as raised:
        guilty.result(timeout=60)
    pool.wait_for_all(timeout=60)

    assert raised.value.attempts == 1
    assert [future.result(timeout=0).text for future in others] == [
        f"innocent {n}" for n in range(5)
    ]
    worker = pool.status().workers[0]
    assert (worker.restarts, worker.state) == (1, "idle")
