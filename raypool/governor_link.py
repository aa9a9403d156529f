"""A pool's end of the line to the governor of its key."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from raypool.capacity.alone import LoneShare
from raypool.capacity.share import Share
from raypool.clock import Clock
from raypool.config import RateLimit
from raypool.governor import NAMESPACE, Governor, governor_name
from raypool.messages import Terms

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 0.2
LEAVE_SECONDS = 2.0


class GovernorLink:
    """Keeps the lease of one share renewed, from a task on this event loop.

    A governor that dies is found or made again, and sending goes on meanwhile for as long as the
    lease holds. When nothing is heard for longer, sending stops until a governor answers: others
    may have been leased the same by then.

    Attributes:
        share: what asks whether a turn may be sent.
    """

    def __init__(
        self,
        terms: Terms,
        rate_limit: RateLimit,
        clock: Clock,
        *,
        on_lease: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = governor_name(terms)
        self._user = uuid.uuid4().hex
        self._urged = asyncio.Event()
        self._on_lease = on_lease
        self._governor: Any = None
        self._watching: asyncio.Future[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.share = Share(clock, rate_limit, urge=self._urged.set)

    def start(self) -> None:
        """Begin to renew the lease."""
        self._renewing = asyncio.ensure_future(self._keep_renewed())

    async def close(self) -> None:
        """Give the lease back; a governor that does not hear of it waits until it runs out."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        if self._watching is not None:
            self._watching.cancel()
        if self._governor is None or not ray.is_initialized():
            return
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._governor.leave.remote(self._user, self.share.report())

    async def _keep_renewed(self) -> None:
        while True:
            self._urged.clear()
            try:
                await self._renew()
            except (RayError, TimeoutError, ValueError) as error:
                # A ValueError is Ray's when one of that name dies as it is looked for.
                logger.info("the governor of the rate limit does not answer: %s", error)
                self._governor = None
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._on_lease()
            self._watch()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.share.renews_in):
                    await self._urged.wait()

    async def _renew(self) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            if self._governor is None:
                self._governor = await asyncio.to_thread(self._find)
            self.share.renew(await self._governor.renew.remote(self._user, self.share.report()))

    def _find(self) -> Any:
        """The governor; several that ask at once get the same one."""
        options = ray.remote(Governor).options(
            name=self._name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
        )
        return options.remote(self.share.status().has_lease)

    def _watch(self) -> None:
        """Have the governor call when the lease is to be renewed at once."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.ensure_future(self._await_call(self._governor))

    async def _await_call(self, governor: Any) -> None:
        with contextlib.suppress(RayError):
            await governor.called.remote(self._user)
        self._urged.set()


class GovernorLinks:
    """A pool's shares of all limits that its turns have.

    `on_lease` is called when more may be sent than before. Turns that go to no provider have a
    share that no other pool is part of, and no governor.
    """

    def __init__(self, clock: Clock, on_lease: Callable[[], None]) -> None:
        self._clock = clock
        self._on_lease = on_lease
        self._links: list[GovernorLink] = []

    def share(self, terms: Terms, rate_limit: RateLimit) -> Share:
        """A new share of what limits turns on these terms; its lease comes in a moment."""
        if not terms.provider:
            return LoneShare(self._clock, rate_limit)
        link = GovernorLink(terms, rate_limit, self._clock, on_lease=self._on_lease)
        link.start()
        self._links.append(link)
        return link.share

    async def close(self) -> None:
        """Give all leases back."""
        await asyncio.gather(*(link.close() for link in self._links))
