"""Turns that fail, and providers that refuse."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypool import Agent, BackendError, Pool, Response, TaskFailed
from raypool.agent import SessionOptions, Turn
from raypool.backends import FunctionBackend
from raypool.task import Content
from raypool.testing import Fault
from tests.conftest import StartPool
from tests.scenarios.conftest import QUICK, Provider


class Demanding(Agent):
    """An agent that finds some answers wanting."""

    def handle_response(self, turn: Turn, response: Response) -> None:
        if response.text == "poor":
            raise ValueError(f"{response.text!r} will not do")


async def answer(prompt: Content, options: SessionOptions) -> str:
    if prompt == "unreachable":
        raise ConnectionError(f"no line for {prompt}")
    if prompt == "forbidden":
        raise ValueError("not this one")
    return str(prompt)


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    backend = FunctionBackend(answer, retryable=lambda error: not isinstance(error, ValueError))
    with Pool.start(1, agent=Demanding, backend=backend, retry=QUICK) as pool:
        yield pool


def test_failure_names_task_worker_attempts_and_cause(pool: Pool) -> None:
    future = pool.submit("unreachable", id="the-task")
    with pytest.raises(BackendError) as raised:
        future.result(timeout=30)

    error = raised.value
    assert isinstance(error, TaskFailed)
    assert (error.task_id, error.worker, error.attempts) == ("the-task", f"{pool.name}-1", 3)
    assert (error.cause.type, error.cause.message) == ("ConnectionError", "no line for unreachable")
    assert "in answer" in error.cause.traceback
    assert isinstance(error.__cause__, ConnectionError)
    assert pool.poll("the-task").state == "failed"
    assert pool.status().failed == 1


def test_invalid_request_is_not_tried_again(pool: Pool) -> None:
    with pytest.raises(BackendError, match="not this one") as raised:
        pool.submit("forbidden").result(timeout=30)

    assert raised.value.attempts == 1


def test_raising_callback_fails_its_task_alone(pool: Pool) -> None:
    poor, good = pool.submit_many(["poor", "good"])

    with pytest.raises(TaskFailed, match="will not do") as raised:
        poor.result(timeout=30)
    assert raised.value.attempts == 1
    assert type(raised.value) is TaskFailed
    assert good.result(timeout=30).text == "good"


def test_refusal_is_waited_for_outside_the_slot_and_is_no_attempt(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(faults=[Fault.status(429, retry_after=0.5), Fault.status(529)])

    started = time.monotonic()
    future = api_pool.submit("a question", role="plain")

    assert future.result(timeout=30).text == "a question"
    assert time.monotonic() - started >= 0.5
    assert len(provider.calls) == 3
    assert api_pool.poll(future.id).attempts == 1


class Refused(Exception):
    """A refusal, with what a client library's has of the answer."""

    status_code = 429
    response = SimpleNamespace(headers={"retry-after": "1.0"})


def test_no_call_starts_while_a_refusal_asks_to_wait(start_pool: StartPool, tmp_path: Path) -> None:
    calls, refusal = tmp_path / "calls", tmp_path / "refusal"

    async def answer(prompt: Content, options: SessionOptions) -> str:
        with calls.open("a") as log:
            log.write(f"{os.getpid()} {time.time()}\n")
        await asyncio.sleep(0.2)
        if prompt == "task 8":
            with suppress(FileExistsError), refusal.open("x") as log:
                log.write(f"{os.getpid()} {time.time()}\n")
                raise Refused
        return "42"

    pool = start_pool(4, backend=FunctionBackend(answer))
    futures = pool.submit_many([f"task {number}" for number in range(32)])
    workers = [future.worker for future in futures]

    assert {future.result(timeout=60).text for future in futures} == {"42"}
    [(refused, at)] = read_times(refusal)
    times = [(pid, when - at) for pid, when in read_times(calls)]
    assert len(times) == 33
    # The others hear of it from the dispatcher, which takes its time on a busy machine.
    assert [one for one in times if one[0] == refused and 0 < one[1] < 1.0] == []
    assert [one for one in times if 0.15 < one[1] < 1.0] == []
    assert {seconds < 0 for _, seconds in times} == {True, False}
    assert [future.worker for future in futures] == workers
    assert {pool.poll(future.id).attempts for future in futures} == {1}


def read_times(path: Path) -> list[tuple[str, float]]:
    """The process and the time of each line."""
    lines = map(str.split, path.read_text().splitlines())
    return [(pid, float(when)) for pid, when in lines]


def test_refused_task_leaves_its_worker_idle_meanwhile(api_pool: Pool, provider: Provider) -> None:
    provider.begin(faults=[Fault.status(429, retry_after=2.0)])
    future = api_pool.submit("a question", role="plain")
    provider.wait_for_calls(1)
    provider.server.wait_until_idle()

    while (status := api_pool.status()).running:
        pass

    assert [worker.state for worker in status.workers] == ["idle", "idle"]
    assert status.queued == 1
    assert not future.done()
    assert future.result(timeout=30).text == "a question"


@pytest.mark.parametrize("status", [401, 404], ids=["a wrong key", "an unknown model"])
def test_fatal_refusal_fails_at_once(api_pool: Pool, provider: Provider, status: int) -> None:
    provider.begin(faults=[Fault.status(status, message="never")])

    with pytest.raises(BackendError, match="never") as raised:
        api_pool.submit("a question", role="plain").result(timeout=30)

    assert raised.value.attempts == 1
    assert len(provider.calls) == 1
    assert "test-key" not in str(raised.value) + raised.value.cause.traceback


def test_broken_connections_are_tried_again_and_the_error_names_the_url(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(faults=[Fault.reset(), Fault.disconnect(), Fault.cut()])

    with pytest.raises(BackendError, match=provider.server.url) as raised:
        api_pool.submit("a question", role="plain").result(timeout=30)

    assert raised.value.attempts == 3
