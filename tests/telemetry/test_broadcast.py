"""Events for everybody who watches: each gets all, and none keeps another waiting."""

from __future__ import annotations

import asyncio

import pytest

from raypool.clock import FakeClock
from raypool.telemetry import Broadcast, TelemetryEvent
from raypool.telemetry.broadcast import FORGET_SECONDS

pytestmark = pytest.mark.asyncio


def event(turn: int) -> TelemetryEvent:
    return TelemetryEvent("prompt.start", 0, "crew", fields={"turn": turn})


def events(*turns: int) -> list[TelemetryEvent]:
    return [event(turn) for turn in turns]


class Stage:
    """A broadcast, its clock, and what it said of being watched."""

    def __init__(self, limit: int = 10_000) -> None:
        self.clock = FakeClock()
        self.said: list[bool] = []
        self.broadcast = Broadcast(self.clock, "crew", limit=limit)
        self.broadcast.when_watched(self.said.append)


class Listener:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.heard: list[TelemetryEvent] = []
        self.is_detached = False

    def put(self, event: TelemetryEvent) -> None:
        self.heard.append(event)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def broadcast(stage: Stage) -> Broadcast:
    return stage.broadcast


async def waiting_for(broadcast: Broadcast, reader: str) -> asyncio.Task[list[TelemetryEvent]]:
    """A `next` that has begun to wait."""
    task = asyncio.ensure_future(broadcast.next(reader, 60.0))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_every_reader_gets_every_event_once_and_in_order(broadcast: Broadcast) -> None:
    for reader in ("a", "b"):
        broadcast.subscribe(reader)

    broadcast.put(events(1, 2))
    broadcast.put(events(3))

    for reader in ("a", "b"):
        assert await broadcast.next(reader, 60.0) == events(1, 2, 3)
        assert await broadcast.next(reader, 0.0) == []


async def test_reader_gets_what_happens_after_it_came(broadcast: Broadcast) -> None:
    broadcast.put(events(1))
    broadcast.subscribe("a")
    broadcast.put(events(2))

    assert await broadcast.next("a", 60.0) == events(2)


async def test_subscribing_twice_loses_nothing(broadcast: Broadcast) -> None:
    broadcast.subscribe("a")
    broadcast.put(events(1))
    broadcast.subscribe("a")

    assert await broadcast.next("a", 60.0) == events(1)


async def test_waiting_reader_gets_what_comes_soon_after_the_first_along_with_it(
    broadcast: Broadcast,
) -> None:
    broadcast.subscribe("a")
    waiting = await waiting_for(broadcast, "a")

    broadcast.put(events(1))
    await asyncio.sleep(0.01)
    broadcast.put(events(2))

    assert await waiting == events(1, 2)


async def test_nothing_comes_when_time_runs_out(broadcast: Broadcast) -> None:
    broadcast.subscribe("a")

    assert await broadcast.next("a", 0.01) == []


async def test_reader_that_falls_behind_loses_the_oldest_and_is_told_how_many() -> None:
    broadcast = Stage(limit=2).broadcast
    for reader in ("slow", "quick"):
        broadcast.subscribe(reader)
    broadcast.put(events(1, 2))
    assert await broadcast.next("quick", 0.0) == events(1, 2)

    broadcast.put(events(3, 4))

    loss, *kept = await broadcast.next("slow", 0.0)
    assert (loss.name, loss.fields) == ("telemetry.dropped", {"count": 2, "where": "reader"})
    assert kept == events(3, 4)
    assert await broadcast.next("quick", 0.0) == events(3, 4)


async def test_reader_that_stays_away_is_forgotten(stage: Stage) -> None:
    stage.broadcast.subscribe("gone")
    stage.clock.advance(FORGET_SECONDS + 1)

    stage.broadcast.put(events(1))

    assert not stage.broadcast.is_watched
    assert stage.said == [True, False]


async def test_reader_that_was_forgotten_is_told_so_and_goes_on(stage: Stage) -> None:
    stage.broadcast.subscribe("a")
    stage.clock.advance(FORGET_SECONDS + 1)
    stage.broadcast.put(events(1))

    [loss] = await stage.broadcast.next("a", 60.0)
    stage.broadcast.put(events(2))

    assert (loss.name, loss.fields) == ("telemetry.dropped", {"where": "reader"})
    assert await stage.broadcast.next("a", 60.0) == events(2)


async def test_reader_that_comes_back_again_and_again_is_kept(stage: Stage) -> None:
    stage.broadcast.subscribe("a")
    for turn in range(5):
        stage.clock.advance(FORGET_SECONDS - 1)
        stage.broadcast.put(events(turn))
        assert await stage.broadcast.next("a", 0.0) == events(turn)


async def test_reader_that_waits_is_kept_however_long(stage: Stage) -> None:
    stage.broadcast.subscribe("a")
    waiting = await waiting_for(stage.broadcast, "a")
    stage.clock.advance(10 * FORGET_SECONDS)

    stage.broadcast.put(events(1))

    assert await waiting == events(1)


async def test_reader_that_leaves_is_forgotten_and_waits_no_longer(stage: Stage) -> None:
    stage.broadcast.subscribe("a")
    waiting = await waiting_for(stage.broadcast, "a")

    stage.broadcast.unsubscribe("a")
    stage.broadcast.unsubscribe("a")

    assert await waiting == []
    assert stage.said == [True, False]


async def test_being_watched_is_told_as_it_begins_and_as_it_ends(stage: Stage) -> None:
    for reader in ("a", "b"):
        stage.broadcast.subscribe(reader)
    assert stage.said == [True]

    stage.broadcast.unsubscribe("a")
    assert stage.broadcast.is_watched

    stage.broadcast.unsubscribe("b")
    assert stage.said == [True, False]


async def test_listener_hears_everything_until_it_is_detached(stage: Stage) -> None:
    listener = Listener()
    stage.broadcast.attach(listener)
    stage.broadcast.put(events(1))

    listener.is_detached = True
    stage.broadcast.put(events(2))

    assert listener.heard == events(1)
    assert stage.said == [True, False]


async def test_dispatcher_tells_of_what_happens_there(stage: Stage) -> None:
    listener = Listener()
    stage.broadcast.attach(listener)
    stage.clock.advance(7.0)

    stage.broadcast.emit("task.retried", worker="crew-1", role="chemist", task="a", attempts=1)

    assert listener.heard == [
        TelemetryEvent("task.retried", 7_000, "crew", "crew-1", "chemist", "a", {"attempts": 1})
    ]


async def test_nothing_is_kept_of_what_nobody_watches(broadcast: Broadcast) -> None:
    broadcast.emit("resumed", worker="crew-1")
    broadcast.put(events(1))

    broadcast.subscribe("a")

    assert await broadcast.next("a", 0.0) == []


async def test_settling_waits_for_readers_to_take_what_there_is(broadcast: Broadcast) -> None:
    broadcast.subscribe("a")
    broadcast.put(events(1))
    settling = asyncio.ensure_future(broadcast.settle(60.0))
    await asyncio.sleep(0)
    assert not settling.done()

    assert await broadcast.next("a", 60.0) == events(1)

    await asyncio.wait_for(settling, 5.0)


async def test_settling_waits_no_longer_than_told_and_not_for_nothing(
    broadcast: Broadcast,
) -> None:
    await broadcast.settle(60.0)
    broadcast.subscribe("a")
    await broadcast.settle(60.0)
    broadcast.put(events(1))

    await broadcast.settle(0.01)

    assert await broadcast.next("a", 60.0) == events(1)
