"""Turns that fail, providers that refuse, workers that die."""

from __future__ import annotations

import os
import time

import pytest

from raypool import (
    Agent,
    BackendError,
    Response,
    RetryPolicy,
    TaskFailed,
    TurnTimeout,
    WorkerDied,
)
from raypool.agent import SessionOptions, Turn
from raypool.backends import AnthropicBackend, FunctionBackend, ScriptedBackend
from raypool.task import Content
from raypool.testing import Fault, MessagesServer
from tests.conftest import StartPool

QUICK = RetryPolicy(max_attempts=3, initial_seconds=0.02, max_seconds=0.05)


class Refusing(Agent):
    """An agent that finds every answer wanting."""

    def handle_response(self, turn: Turn, response: Response) -> None:
        raise ValueError(f"{response.text!r} will not do")


def fail(prompt: str) -> str:
    raise ConnectionError(f"no line for {prompt}")


def die_or_answer(prompt: str) -> str:
    if prompt == "die":
        os._exit(1)
    return prompt


def api_of(server: MessagesServer) -> AnthropicBackend:
    return AnthropicBackend(base_url=server.url, api_key="test-key")


def test_failure_names_task_worker_attempts_and_cause(start_pool: StartPool) -> None:
    pool = start_pool(1, backend=ScriptedBackend(fail), retry=QUICK)

    future = pool.submit("a question", id="the-task")
    with pytest.raises(BackendError) as raised:
        future.result(timeout=30)

    error = raised.value
    assert isinstance(error, TaskFailed)
    assert (error.task_id, error.worker, error.attempts) == ("the-task", f"{pool.name}-1", 3)
    assert (error.cause.type, error.cause.message) == ("ConnectionError", "no line for a question")
    assert "in fail" in error.cause.traceback
    assert isinstance(error.__cause__, ConnectionError)
    assert pool.poll("the-task").state == "failed"
    assert pool.status().failed == 1


def test_invalid_request_is_not_tried_again(start_pool: StartPool) -> None:
    async def refuse(prompt: Content, options: SessionOptions) -> str:
        raise ValueError("not this one")

    backend = FunctionBackend(refuse, retryable=lambda error: not isinstance(error, ValueError))
    pool = start_pool(1, backend=backend, retry=QUICK)

    with pytest.raises(BackendError, match="not this one") as raised:
        pool.submit("a question").result(timeout=30)

    assert raised.value.attempts == 1


def test_raising_callback_fails_its_task_alone(start_pool: StartPool) -> None:
    pool = start_pool(1, agent=Refusing)

    futures = pool.submit_many(["one", "two"])

    for future in futures:
        with pytest.raises(TaskFailed, match="will not do") as raised:
            future.result(timeout=30)
        assert raised.value.attempts == 1
        assert type(raised.value) is TaskFailed


def test_refusal_is_waited_for_outside_the_slot_and_is_no_attempt(start_pool: StartPool) -> None:
    faults = [Fault.status(429, retry_after=0.5), Fault.status(529)]
    with MessagesServer(faults=faults) as server:
        pool = start_pool(1, backend=api_of(server), retry=QUICK)

        started = time.monotonic()
        response = pool.submit("a question", id="refused").result(timeout=30)

        assert response.text
        assert time.monotonic() - started >= 0.5
        assert len(server.calls) == 3
    assert pool.poll("refused").attempts == 1


def test_refused_task_leaves_its_worker_idle_meanwhile(start_pool: StartPool) -> None:
    with MessagesServer(faults=[Fault.status(429, retry_after=3.0)]) as server:
        pool = start_pool(1, backend=api_of(server))
        pool.submit("a question")
        server.wait_for_calls(1)
        server.wait_until_idle()

        deadline = time.monotonic() + 2.0
        while (status := pool.status()).running and time.monotonic() < deadline:
            pass

        assert [worker.state for worker in status.workers] == ["idle"]
        assert status.queued == 1
        pool.stop()


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"api_key": "the-key"}, 401, "key"),
        ({"models": ["another-model"]}, 404, "claude-haiku-5-5"),
    ],
    ids=["a wrong key", "an unknown model"],
)
def test_fatal_refusal_fails_at_once(
    start_pool: StartPool, options: dict[str, object], status: int, words: str
) -> None:
    with MessagesServer(**options) as server:  # type: ignore[arg-type]
        pool = start_pool(1, backend=api_of(server), retry=QUICK)

        with pytest.raises(BackendError, match=words) as raised:
            pool.submit("a question").result(timeout=30)

        assert raised.value.attempts == 1
        assert "test-key" not in str(raised.value) + raised.value.cause.traceback


def test_nobody_listening_is_tried_again_and_the_error_names_the_url(
    start_pool: StartPool,
) -> None:
    url = "http://127.0.0.1:9"
    pool = start_pool(1, backend=AnthropicBackend(base_url=url, api_key="test-key"), retry=QUICK)

    with pytest.raises(BackendError, match=url) as raised:
        pool.submit("a question").result(timeout=60)

    assert raised.value.attempts == 3


def test_turn_that_hangs_is_cut_off_and_its_request_closed(start_pool: StartPool) -> None:
    with MessagesServer(faults=[Fault.hang()]) as server:
        pool = start_pool(1, backend=api_of(server), turn_timeout=0.5)

        with pytest.raises(TurnTimeout):
            pool.submit("a question").result(timeout=30)

        server.wait_until_idle()
        assert pool.submit("another").result(timeout=30).text


def test_dead_worker_fails_what_it_held_and_the_others_go_on(start_pool: StartPool) -> None:
    pool = start_pool(2, backend=ScriptedBackend(die_or_answer))
    lives, dies = pool.submit_many(["live", "die"])

    assert lives.result(timeout=30).text == "live"
    with pytest.raises(WorkerDied, match=f"{pool.name}-2") as raised:
        dies.result(timeout=30)
    later = [future.result(timeout=30).text for future in pool.submit_many(["a", "b", "c"])]

    assert raised.value.attempts == 1
    assert later == ["a", "b", "c"]
    assert [worker.state for worker in pool.status().workers] == ["idle", "dead"]
    pool.wait_for_all(timeout=30)


def test_pool_without_a_living_worker_says_so_instead_of_hanging(start_pool: StartPool) -> None:
    pool = start_pool(1, backend=ScriptedBackend(die_or_answer))
    with pytest.raises(WorkerDied):
        pool.submit("die").result(timeout=30)

    with pytest.raises(WorkerDied, match="every worker of the pool has died"):
        pool.submit("hello").result(timeout=30)
