"""The circuit breaker: when nothing is sent any more, and what closes it."""

from __future__ import annotations

import pytest

from raypool.capacity.breaker import LONGEST_WAIT_SECONDS, Breaker
from raypool.clock import FakeClock

BAD_KEY = ("authentication_error", "invalid x-api-key")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock)


def opened(breaker: Breaker) -> Breaker:
    assert [breaker.fail(*BAD_KEY) for _ in range(3)] == [False] * 3
    return breaker


def test_third_fatal_failure_in_a_row_opens_it(breaker: Breaker) -> None:
    breaker.fail(*BAD_KEY)
    breaker.fail(*BAD_KEY)
    assert not breaker.is_open

    breaker.fail(*BAD_KEY)

    assert breaker.is_open


def test_success_in_between_begins_the_row_anew(breaker: Breaker) -> None:
    for _ in range(5):
        breaker.fail(*BAD_KEY)
        breaker.fail(*BAD_KEY)
        breaker.succeed()

    assert not breaker.is_open
    assert breaker.why is None


def test_it_says_why_and_what_to_do(breaker: Breaker) -> None:
    assert opened(breaker).why == (
        "sending has stopped after 3 fatal errors in a row, the last one: authentication_error: "
        "invalid x-api-key; what waits stays. Mend the cause and call pool.resume_sending(); "
        "one task is tried in 30 s"
    )


def test_what_was_sent_before_the_opening_and_fails_is_kept(breaker: Breaker) -> None:
    opened(breaker)

    assert breaker.fail(*BAD_KEY)


def test_probe_may_be_sent_after_half_a_minute_and_only_one(
    breaker: Breaker, clock: FakeClock
) -> None:
    assert opened(breaker).opens_in() == 30.0
    clock.advance(30.0)
    assert breaker.opens_in() == 0.0

    breaker.begin_probe()

    assert breaker.opens_in() is None


def test_success_of_the_probe_closes_it(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(30.0)
    breaker.begin_probe()

    breaker.succeed()

    assert not breaker.is_open
    assert breaker.opens_in() == 0.0


def test_each_failed_probe_doubles_the_wait_up_to_ten_minutes(
    breaker: Breaker, clock: FakeClock
) -> None:
    opened(breaker)
    waits = []
    for _ in range(7):
        wait = breaker.opens_in()
        assert wait is not None
        waits.append(wait)
        clock.advance(wait)
        breaker.begin_probe()
        assert breaker.fail(*BAD_KEY, is_probe=True)

    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, LONGEST_WAIT_SECONDS]


def test_late_failure_of_another_task_does_not_end_the_probe(
    breaker: Breaker, clock: FakeClock
) -> None:
    opened(breaker)
    clock.advance(30.0)
    breaker.begin_probe()

    assert breaker.fail(*BAD_KEY)

    assert breaker.opens_in() is None


def test_probe_that_says_nothing_is_followed_by_another(breaker: Breaker, clock: FakeClock) -> None:
    opened(breaker)
    clock.advance(30.0)
    breaker.begin_probe()

    breaker.end_probe()

    assert breaker.opens_in() == 0.0


def test_it_is_closed_by_hand_and_counts_anew(breaker: Breaker) -> None:
    opened(breaker).close()

    assert not breaker.is_open
    breaker.fail(*BAD_KEY)
    breaker.fail(*BAD_KEY)
    assert not breaker.is_open


def test_openings_and_closings_are_told_once_each(breaker: Breaker, clock: FakeClock) -> None:
    told: list[str | None] = []
    breaker.on_change = told.append

    opened(breaker)
    breaker.fail(*BAD_KEY)
    clock.advance(30.0)
    breaker.begin_probe()
    breaker.fail(*BAD_KEY, is_probe=True)
    breaker.succeed()
    breaker.succeed()
    breaker.close()

    assert told == ["authentication_error", None]
