"""The user's handler: it gets everything, and can neither block nor break the dispatcher."""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

import pytest

from raypool.clock import FakeClock
from raypool.telemetry import HandlerThread, TelemetryEvent, check_handler

pytestmark = pytest.mark.timeout(30)


def event(turn: int) -> TelemetryEvent:
    return TelemetryEvent("prompt.start", 0, "crew", fields={"turn": turn})


async def asynchronous(event: TelemetryEvent) -> None:
    """A handler of a kind that cannot be called on a thread."""


class AsyncCall:
    """Another one."""

    async def __call__(self, event: TelemetryEvent) -> None:
        """Does nothing."""


class Slow:
    """Holds up the first event until it is told to go on."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.handled: list[TelemetryEvent] = []

    def __call__(self, event: TelemetryEvent) -> None:
        self.entered.set()
        self.go_on.wait()
        self.handled.append(event)


def started(handler: Any, limit: int = 10_000) -> HandlerThread:
    return HandlerThread(handler, FakeClock(), "crew", limit=limit)


def test_handler_gets_every_event_in_order_on_one_other_thread() -> None:
    handled: list[tuple[TelemetryEvent, int]] = []
    thread = started(lambda event: handled.append((event, threading.get_ident())))

    for turn in range(100):
        thread.put(event(turn))
    assert thread.close()

    assert [one for one, _ in handled] == [event(turn) for turn in range(100)]
    assert len({ident for _, ident in handled} - {threading.get_ident()}) == 1


def test_slow_handler_keeps_nobody_waiting_and_is_told_what_it_lost() -> None:
    handler = Slow()
    thread = started(handler, limit=3)
    thread.put(event(0))
    handler.entered.wait()

    for turn in range(1, 11):
        thread.put(event(turn))
    handler.go_on.set()
    thread.close()

    first, loss, *kept = handler.handled
    assert first == event(0)
    assert (loss.name, loss.fields) == ("telemetry.dropped", {"count": 7, "where": "handler"})
    assert kept == [event(turn) for turn in (8, 9, 10)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_handler_that_raises_is_detached_with_a_log_line(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[TelemetryEvent] = []

    def handle(event: TelemetryEvent) -> None:
        handled.append(event)
        raise error("no such column")

    thread = started(handle)
    thread.put(event(0))
    thread._thread.join()
    thread.put(event(1))
    assert thread.close()

    assert thread.is_detached
    assert handled == [event(0)]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "on_event handler of pool 'crew' raised" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def test_handler_is_attached_until_it_is_closed() -> None:
    thread = started(lambda event: None)
    assert not thread.is_detached

    thread.close()

    assert thread.is_detached


def test_closing_waits_no_longer_than_it_may() -> None:
    handler = Slow()
    thread = started(handler)
    thread.put(event(0))
    handler.entered.wait()

    assert not thread.close(timeout=0.01)

    handler.go_on.set()
    assert thread.close()


@pytest.mark.parametrize("handler", [print, [].append, functools.partial(print, "it"), Slow()])
def test_handler_may_be_whatever_is_called_with_one_event(handler: Any) -> None:
    check_handler(handler)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("print", "on_event must be a function that takes an event, got str"),
        (asynchronous, "write `def`, not `async def`"),
        (functools.partial(asynchronous), "write `def`, not `async def`"),
        (AsyncCall(), "write `def`, not `async def`"),
    ],
    ids=["text", "async", "async partial", "async call"],
)
def test_handler_of_another_kind_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_handler(handler)
