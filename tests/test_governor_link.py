"""A pool's end of the line to its governor, beside governors that are not there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raypool import governor_link
from raypool.capacity.governing import Governing
from raypool.capacity.leases import Lease, Report
from raypool.clock import FakeClock
from raypool.config import RateLimit
from raypool.governor_link import GovernorLink
from raypool.messages import Terms

pytestmark = pytest.mark.asyncio


class Remote:
    """A method of an actor."""

    def __init__(self, method: Any) -> None:
        self.remote = method


class OneGovernor:
    """A governor that calls nobody."""

    def __init__(self, clock: FakeClock) -> None:
        self._governing = Governing(clock)
        self.renew = Remote(self._renew)
        self.called = Remote(self._called)
        self.leave = Remote(self._leave)

    async def _renew(self, user: str, report: Report) -> Lease:
        return self._governing.renew(user, report)

    async def _called(self, user: str) -> None:
        await asyncio.Event().wait()

    async def _leave(self, user: str, report: Report) -> None:
        self._governing.leave(user, report)


async def test_governor_that_dies_as_it_is_looked_for_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(governor_link, "AGAIN_SECONDS", 0.0)
    clock, leased = FakeClock(), asyncio.Event()
    link = GovernorLink(Terms(provider="p"), RateLimit(), clock, on_lease=leased.set)
    answers: list[Any] = [ValueError("Failed to look up actor"), OneGovernor(clock)]

    def find() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(link, "_find", find)
    link.start()

    async with asyncio.timeout(5):
        await leased.wait()

    assert link.share.status().has_lease
    await link.close()
