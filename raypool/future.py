"""The future of a task: one type for threads and for coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from concurrent.futures._base import PENDING
from contextlib import suppress
from threading import Condition
from typing import Any, Protocol

from raypool.errors import InvalidTask, TaskCancelled, WaitTimeout
from raypool.records import Ending
from raypool.response import Response
from raypool.stream import Stream
from raypool.task import Task
from raypool.text_stream import TextPipe


class Line(Protocol):
    """What a future asks of the client that made it.

    Attributes:
        resolved: what those who wait for any of its futures wait on.
    """

    resolved: Condition

    def cancel(self, task_id: str) -> None:
        """Ask for a task to be cancelled, and return at once."""

    def await_receipt(self, future: TaskFuture, timeout: float | None) -> bool:
        """Wait until a task is accepted or refused; false when time ran out."""


class TaskFuture(concurrent.futures.Future[Response]):
    """The future of one task.

    Everything that takes a `concurrent.futures.Future` takes it, and it can be
    awaited. It resolves once the task's end is recorded in the ledger. Callbacks run
    on a thread of raypool's and must not block.

    Attributes:
        id: the task's id.
        is_accepted: the ledger has committed the task, and this process knows it.
    """

    def __init__(self, client: Line, task_id: str, task: Task | None = None) -> None:
        # Not `super().__init__()`: it makes a Condition for each future, which is most of
        # a future's time and memory. Those of a client share one, on a reentrant lock.
        self._condition = client.resolved
        self._state = PENDING
        self._result: Response | None = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self.id = task_id
        self._client = client
        self._task = task
        self._worker: str | None = None
        self.is_accepted = False
        self._ending: Ending | None = None
        self._text: TextPipe | None = None
        self._is_streamed = False
        if task is not None and task.stream:
            self._text = TextPipe()
            self.add_done_callback(_end_text)

    @property
    def worker(self) -> str | None:
        """The name of the worker that has the task; waits until the task is accepted.

        `None` when no worker has been given it so far, or it was refused.
        """
        self._client.await_receipt(self, timeout=None)
        return self._worker

    def result(self, timeout: float | None = None) -> Response:
        """The response, once there is one.

        Raises:
            TimeoutError: the task has not ended after `timeout` seconds; it goes on.
            TaskFailed, TaskCancelled, PoolStopped, LedgerError, InvalidTask: what became of it.
        """
        self._await_end(timeout)
        return super().result(timeout=0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise; `None` when it would return.

        Raises:
            TimeoutError: the task has not ended after `timeout` seconds; it goes on.
        """
        self._await_end(timeout)
        return super().exception(timeout=0)

    def stream(self) -> Stream[str]:
        """The answer's text as it is generated, in pieces; works in `for` and in `async for`.

        Ends when the task has completed, and raises what `result()` raises when it has
        not, after the text that came until then. Of a chain it gives the text of all its
        turns, one after another; where an attempt broke off in the middle, the text of the
        next one follows from its start. `result().text` is the answer alone.

        A reader who falls 1,000,000 characters behind gets what it has missed once the
        task has ended, unless the text had more than one beginning: then it is left out.
        Reading no further does not cancel the task. A future gives its stream once.

        Raises:
            InvalidTask: the task was not submitted with `stream=True`, or its stream was
                given already.
        """
        if self._text is None:
            raise InvalidTask(
                f"the text of task {self.id!r} is not streamed; submit it with stream=True"
            )
        if self._is_streamed:
            raise InvalidTask(
                f"the stream of task {self.id!r} was given already, and a future gives it once; "
                "result().text has the whole answer"
            )
        self._is_streamed = True
        return Stream(self._read(self._text), self._text.ready)

    def _read(self, text: TextPipe) -> Generator[str, None, None]:
        yield from text.pieces()
        rest = text.rest_of(self.result().text)
        if rest:
            yield rest

    def _await_end(self, timeout: float | None) -> None:
        if not self.done():
            with self._condition:
                if not self._condition.wait_for(self.done, timeout):
                    raise WaitTimeout(
                        f"task {self.id!r} has not ended after {timeout} s; it goes on"
                    )

    def accepted(self, timeout: float | None = None) -> bool:
        """Wait until the ledger has committed the task; then `True`.

        Raises:
            WaitTimeout: it is not committed after `timeout` seconds.
            RaypoolError: it was refused; the same error as `result()` raises.
        """
        if not self._client.await_receipt(self, timeout):
            raise WaitTimeout(f"task {self.id!r} was not accepted within {timeout:g} s")
        if not self.is_accepted:
            self.result()
        return True

    def accept(self, worker: str | None) -> None:
        """Note that the task is accepted, and who has it; the client calls this."""
        self._worker = worker
        self.is_accepted = True

    def end(self, ending: Ending) -> None:
        """Note how the task ended, before the future resolves; the client calls this."""
        self._ending = ending
        self.accept(ending.worker)

    def cut_text(self) -> None:
        """Take no more text: some was lost, and the rest comes once the task has ended."""
        if self._text is not None:
            self._text.cut()

    def put_text(self, text: str) -> None:
        """Hand text to the one who reads the stream; the client calls this."""
        if self._text is not None:
            self._text.put(text)

    def cancel(self) -> bool:
        """Ask for the task to be dropped, or interrupted if it runs; returns at once.

        `True` unless the task has ended already. The future then raises
        `TaskCancelled`, or gives its result if the task ended first.
        """
        if self.done():
            return False
        self._client.cancel(self.id)
        return True

    def cancelled(self) -> bool:
        """Whether the task ended by being cancelled."""
        return self.done() and isinstance(self.exception(), TaskCancelled)

    def __await__(self) -> Generator[Any, None, Response]:
        return self._wait().__await__()

    async def _wait(self) -> Response:
        if not self.done():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()

            def wake(_: concurrent.futures.Future[Response]) -> None:
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(_set, ended)

            self.add_done_callback(wake)
            try:
                await ended
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()

    def __repr__(self) -> str:
        return f"<TaskFuture {self.id!r} {self._describe()}>"

    def _describe(self) -> str:
        if not self.done():
            return f"on {self._worker!r}" if self._worker else "pending"
        error = self.exception()
        return "completed" if error is None else f"raised {type(error).__name__}"


def _set(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _end_text(future: concurrent.futures.Future[Response]) -> None:
    assert isinstance(future, TaskFuture)
    assert future._text is not None
    future._text.end()
