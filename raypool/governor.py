"""The governor actor: parts what one key may use among all pools of the cluster."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from typing import NoReturn

import ray

from raypool.capacity.governing import Governing
from raypool.capacity.leases import Lease, Report
from raypool.clock import SystemClock
from raypool.messages import Terms
from raypool.names import was_restarted

NAMESPACE = "raypool"
CALL_SECONDS = 20.0
"""How long a call that waits for news is kept at most."""

UNUSED_SECONDS = 3.0
FIRST_USER_SECONDS = 30.0

_WATCH_SECONDS = 1.0
_KILL_SECONDS = 5.0


class Governor:
    """An actor that leases rates to the shares of one provider, key and model.

    There is one on a cluster, whatever the namespaces of the pools. It ends by itself when no
    share has held a lease for `UNUSED_SECONDS`, or none has come for `FIRST_USER_SECONDS`. When its
    process dies Ray starts another, which leases no more than the shares report to hold until the
    leases of all others have run out.
    """

    def __init__(self, is_replacement: bool = False) -> None:
        was_here = was_restarted()
        clock = SystemClock()
        self._governing = Governing(clock, is_replacement=is_replacement or was_here)
        self._watched: dict[str, asyncio.Event] = {}
        self._clock = clock
        self._used_at = clock.monotonic()
        self._ending: asyncio.Task[NoReturn] | None = None
        first_look = threading.Timer(FIRST_USER_SECONDS, self._end_when_nobody_came)
        first_look.daemon = True
        first_look.start()

    async def renew(self, user: str, report: Report) -> Lease:
        """The lease that a share has from now on."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end_when_unused())
        self._used_at = self._clock.monotonic()
        lease = self._governing.renew(user, report)
        self._tell_the_called()
        return lease

    async def called(self, user: str) -> None:
        """Return when a share should renew its lease before it is due, or after a while."""
        if user in self._governing.called:
            return
        event = self._watched.setdefault(user, asyncio.Event())
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await event.wait()
        except TimeoutError:
            return
        finally:
            if self._watched.get(user) is event:
                del self._watched[user]

    async def leave(self, user: str, report: Report) -> None:
        """A share is not used any more."""
        self._governing.leave(user, report)
        self._tell_the_called()

    def _tell_the_called(self) -> None:
        for user in self._governing.called & self._watched.keys():
            self._watched[user].set()

    def _end_when_nobody_came(self) -> None:
        if self._ending is None:
            _end_process()

    async def _end_when_unused(self) -> NoReturn:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = self._clock.monotonic()
            if self._governing.users:
                self._used_at = now
            elif now >= self._used_at + UNUSED_SECONDS:
                await asyncio.to_thread(_end_process)


def governor_name(terms: Terms) -> str:
    """The name of the governor of these terms, which tells nothing of the key."""
    account = "\0".join((terms.provider, terms.key, terms.model or ""))
    return f"governor/{hashlib.sha256(account.encode()).hexdigest()[:16]}"


def _end_process() -> NoReturn:
    """Through Ray, which then starts no other; by force when Ray is gone."""
    try:
        ray.kill(ray.get_runtime_context().current_actor)
        time.sleep(_KILL_SECONDS)
    finally:
        os._exit(0)
