"""The end of a pool: what may still run, and what is told and kept last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import ray

from raypool.assembly import Parts
from raypool.errors import LedgerError
from raypool.messages import Stopped

logger = logging.getLogger(__name__)

LINGER_SECONDS = 10.0
SETTLE_SECONDS = 5.0
RECALL_SECONDS = 3.0
FAREWELL_SECONDS = 1.0
STOP_REASON = "the pool has stopped"


class Stopping:
    """Stops a pool, once.

    Attributes:
        has_ended: set when the pool has stopped.
    """

    def __init__(self) -> None:
        self.has_ended = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ending: asyncio.Task[Stopped] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the pool takes no more tasks, and changes no size any more."""
        return self._ending is not None

    async def stop(self, parts: Parts, drain: bool, grace: float) -> Stopped:
        """End the pool of these parts; what it leaves unfinished.

        With `drain` every accepted task is finished first; otherwise running turns have
        `grace` seconds. A later call with neither ends the wait of an earlier one.
        """
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end(parts, drain, grace))
        elif not drain and grace == 0:
            self._hurry.set()
        return await asyncio.shield(self._ending)

    async def _end(self, parts: Parts, drain: bool, grace: float) -> Stopped:
        sender, broadcast = parts.sender, parts.broadcast
        if drain:
            await self._unless_hurried(sender.finish_up_to(parts.intake.last_number))
        parts.scaler.close()
        sender.close()
        recalls = [sender.recall(worker) for worker in parts.scheduler.roster]
        recalling = asyncio.gather(*recalls, return_exceptions=True)
        await self._unless_hurried(recalling, RECALL_SECONDS)
        ends = [link.stop(grace, STOP_REASON) for link in parts.links.values()]
        ending = asyncio.gather(*ends, return_exceptions=True)
        await self._unless_hurried(ending, grace + SETTLE_SECONDS)
        await sender.settle_all(0.0 if self._hurry.is_set() else SETTLE_SECONDS)
        sender.deafen()
        unfinished = parts.scheduler.unfinished
        await parts.listening.finish(FAREWELL_SECONDS)
        await parts.governors.close()
        for link in parts.links.values():
            link.kill()
        try:
            await parts.ledger.close()
        except LedgerError as error:
            logger.error("%s", error)  # noqa: TRY400 - the message says it all
        finally:
            for name in parts.links:
                broadcast.emit("worker.stopped", worker=name, reason=STOP_REASON)
            await broadcast.settle(FAREWELL_SECONDS)
            self.has_ended.set()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, end_dispatcher)
            parts.desks.interrupt()
            if parts.handler_thread is not None:
                await asyncio.to_thread(parts.handler_thread.close)
        lost = parts.recorder.given_up
        return Stopped(unfinished, lost, parts.ledger.failure if lost else None)

    async def _unless_hurried(self, work: Awaitable[object], timeout: float | None = None) -> None:
        hurry = asyncio.ensure_future(self._hurry.wait())
        waiting = asyncio.ensure_future(work)
        await asyncio.wait({waiting, hurry}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        waiting.cancel()


def end_dispatcher() -> None:
    """End this actor, in the place of a client that should and may be gone by now."""
    ray.kill(ray.get_runtime_context().current_actor)
