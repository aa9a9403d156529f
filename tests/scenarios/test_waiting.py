"""Waiting for every task, and what the results then are."""

from __future__ import annotations

import random
import threading
import time

import pytest

from raypool import Pool, TurnTimeout, WaitTimeout
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool


def seconds_of(prompt: str) -> float:
    """The latency that a prompt like `0.2 a question` asks for."""
    return float(prompt.split(maxsplit=1)[0])


def slow_pool(start_pool: StartPool, size: int, **options: object) -> Pool:
    return start_pool(size, backend=ScriptedBackend(latency=seconds_of), **options)


def test_no_completion_is_lost_among_slow_turns_of_many_lengths(start_pool: StartPool) -> None:
    pool = slow_pool(start_pool, 2, concurrency=32)
    lengths = random.Random(7)
    prompts = [f"{lengths.uniform(0, 0.1):.4f} question {n}" for n in range(1_500)]

    futures = pool.submit_many(prompts)
    pool.wait_for_all(timeout=60)

    assert all(future.done() for future in futures)
    assert [future.result().text for future in futures] == prompts
    assert sum(worker.count for worker in pool.results()) == 1_500


def test_waiting_ends_with_what_was_submitted_before_it(start_pool: StartPool) -> None:
    pool = slow_pool(start_pool, 1)
    before = pool.submit("0.3 before")
    later = threading.Timer(0.1, lambda: [pool.submit("2 later") for _ in range(3)])
    later.start()

    started = time.monotonic()
    pool.wait_for_all(timeout=30)

    assert before.done()
    assert time.monotonic() - started < 2.0
    later.join()


def test_many_may_wait_at_once(start_pool: StartPool) -> None:
    pool = slow_pool(start_pool, 2)
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


def test_timeout_names_the_workers_that_are_busy_and_the_tasks_go_on(
    start_pool: StartPool,
) -> None:
    pool = slow_pool(start_pool, 2)
    quick, slow = pool.submit_many(["0 quick", "1.5 slow"])

    with pytest.raises(WaitTimeout, match=f"'{pool.name}-2' has 1") as raised:
        pool.wait_for_all(timeout=0.4)

    assert isinstance(raised.value, TimeoutError)
    assert f"'{pool.name}-1'" not in str(raised.value)
    assert quick.done()
    assert slow.result(timeout=20).text == "1.5 slow"


def test_waiting_includes_the_retries(start_pool: StartPool) -> None:
    fails: list[int] = []

    def fail_once(prompt: str) -> str:
        fails.append(1)
        if len(fails) == 1:
            raise ConnectionError("cut")
        return prompt

    pool = start_pool(1, backend=ScriptedBackend(fail_once))
    future = pool.submit("again")

    pool.wait_for_all(timeout=30)

    assert future.done()
    assert pool.poll(future.id).attempts == 2


def test_stuck_turn_is_interrupted_and_its_worker_goes_on(start_pool: StartPool) -> None:
    pool = slow_pool(start_pool, 1, turn_timeout=0.5)
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


def test_slow_turns_start_in_the_order_in_which_they_were_submitted(
    start_pool: StartPool,
) -> None:
    pool = slow_pool(start_pool, 3)
    prompts = [f"0.01 question {n}" for n in range(90)]

    pool.submit_many(prompts[:40])
    for prompt in prompts[40:]:
        pool.submit(prompt)
    pool.wait_for_all(timeout=60)

    by_worker = [[result.prompt for result in worker.results] for worker in pool.results()]
    assert by_worker == [prompts[0::3], prompts[1::3], prompts[2::3]]
