"""Waiting for every task, and what the results then are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from raypool import Pool, TaskFuture, TurnTimeout, WaitTimeout
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool
from tests.scenarios.acting import seconds_of


def fail_the_first_time(prompts: set[str]) -> Callable[[str], str]:
    """Replies that echo, but for prompts with `cut` in them, which work the second time."""

    def answer(prompt: str) -> str:
        if "cut" in prompt and prompt not in prompts:
            prompts.add(prompt)
            raise ConnectionError("cut")
        return prompt

    return answer


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    """Two workers, whose turn for `0.2 a question` takes 0.2 s."""
    backend = ScriptedBackend(fail_the_first_time(set()), latency=seconds_of)
    with Pool.start(2, backend=backend) as pool:
        yield pool


def test_no_completion_is_lost_among_slow_turns_of_many_lengths(start_pool: StartPool) -> None:
    pool = start_pool(2, backend=ScriptedBackend(latency=seconds_of), concurrency=32)
    lengths = random.Random(7)
    prompts = [f"{lengths.uniform(0, 0.1):.4f} question {n}" for n in range(1_500)]

    futures = pool.submit_many(prompts)
    pool.wait_for_all(timeout=60)

    assert all(future.done() for future in futures)
    assert [future.result().text for future in futures] == prompts
    assert sum(worker.count for worker in pool.results()) == 1_500


def test_waiting_ends_with_what_was_submitted_before_it(pool: Pool) -> None:
    before = pool.submit("0.3 before")
    submitted: list[TaskFuture] = []
    later = threading.Timer(0.1, lambda: submitted.extend(pool.submit_many(["60 later"] * 4)))
    later.start()

    pool.wait_for_all(timeout=30)

    assert before.done()
    later.join()
    assert not any(future.done() for future in submitted)
    for future in submitted:
        future.cancel()


def test_many_may_wait_at_once(pool: Pool) -> None:
    futures = pool.submit_many(["0.5 question"] * 4)
    states: list[list[bool]] = []

    def wait() -> None:
        pool.wait_for_all(timeout=30)
        states.append([future.done() for future in futures])

    waiters = [threading.Thread(target=wait) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join()

    assert states == [[True] * 4] * 8


def test_timeout_names_the_workers_that_are_busy_and_the_tasks_go_on(pool: Pool) -> None:
    pool.wait_for_all(timeout=30)
    quick, slow = pool.submit_many(["0 quick", "1.5 slow"])

    with pytest.raises(WaitTimeout, match=f"'{slow.worker}' has 1") as raised:
        pool.wait_for_all(timeout=0.4)

    assert isinstance(raised.value, TimeoutError)
    assert f"'{quick.worker}'" not in str(raised.value)
    assert quick.done()
    assert slow.result(timeout=20).text == "1.5 slow"


def test_waiting_includes_the_retries(pool: Pool) -> None:
    future = pool.submit("cut")

    pool.wait_for_all(timeout=30)

    assert future.done()
    assert pool.poll(future.id).attempts == 2


def test_stuck_turn_is_interrupted_and_its_worker_goes_on(start_pool: StartPool) -> None:
    pool = start_pool(1, backend=ScriptedBackend(latency=seconds_of), turn_timeout=0.5)
    stuck, patient, after = (
        pool.submit("60 stuck"),
        pool.submit("1 patient", timeout=10.0),
        pool.submit("0 after"),
    )

    with pytest.raises(TurnTimeout, match=r"did not finish within 0\.5 s") as raised:
        stuck.result(timeout=20)

    assert raised.value.attempts == 1
    assert raised.value.worker == f"{pool.name}-1"
    assert patient.result(timeout=20).text == "1 patient"
    assert after.result(timeout=20).text == "0 after"


def test_slow_turns_start_in_the_order_in_which_they_were_submitted(pool: Pool) -> None:
    prompts = [f"0.01 ordered {n}" for n in range(60)]

    pool.submit_many(prompts[:25])
    for prompt in prompts[25:]:
        pool.submit(prompt)
    pool.wait_for_all(timeout=60)

    by_worker = [
        [result.prompt for result in worker.results if result.prompt in prompts]
        for worker in pool.results()
    ]
    assert sorted(by_worker) == [prompts[0::2], prompts[1::2]]
