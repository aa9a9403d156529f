"""Hearing what happens in the workers, while anybody watches."""

from __future__ import annotations

import asyncio

from raypool.link import WorkerGone, WorkerLink
from raypool.telemetry import Broadcast


class Listening:
    """Passes the telemetry of every worker on to those who watch the pool."""

    def __init__(self, links: dict[str, WorkerLink], broadcast: Broadcast) -> None:
        self._links = links
        self._broadcast = broadcast
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._is_watched = False
        self._ceasing: set[asyncio.Task[None]] = set()
        broadcast.when_watched(self._watch)

    def join(self, name: str) -> None:
        """Listen to a worker that is new, or has a new process."""
        if self._is_watched:
            self._begin(name)

    async def settle(self) -> None:
        """Return when every worker has been told to report."""
        if self._watching:
            await asyncio.wait(self._watching.values())

    def _watch(self, is_watched: bool) -> None:
        self._is_watched = is_watched
        if is_watched:
            for name in self._links:
                self._begin(name)
            return
        for name, task in self._tasks.items():
            task.cancel()
            ceasing = asyncio.ensure_future(_tell(self._links[name], is_watched=False))
            self._ceasing.add(ceasing)
            ceasing.add_done_callback(self._ceasing.discard)
        self._tasks.clear()
        self._watching.clear()

    def _begin(self, name: str) -> None:
        if name in self._tasks:
            self._tasks[name].cancel()
        link = self._links[name]
        self._watching[name] = asyncio.ensure_future(_tell(link, is_watched=True))
        self._tasks[name] = asyncio.ensure_future(self._listen(link))

    async def _listen(self, link: WorkerLink) -> None:
        try:
            async for events in link.telemetry():
                self._broadcast.put(events)
        except WorkerGone:
            return  # its new process is listened to once it is there


async def _tell(link: WorkerLink, *, is_watched: bool) -> None:
    try:
        await link.watch(is_watched)
    except WorkerGone:
        return
