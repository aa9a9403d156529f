"""Who listens to the workers, and in which order they hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raypool import listening
from raypool.clock import FakeClock
from raypool.link import WorkerGone
from raypool.listening import Listening
from raypool.telemetry import Broadcast, TelemetryEvent

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(30)]


class FakeLink:
    """A worker whose first calls take longest, as control calls may overtake each other.

    Attributes:
        delays: how long each call of `watch` takes, in order.
        is_watched: what the call that ended last has said.
        is_dead: its process is gone.
    """

    def __init__(self, *delays: float) -> None:
        self.delays = list(delays)
        self.is_watched = False
        self.is_dead = False

    async def watch(self, is_watched: bool) -> None:
        if self.is_dead:
            raise WorkerGone("gone")
        await asyncio.sleep(self.delays.pop(0) if self.delays else 0.0)
        self.is_watched = is_watched

    async def telemetry(self) -> AsyncIterator[list[TelemetryEvent]]:
        await asyncio.Event().wait()
        yield []


def listen_to(link: FakeLink) -> tuple[Listening, Broadcast]:
    broadcast = Broadcast(FakeClock(), "crew")
    links: Any = {"crew-1": link}
    return Listening(links, broadcast), broadcast


async def test_reader_who_comes_as_the_last_one_leaves_is_told_of() -> None:
    link = FakeLink(0.0, 0.05, 0.0)
    hears, broadcast = listen_to(link)
    broadcast.subscribe("mine")
    await hears.settle()

    broadcast.unsubscribe("mine")
    broadcast.subscribe("yours")
    await hears.settle()

    assert link.is_watched


async def test_worker_ceases_when_nobody_watches() -> None:
    link = FakeLink()
    hears, broadcast = listen_to(link)
    broadcast.subscribe("mine")

    broadcast.unsubscribe("mine")
    await hears.settle()

    assert not link.is_watched


async def test_worker_with_a_new_process_is_watched_again() -> None:
    link = FakeLink()
    hears, broadcast = listen_to(link)
    link.is_dead = True
    broadcast.subscribe("mine")
    await hears.settle()
    link.is_dead = False

    hears.join("crew-1")
    await hears.settle()

    assert link.is_watched


async def test_worker_that_does_not_answer_holds_no_reader_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "SETTLE_SECONDS", 0.01)
    hears, broadcast = listen_to(FakeLink(20.0))
    broadcast.subscribe("mine")

    async with asyncio.timeout(5.0):
        await hears.settle()
