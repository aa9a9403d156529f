"""The future of a task, for threads and for coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raypool.errors import (
    BackendError,
    Cause,
    InvalidTask,
    PoolStopped,
    TaskCancelled,
    WaitTimeout,
)
from raypool.future import TaskFuture
from raypool.records import Ending
from raypool.response import Response
from raypool.task import Task
from raypool.text_stream import LONGEST_UNREAD

pytestmark = pytest.mark.timeout(30)

ANSWER = Response(text="42")
FAILURE = BackendError("a", "crew-1", 4, Cause("ConnectionError", "cut"))
ENDING = Ending(1, "completed", "crew-1", 1, 0)


class FakeClient:
    """What a future knows of its client.

    Attributes:
        cancelled: the ids that were asked to be cancelled.
    """

    def __init__(self) -> None:
        self.resolved = threading.Condition()
        self.cancelled: list[str] = []
        self._receipts = threading.Condition()

    def future(self, task_id: str = "a", task: Task | None = None) -> TaskFuture:
        return TaskFuture(self, task_id, task)

    def cancel(self, task_id: str) -> None:
        self.cancelled.append(task_id)

    def await_receipt(self, future: TaskFuture, timeout: float | None) -> bool:
        with self._receipts:
            return self._receipts.wait_for(lambda: future.is_accepted or future.done(), timeout)

    def accept(self, future: TaskFuture, worker: str | None = "crew-1") -> None:
        with self._receipts:
            future.accept(worker)
            self._receipts.notify_all()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def future(client: FakeClient) -> TaskFuture:
    return client.future()


@pytest.fixture
def streaming(client: FakeClient) -> TaskFuture:
    """The future of a task whose text is wanted as it is generated."""
    return client.future("a", Task("why?", stream=True))


def soon(act: Callable[..., object], *args: Any) -> None:
    """Do it on another thread, as a client does."""
    threading.Thread(target=act, args=args).start()


async def begun(awaited: Any) -> asyncio.Task[Any]:
    """A task that has begun to wait."""
    task: asyncio.Task[Any] = asyncio.ensure_future(awaited)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_result_waits_for_the_response(future: TaskFuture) -> None:
    soon(future.set_result, ANSWER)

    assert future.result(timeout=10) is ANSWER
    assert future.exception() is None


def test_result_raises_what_became_of_the_task(future: TaskFuture) -> None:
    soon(future.set_exception, FAILURE)

    with pytest.raises(BackendError) as raised:
        future.result(timeout=10)

    assert raised.value is FAILURE
    assert future.exception() is FAILURE


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_result_that_does_not_come_in_time_is_a_timeout(future: TaskFuture, timeout: float) -> None:
    with pytest.raises(WaitTimeout, match=f"task 'a' has not ended after {timeout} s; it goes on"):
        future.result(timeout=timeout)
    with pytest.raises(TimeoutError):
        future.exception(timeout=timeout)

    assert not future.done()


def test_end_of_another_task_wakes_nobody_else(client: FakeClient) -> None:
    mine, other = client.future("mine"), client.future("other")
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(mine.result, 10)

        other.set_result(Response(text="another"))
        assert other.result().text == "another"
        assert not waiting.done()
        mine.set_result(ANSWER)

        assert waiting.result() is ANSWER


def test_many_threads_may_wait_for_one_task(future: TaskFuture) -> None:
    with ThreadPoolExecutor(8) as aside:
        waiting = [aside.submit(future.result, 10) for _ in range(8)]

        future.set_result(ANSWER)

        assert [one.result() for one in waiting] == [ANSWER] * 8


def test_callback_is_called_once_with_the_future(future: TaskFuture) -> None:
    called: list[object] = []
    future.add_done_callback(called.append)

    future.set_result(ANSWER)
    future.add_done_callback(called.append)

    assert called == [future, future]


@pytest.mark.asyncio
async def test_task_that_has_ended_can_be_awaited_again_and_again(future: TaskFuture) -> None:
    future.set_result(ANSWER)

    assert await future is ANSWER
    assert await future is ANSWER


@pytest.mark.asyncio
async def test_awaiting_waits_for_the_response_without_blocking_the_loop(
    future: TaskFuture,
) -> None:
    waiting = await begun(future)

    soon(future.set_result, ANSWER)

    assert await waiting is ANSWER


@pytest.mark.asyncio
async def test_awaiting_raises_what_became_of_the_task(future: TaskFuture) -> None:
    waiting = await begun(future)

    soon(future.set_exception, FAILURE)

    with pytest.raises(BackendError):
        await waiting


@pytest.mark.asyncio
async def test_many_coroutines_may_await_one_task(future: TaskFuture) -> None:
    waiting = [await begun(future) for _ in range(10)]

    soon(future.set_result, ANSWER)

    assert await asyncio.gather(*waiting) == [ANSWER] * 10


def test_coroutines_of_many_loops_may_await_one_task(future: TaskFuture) -> None:
    async def wait() -> Response:
        return await future

    with ThreadPoolExecutor(4) as aside:
        waiting = [aside.submit(asyncio.run, wait()) for _ in range(4)]
        future.set_result(ANSWER)

        assert [one.result() for one in waiting] == [ANSWER] * 4


@pytest.mark.asyncio
@pytest.mark.parametrize("reason", [None, "skipped by its agent"])
async def test_awaiting_a_task_that_was_cancelled_elsewhere_raises_task_cancelled(
    future: TaskFuture, reason: str | None
) -> None:
    waiting = await begun(future)

    soon(future.set_exception, TaskCancelled("a", reason))

    with pytest.raises(TaskCancelled) as raised:
        await waiting
    assert not isinstance(raised.value, asyncio.CancelledError)
    assert not waiting.cancelled()


@pytest.mark.asyncio
async def test_cancelled_task_does_not_cancel_those_that_are_awaited_beside_it(
    client: FakeClient,
) -> None:
    one, two = client.future("one"), client.future("two")
    gathered = await begun(asyncio.gather(one, two, return_exceptions=True))

    soon(one.set_exception, TaskCancelled("one"))
    soon(two.set_result, ANSWER)

    cancelled, answer = await gathered
    assert isinstance(cancelled, TaskCancelled)
    assert answer is ANSWER
    assert client.cancelled == []


@pytest.mark.asyncio
async def test_cancelling_the_coroutine_that_awaits_a_task_cancels_the_task(
    client: FakeClient, future: TaskFuture
) -> None:
    waiting = await begun(future)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert client.cancelled == ["a"]
    assert not future.done()


@pytest.mark.asyncio
async def test_coroutine_that_ran_out_of_time_cancels_the_task(
    client: FakeClient, future: TaskFuture
) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(future, 0.01)

    assert client.cancelled == ["a"]


@pytest.mark.asyncio
async def test_shield_keeps_the_task(client: FakeClient, future: TaskFuture) -> None:
    shielded = asyncio.shield(future)
    waiting = await begun(shielded)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert client.cancelled == []
    future.set_result(ANSWER)
    assert await future is ANSWER
    for _ in range(3):  # the shielded coroutine ends too
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_task_that_ended_before_its_coroutine_was_cancelled_is_not_cancelled(
    client: FakeClient, future: TaskFuture
) -> None:
    waiting = await begun(future)

    future.set_result(ANSWER)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert client.cancelled == []


def test_task_may_end_after_the_loop_that_awaited_it(
    future: TaskFuture, caplog: pytest.LogCaptureFixture
) -> None:
    async def give_up() -> None:
        await begun(future)

    asyncio.run(give_up())

    future.set_result(ANSWER)

    assert future.result() is ANSWER
    assert caplog.records == []


def test_cancel_asks_and_returns_at_once(client: FakeClient, future: TaskFuture) -> None:
    assert future.cancel()

    assert client.cancelled == ["a"]
    assert not future.done()
    assert not future.cancelled()


def test_task_that_ends_after_its_cancellation_was_asked_for_has_its_result(
    future: TaskFuture,
) -> None:
    future.cancel()

    future.set_result(ANSWER)

    assert future.result() is ANSWER
    assert not future.cancelled()


def test_cancelled_task_says_so(future: TaskFuture) -> None:
    future.cancel()

    future.set_exception(TaskCancelled("a"))

    assert future.cancelled()
    assert future.done()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


def test_task_that_has_ended_cannot_be_cancelled(client: FakeClient, future: TaskFuture) -> None:
    future.set_result(ANSWER)

    assert not future.cancel()
    assert client.cancelled == []


def test_many_are_waited_for_with_concurrent_futures(client: FakeClient) -> None:
    futures = [client.future(f"task-{n}") for n in range(4)]
    futures[0].set_result(ANSWER)
    futures[1].set_exception(FAILURE)
    futures[2].set_exception(TaskCancelled("task-2"))

    done, pending = concurrent.futures.wait(futures, timeout=0.01)

    assert done == set(futures[:3])
    assert pending == {futures[3]}
    soon(futures[3].set_result, ANSWER)
    done, pending = concurrent.futures.wait(futures, timeout=10)
    assert (done, pending) == (set(futures), set())


@pytest.mark.parametrize(
    ("ended", "when"),
    [(ANSWER, concurrent.futures.FIRST_COMPLETED), (FAILURE, concurrent.futures.FIRST_EXCEPTION)],
)
def test_first_of_many_is_waited_for(client: FakeClient, ended: Any, when: str) -> None:
    futures = [client.future(f"task-{n}") for n in range(4)]
    end = futures[2].set_exception if ended is FAILURE else futures[2].set_result
    soon(end, ended)

    done, _ = concurrent.futures.wait(futures, timeout=10, return_when=when)

    assert done == {futures[2]}


def test_tasks_come_as_they_end(client: FakeClient) -> None:
    futures = [client.future(f"task-{n}") for n in range(3)]
    order = [futures[1], futures[2], futures[0]]
    ended = concurrent.futures.as_completed(futures, timeout=10)

    for one in order:
        soon(one.set_result, ANSWER)
        assert next(ended) is one


@pytest.mark.asyncio
async def test_wrapped_future_gives_the_response(future: TaskFuture) -> None:
    waiting = await begun(asyncio.wrap_future(future))

    soon(future.set_result, ANSWER)

    assert await waiting is ANSWER


@pytest.mark.asyncio
async def test_wrapped_future_raises_what_became_of_the_task(future: TaskFuture) -> None:
    waiting = await begun(asyncio.wrap_future(future))

    soon(future.set_exception, FAILURE)

    with pytest.raises(BackendError):
        await waiting


@pytest.mark.asyncio
async def test_cancelling_a_wrapped_future_cancels_the_task(
    client: FakeClient, future: TaskFuture
) -> None:
    wrapped = await begun(asyncio.wrap_future(future))

    wrapped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wrapped
    await asyncio.sleep(0)

    assert client.cancelled == ["a"]
    future.set_exception(TaskCancelled("a"))


def test_acceptance_is_waited_for(client: FakeClient, future: TaskFuture) -> None:
    soon(client.accept, future)

    assert future.accepted(timeout=10) is True
    assert not future.done()


def test_acceptance_that_does_not_come_in_time_is_a_timeout(future: TaskFuture) -> None:
    with pytest.raises(WaitTimeout, match=r"task 'a' was not accepted within 0\.01 s") as raised:
        future.accepted(timeout=0.01)

    assert isinstance(raised.value, TimeoutError)


def test_acceptance_of_a_refused_task_raises_the_refusal(future: TaskFuture) -> None:
    refusal = InvalidTask("a known id")
    future.set_exception(refusal)

    with pytest.raises(InvalidTask) as raised:
        future.accepted(timeout=10)
    assert raised.value is refusal


def test_task_that_failed_was_accepted_all_the_same(future: TaskFuture) -> None:
    future.end(ENDING)
    future.set_exception(FAILURE)

    assert future.accepted(timeout=10)
    assert future.worker == "crew-1"


def test_task_that_was_accepted_stays_so_when_the_pool_stops(
    client: FakeClient, future: TaskFuture
) -> None:
    client.accept(future)
    future.set_exception(PoolStopped("it has stopped"))

    assert future.accepted(timeout=10)


def test_acceptance_ends_with_the_pool(future: TaskFuture) -> None:
    future.set_exception(PoolStopped("it has stopped"))

    with pytest.raises(PoolStopped):
        future.accepted(timeout=10)


def test_worker_is_known_once_the_task_is_accepted(client: FakeClient, future: TaskFuture) -> None:
    soon(client.accept, future, "crew-3")

    assert future.worker == "crew-3"


def test_refused_task_has_no_worker(future: TaskFuture) -> None:
    future.set_exception(InvalidTask("a known id"))

    assert future.worker is None


def test_stream_gives_text_before_the_task_has_ended(streaming: TaskFuture) -> None:
    stream = streaming.stream()

    soon(streaming.put_text, "4")
    first = next(stream)
    assert not streaming.done()
    streaming.put_text("2")
    streaming.set_result(ANSWER)

    assert [first, *stream] == ["4", "2"]


@pytest.mark.asyncio
async def test_stream_gives_text_to_a_coroutine(streaming: TaskFuture) -> None:
    stream = streaming.stream()
    first = await begun(anext(stream))

    soon(streaming.put_text, "4")
    assert await first == "4"
    second = await begun(anext(stream))
    soon(streaming.set_result, ANSWER)

    assert await second == "2"
    assert [piece async for piece in stream] == []


@pytest.mark.asyncio
async def test_coroutines_read_more_streams_than_there_are_threads(client: FakeClient) -> None:
    futures = [client.future(f"task-{n}", Task("why?", stream=True)) for n in range(100)]
    waiting = [await begun(anext(future.stream())) for future in futures]

    for future in reversed(futures):
        future.put_text(future.id)

    assert await asyncio.gather(*waiting) == [future.id for future in futures]


def test_stream_of_a_task_that_failed_gives_its_text_and_raises(streaming: TaskFuture) -> None:
    stream = streaming.stream()
    streaming.put_text("4")
    streaming.set_exception(FAILURE)

    assert next(stream) == "4"
    with pytest.raises(BackendError) as raised:
        next(stream)
    assert raised.value is FAILURE
    assert list(stream) == []


def test_stream_of_a_task_that_was_answered_long_ago_gives_the_answer(
    streaming: TaskFuture,
) -> None:
    streaming.set_result(ANSWER)

    assert list(streaming.stream()) == ["42"]


def test_stream_of_a_chain_gives_the_text_of_all_its_turns(streaming: TaskFuture) -> None:
    for text in ("Let me think. ", "42"):
        streaming.put_text(text)
    streaming.set_result(ANSWER)

    assert "".join(streaming.stream()) == "Let me think. 42"


def test_reader_who_falls_behind_gets_the_rest_from_the_answer(streaming: TaskFuture) -> None:
    answer = "x" * LONGEST_UNREAD + "yz"
    streaming.put_text(answer[:LONGEST_UNREAD])
    streaming.put_text(answer[LONGEST_UNREAD:])
    streaming.set_result(Response(text=answer))

    assert "".join(streaming.stream()) == answer


def test_closing_the_stream_does_not_cancel_the_task(
    client: FakeClient, streaming: TaskFuture
) -> None:
    stream = streaming.stream()
    streaming.put_text("4")
    next(stream)

    stream.close()
    streaming.put_text("2")

    assert list(stream) == []
    assert client.cancelled == []
    streaming.set_result(ANSWER)
    assert streaming.result() is ANSWER


def test_stream_is_given_once(streaming: TaskFuture) -> None:
    streaming.stream()

    with pytest.raises(
        InvalidTask, match=r"given already.*; result\(\)\.text has the whole answer"
    ):
        streaming.stream()


def test_stream_of_a_task_that_does_not_stream_says_how_to_ask_for_it(future: TaskFuture) -> None:
    future.put_text("nobody wants it")

    with pytest.raises(InvalidTask, match="'a' is not streamed; submit it with stream=True"):
        future.stream()


def test_repr_says_where_the_task_is(client: FakeClient) -> None:
    one, two = client.future("one"), client.future("two")

    seen = [repr(one)]
    client.accept(one)
    seen.append(repr(one))
    one.set_result(ANSWER)
    seen.append(repr(one))
    two.set_exception(FAILURE)
    seen.append(repr(two))

    assert seen == [
        "<TaskFuture 'one' pending>",
        "<TaskFuture 'one' on 'crew-1'>",
        "<TaskFuture 'one' completed>",
        "<TaskFuture 'two' raised BackendError>",
    ]
