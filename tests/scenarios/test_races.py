"""What happens while something else is under way."""

from __future__ import annotations

import threading
import time

import pytest

from raypool import Pool, TaskCancelled
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool


def test_waiting_while_others_submit_is_not_late(echo_pool: Pool) -> None:
    is_over = threading.Event()

    def keep_submitting() -> None:
        while not is_over.wait(0.02):
            echo_pool.submit_many([f"question {n}" for n in range(5)])

    submitting = threading.Thread(target=keep_submitting)
    submitting.start()
    try:
        for _ in range(40):
            echo_pool.wait_for_all(timeout=60)
    finally:
        is_over.set()
        submitting.join()


def test_cancel_reaches_a_task_that_is_not_sent_yet(echo_pool: Pool) -> None:
    futures = echo_pool.submit_many([f"question {n}" for n in range(10_000)])

    assert futures[-1].cancel()

    with pytest.raises(TaskCancelled):
        futures[-1].result(timeout=60)
    assert futures[0].result(timeout=60).text == "question 0"


def test_task_is_what_it_was_when_it_was_submitted(echo_pool: Pool) -> None:
    row: dict[str, object] = {"line": 1}

    future = echo_pool.submit("hello", id="sealed", metadata=row)
    row["future"] = future

    assert future.result(timeout=30).text == "hello"
    assert echo_pool.poll("sealed").metadata == {"line": 1}


def test_long_task_in_the_same_envelope_does_not_prolong_the_wait(slow_pool: Pool) -> None:
    for future in slow_pool.submit_many(["0.002 warm up"] * 200):
        future.result(timeout=30)
    slow_pool.submit_many(["0.005 question"] * 200)
    later = threading.Timer(0.1, lambda: slow_pool.submit("30 later", id="later"))
    later.start()

    started = time.monotonic()
    slow_pool.wait_for_all(timeout=60)

    assert time.monotonic() - started < 15
    later.join()
    slow_pool.future("later").cancel()


def test_cancelled_task_ends_before_the_turn_in_front_of_it(slow_pool: Pool) -> None:
    runs, waits = slow_pool.submit_many(["30 runs", "30 waits"])
    while slow_pool.poll(runs.id).state != "running":
        pass

    waits.cancel()

    with pytest.raises(TaskCancelled):
        waits.result(timeout=10)
    assert not runs.done()
    runs.cancel()


def test_turn_that_blocks_its_loop_does_not_hold_up_the_end(start_pool: StartPool) -> None:
    async def block(prompt: str) -> str:
        time.sleep(40)  # noqa: ASYNC251 - this is what must not be done
        return prompt

    pool = start_pool(1, backend=ScriptedBackend(block))
    pool.submit("hello").accepted(timeout=30)

    started = time.monotonic()
    pool.stop()

    assert time.monotonic() - started < 25
