"""An outage: while nobody can be reached, one task is tried now and then."""

from __future__ import annotations

import pytest

from raypool.capacity.outage import (
    FIRST_PATIENCE_SECONDS,
    PATIENCE_SECONDS,
    TALKING_SECONDS,
    Outage,
)
from raypool.clock import FakeClock
from raypool.config import RetryPolicy

NOBODY = ("ConnectError", "could not connect to http://host: Connection refused")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def outage(clock: FakeClock) -> Outage:
    return Outage(clock, RetryPolicy(initial_seconds=0.5, max_seconds=8.0))


def probe(outage: Outage, clock: FakeClock) -> float:
    """Wait until a probe may be sent, and have it find nobody; how long that was."""
    seconds = outage.opens_in()
    clock.advance(seconds)
    outage.begin_probe()
    outage.miss(*NOBODY, is_probe=True)
    return seconds


def test_first_request_that_finds_nobody_begins_it(outage: Outage) -> None:
    outage.miss(*NOBODY)

    assert outage.is_open
    assert outage.opens_in() == 0.5


def test_waits_between_probes_double_up_to_the_longest(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)

    assert [probe(outage, clock) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_minute_without_anybody_takes_few_probes(clock: FakeClock) -> None:
    outage = Outage(clock)
    outage.miss(*NOBODY)
    started, probes = clock.monotonic(), 0
    while clock.monotonic() < started + 60.0:
        probe(outage, clock)
        probes += 1

    assert probes == 7


def test_what_was_sent_before_neither_ends_nor_prolongs_it(outage: Outage) -> None:
    outage.miss(*NOBODY)

    outage.miss(*NOBODY)
    outage.reach()

    assert outage.is_open
    assert outage.opens_in() == 0.5


def test_probes_that_come_back_together_count_once(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)
    probe(outage, clock)

    outage.begin_probe()
    outage.miss(*NOBODY, is_probe=True)

    assert outage.opens_in() == 1.0


def test_probe_that_is_answered_ends_it(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)
    clock.advance(0.5)
    outage.begin_probe()

    outage.reach(is_probe=True)

    assert not outage.is_open
    assert outage.why is None


def test_only_one_probe_is_out(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)
    clock.advance(0.5)
    assert outage.opens_in() == 0.0

    outage.begin_probe()

    assert outage.opens_in() == TALKING_SECONDS


def test_probe_that_takes_longer_than_to_connect_has_reached_somebody(
    outage: Outage, clock: FakeClock
) -> None:
    outage.miss(*NOBODY)
    clock.advance(0.5)
    outage.begin_probe()
    clock.advance(TALKING_SECONDS)

    outage.wake()

    assert not outage.is_open


def test_probe_that_says_nothing_is_followed_by_another(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)
    clock.advance(0.5)
    outage.begin_probe()

    outage.end_probe()

    assert outage.opens_in() == 0.0


def test_next_one_begins_with_short_waits(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)
    for _ in range(5):
        probe(outage, clock)
    outage.close()

    outage.miss(*NOBODY)

    assert outage.opens_in() == 0.5


def test_it_says_since_when_why_and_what_comes_next(outage: Outage, clock: FakeClock) -> None:
    outage.miss(*NOBODY)
    for _ in range(4):
        probe(outage, clock)

    assert outage.why == (
        "the provider has been out of reach for 8 s, and is waited for: ConnectError: could not "
        "connect to http://host: Connection refused; one task is tried in 8 s"
    )


@pytest.mark.parametrize(
    ("was_reached", "patience"), [(False, FIRST_PATIENCE_SECONDS), (True, PATIENCE_SECONDS)]
)
def test_address_where_nobody_ever_answered_is_given_up_sooner(
    outage: Outage, clock: FakeClock, was_reached: bool, patience: float
) -> None:
    if was_reached:
        outage.reach()
    since = clock.monotonic()
    outage.miss(*NOBODY)

    clock.advance(patience - 1)
    assert not outage.exhausts(since)
    clock.advance(1)
    assert outage.exhausts(since)


def test_nothing_is_given_up_that_has_not_been_tried_or_can_be_reached(
    outage: Outage, clock: FakeClock
) -> None:
    since = clock.monotonic()
    outage.miss(*NOBODY)
    clock.advance(PATIENCE_SECONDS)
    assert not outage.exhausts(None)

    outage.close()

    assert not outage.exhausts(since)


def test_beginning_and_end_are_told_once_each(outage: Outage, clock: FakeClock) -> None:
    told: list[str | None] = []
    outage.on_change = told.append

    outage.miss(*NOBODY)
    probe(outage, clock)
    outage.reach(is_probe=True)
    outage.close()

    assert told == ["ConnectError", None]
