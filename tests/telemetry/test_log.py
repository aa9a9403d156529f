"""A worker's events on their way: few batches, and nobody waits for those who read."""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from raypool.clock import FakeClock, SystemClock
from raypool.telemetry import EventLog, TelemetryEvent, decode_events

pytestmark = pytest.mark.timeout(30)


class Unreadable(FakeClock):
    """A clock that nobody may read."""

    def time(self) -> float:
        raise AssertionError("the time was read")


def log(limit: int = 10_000) -> EventLog:
    """A log that is watched."""
    made = EventLog(FakeClock(7.0), pool="crew", worker="crew-1", role="chemist", limit=limit)
    made.watch(True)
    return made


def emit(log: EventLog, *turns: int) -> None:
    for turn in turns:
        log.emit("prompt.start", task="a", turn=turn)


def turns(events: list[TelemetryEvent]) -> list[int]:
    return [event.fields["turn"] for event in events]


def read(batches: Iterator[bytes]) -> list[TelemetryEvent]:
    """All that comes until the log is closed."""
    return [event for batch in batches for event in decode_events(batch)]


def test_event_says_whose_it_is() -> None:
    watched = log()
    emit(watched, 1)
    watched.close()

    assert read(watched.batches()) == [
        TelemetryEvent("prompt.start", 7_000, "crew", "crew-1", "chemist", "a", {"turn": 1})
    ]


def test_nothing_is_done_while_nobody_watches() -> None:
    unwatched = EventLog(Unreadable(), pool="crew", worker="crew-1", role="chemist")

    emit(unwatched, 1)
    unwatched.close()

    assert read(unwatched.batches()) == []


def test_event_that_nobody_watches_takes_less_than_a_microsecond() -> None:
    unwatched = EventLog(SystemClock(), pool="crew", worker="crew-1", role="chemist")

    def emit_one() -> None:
        unwatched.emit("prompt.stop", task="a", turn=1, duration_ms=1.5)

    seconds = min(timeit.repeat(emit_one, timer=time.process_time, number=10_000, repeat=10))

    assert seconds / 10_000 < 1e-6


def test_what_came_before_the_watch_began_or_after_it_ended_is_not_told() -> None:
    watched = log()
    emit(watched, 1)
    watched.watch(False)
    emit(watched, 2)
    watched.watch(True)
    emit(watched, 3)
    watched.close()

    assert turns(read(watched.batches())) == [3]


def test_batch_holds_what_came_in_the_meantime() -> None:
    watched = log()
    batches = watched.batches()
    emit(watched, 1)
    threading.Timer(0.01, emit, (watched, 2, 3)).start()

    assert turns(decode_events(next(batches))) == [1, 2, 3]


def test_reader_waits_for_the_first_event() -> None:
    watched = log()
    with ThreadPoolExecutor(1) as aside:
        first = aside.submit(next, watched.batches())
        assert not first.done()

        emit(watched, 1)

        assert turns(decode_events(first.result())) == [1]


def test_close_ends_the_batches_of_a_reader_that_waits() -> None:
    watched = log()
    with ThreadPoolExecutor(1) as aside:
        reading = aside.submit(read, watched.batches())

        watched.close()

        assert reading.result() == []


def test_newest_reader_gets_the_events_and_the_one_before_ends() -> None:
    watched = log()
    with ThreadPoolExecutor(2) as aside:
        before = aside.submit(read, watched.batches())
        now = aside.submit(read, watched.batches())
        emit(watched, 1)
        assert before.result() == []

        watched.close()

        assert turns(now.result()) == [1]


def test_oldest_events_are_dropped_and_counted() -> None:
    watched = log(limit=3)
    emit(watched, *range(10))
    watched.close()

    loss, *kept = read(watched.batches())

    assert loss == TelemetryEvent(
        "telemetry.dropped", 7_000, "crew", fields={"count": 7, "where": "worker"}
    )
    assert turns(kept) == [7, 8, 9]


def test_loss_is_told_once() -> None:
    watched = log(limit=1)
    emit(watched, 1, 2)
    batches = watched.batches()
    next(batches)

    emit(watched, 3)

    assert turns(decode_events(next(batches))) == [3]


def test_events_of_many_threads_all_arrive_each_threads_in_order() -> None:
    watched = log()
    threads, count = 8, 1_000

    with ThreadPoolExecutor(threads + 1) as aside:
        reading = aside.submit(read, watched.batches())
        emitting = [
            aside.submit(emit, watched, *range(start, start + count))
            for start in range(0, threads * count, count)
        ]
        for one in emitting:
            one.result()
        watched.close()

    seen = turns(reading.result())
    assert sorted(seen) == list(range(threads * count))
    assert all(
        [turn for turn in seen if turn // count == thread]
        == list(range(thread * count, (thread + 1) * count))
        for thread in range(threads)
    )
