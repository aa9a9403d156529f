"""Hearing what happens in the workers, while anybody watches."""

from __future__ import annotations

import asyncio

from raypool.link import WorkerGone, WorkerLink
from raypool.telemetry import Broadcast

SETTLE_SECONDS = 2.0


class Listening:
    """Passes the telemetry of every worker on to those who watch the pool."""

    def __init__(self, links: dict[str, WorkerLink], broadcast: Broadcast) -> None:
        self._links = links
        self._broadcast = broadcast
        self._hearing: dict[str, asyncio.Task[None]] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._is_watched = False
        broadcast.when_watched(self._watch)

    def join(self, name: str) -> None:
        """Listen to a worker that is new, or has a new process."""
        if self._is_watched:
            self._begin(name)

    async def leave(self, name: str) -> None:
        """Hear the last of a worker that has ended, and listen to it no more."""
        hearing = self._hearing.pop(name, None)
        self._telling.pop(name, None)
        if hearing is not None:
            await asyncio.wait([hearing], timeout=SETTLE_SECONDS)
            hearing.cancel()

    async def settle(self) -> None:
        """Return when every worker knows whether it is watched; one that is deaf is left out."""
        if self._telling:
            await asyncio.wait(self._telling.values(), timeout=SETTLE_SECONDS)

    async def finish(self, timeout: float) -> None:
        """Return when what the workers had to tell is here: they are about to end."""
        if self._hearing:
            await asyncio.wait(self._hearing.values(), timeout=timeout)

    def _watch(self, is_watched: bool) -> None:
        self._is_watched = is_watched
        if is_watched:
            for name in self._links:
                self._begin(name)
            return
        for name, hearing in self._hearing.items():
            hearing.cancel()
            self._tell(name, is_watched=False)
        self._hearing.clear()

    def _begin(self, name: str) -> None:
        if name in self._hearing:
            self._hearing[name].cancel()
        self._tell(name, is_watched=True)
        self._hearing[name] = asyncio.ensure_future(self._hear(self._links[name]))

    def _tell(self, name: str, *, is_watched: bool) -> None:
        before, link = self._telling.get(name), self._links[name]
        self._telling[name] = asyncio.ensure_future(_watch(link, is_watched, before))

    async def _hear(self, link: WorkerLink) -> None:
        try:
            async for events in link.telemetry():
                self._broadcast.put(events)
        except WorkerGone:
            return  # its new process is listened to once it is there


async def _watch(link: WorkerLink, is_watched: bool, before: asyncio.Task[None] | None) -> None:
    """Have a worker watched or not, once the call before is over: its calls may overtake."""
    if before is not None:
        await asyncio.wait([before])
    try:
        await link.watch(is_watched)
    except WorkerGone:
        return
