"""The dispatcher's end of the line to one worker: its Ray calls, and nothing else of Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import ray

from raypool.messages import (
    Assignment,
    Batch,
    Notice,
    Outcome,
    Rejoined,
    Terms,
    WorkerReport,
    decode_batch,
    decode_outcomes,
    encode,
)
from raypool.telemetry import TelemetryEvent, decode_events
from raypool.worker import WAITING

STATUS_TIMEOUT_SECONDS = 2.0

WorkerGone = ray.exceptions.RayError
"""What every call below raises when the worker's process is dead or out of reach."""


class WorkerLink:
    """Calls one worker.

    Attributes:
        terms: what its turns are limited and priced by, once it is ready.
    """

    def __init__(self, handle: Any, epoch: int = 1) -> None:
        """Call the worker as the dispatcher of that `epoch`."""
        self.terms = Terms()
        self._handle = handle
        self._epoch = epoch
        self._confirmed: list[int] = []
        self._finished = 0
        self._asking: asyncio.Future[None] | None = None
        self._notices: dict[int, asyncio.Future[Outcome]] = {}
        self._listening: asyncio.Task[None] | None = None

    async def arrive(self) -> str:
        """The id of the node on which Ray has placed the worker; waits until it has."""
        return str(await self._handle.arrive.remote())

    async def start(self, snapshot: str | None) -> None:
        """Have the worker's agent and backend get ready; raises what they raise."""
        self.terms = await self._handle.start.remote(snapshot)

    async def rejoin(self) -> Rejoined | None:
        """Have a worker of a dispatcher that has died work for this one; what it has.

        `None` when it has no agent yet, or cannot say.
        """
        rejoined: Rejoined | None = await self._handle.rejoin.remote(self._epoch)
        if rejoined is not None:
            self.terms = rejoined.terms
        return rejoined

    def confirm(self, numbers: Iterable[int]) -> None:
        """Let the worker know, with what it is sent next, that the end of tasks is recorded."""
        self._confirmed += numbers

    async def send(self, assignments: list[Assignment]) -> AsyncIterator[Batch]:
        """Put an envelope into the worker's mailbox; its outcomes in batches, as they come."""
        envelope = encode(assignments)
        confirmed, self._confirmed = self._confirmed, []
        if len(assignments) == 1 and not assignments[0].streams:
            answered = self._handle.turn_of_one.remote(envelope, self._epoch, confirmed)
            yield Batch(decode_outcomes(await answered))
            return
        async for batch in self._handle.turn.remote(envelope, self._epoch, confirmed):
            yield decode_batch(await batch)

    async def take_over(self, numbers: list[int]) -> AsyncIterator[Batch]:
        """The outcomes, as they come, of what the worker had begun before it rejoined."""
        async for batch in self._handle.take_over.remote(numbers, self._epoch):
            yield decode_batch(await batch)

    async def notify(self, notice: Notice) -> Outcome:
        """Have the worker's agent hear an event; its outcome, once all that it led to has ended.

        Notices reach the agent in the order of these calls, however many wait.
        """
        answered = self._expect(notice.number)
        try:
            await self._handle.notify.remote(encode(notice))
            return await self._answer(answered)
        finally:
            self._notices.pop(notice.number, None)

    async def answered(self, notice: Notice) -> Outcome:
        """The outcome of a notice that the worker had before it rejoined."""
        return await self._answer(self._expect(notice.number))

    async def interrupt(self) -> int:
        """Interrupt every running turn; how many."""
        interrupted: int = await self._handle.interrupt.remote()
        return interrupted

    async def resume(self) -> bool:
        """Have the worker take tasks again; whether an outcome has told that it had halted."""
        was_reported: bool = await self._handle.resume.remote()
        return was_reported

    async def watch(self, is_watched: bool) -> None:
        """Have the worker begin or cease to note what happens."""
        await self._handle.watch.remote(is_watched)

    async def telemetry(self) -> AsyncIterator[list[TelemetryEvent]]:
        """What happens in the worker, until it ends or this is called again."""
        async for batch in self._handle.telemetry.remote():
            yield decode_events(await batch)

    async def finished(self, count: int) -> None:
        """Return when the worker says that it has ended `count` attempts since its start.

        However many wait, one call waits in the worker.
        """
        while self._finished < count:
            if self._asking is None:
                self._asking = asyncio.ensure_future(self._ask(count))
                self._asking.add_done_callback(_retrieve)
            await asyncio.shield(self._asking)

    def has_finished(self, count: int) -> bool:
        """Whether the worker has said that it has ended `count` attempts."""
        return self._finished >= count

    async def status(self) -> WorkerReport | None:
        """What the worker does now; `None` when it does not answer."""
        try:
            return await asyncio.wait_for(self._handle.status.remote(), STATUS_TIMEOUT_SECONDS)
        except (WorkerGone, TimeoutError):
            return None

    async def cancel(self, numbers: list[int]) -> list[int]:
        """Have the worker interrupt those of these tasks that run; the others, which never will."""
        dropped: list[int] = await self._handle.cancel.remote(numbers)
        return dropped

    async def recall(self, numbers: list[int]) -> list[int]:
        """Have the worker give back those of these tasks that it has not started; which they are.

        Their outcomes, which may come before this or after it, say that they are returned.
        """
        recalled: list[int] = await self._handle.recall.remote(numbers)
        return recalled

    async def call_back(self, count: int) -> None:
        """Have the worker return, by their outcomes, what it has not started of `count` tasks.

        Those are the first that it was sent; what capacity is reserved for stays.
        """
        await self._handle.call_back.remote(count)

    async def stop(self, grace: float, reason: str) -> None:
        """End the agent after at most `grace` seconds for its running turns."""
        await self._handle.stop.remote(grace, reason)

    def kill(self) -> None:
        """End the worker's process now."""
        ray.kill(self._handle, no_restart=True)

    def _expect(self, number: int) -> asyncio.Future[Outcome]:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._notices[number] = answered
        return answered

    async def _answer(self, answered: asyncio.Future[Outcome]) -> Outcome:
        if self._listening is None:
            self._listening = asyncio.ensure_future(self._listen())
        return await answered

    async def _listen(self) -> None:
        """Hand out what became of notices, as long as somebody waits for one."""
        try:
            while self._notices:
                for outcome in decode_outcomes(await self._handle.answers.remote()):
                    answered = self._notices.pop(outcome.number, None)
                    if answered is not None:
                        answered.set_result(outcome)
        except WorkerGone as error:
            for answered in self._notices.values():
                answered.set_exception(error)
            self._notices.clear()
        finally:
            self._listening = None

    async def _ask(self, count: int) -> None:
        try:
            waiting = self._handle.status.options(concurrency_group=WAITING)
            report: WorkerReport = await waiting.remote(after=count)
            self._finished = report.finished
        finally:
            self._asking = None


def _retrieve(asked: asyncio.Future[None]) -> None:
    """Whoever still waits is told; that nobody does is no error."""
    if not asked.cancelled():
        asked.exception()
