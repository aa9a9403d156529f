"""Leases by a clock that the test moves."""

from __future__ import annotations

import pytest

from raypool.backends.leases import Leases
from raypool.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def leases(clock: FakeClock) -> Leases:
    return Leases(clock, seconds=10.0)


def test_what_nobody_ever_leases_is_over_after_the_time_of_one_lease(
    leases: Leases, clock: FakeClock
) -> None:
    clock.advance(9.9)
    assert not leases.is_over

    clock.advance(0.1)
    assert leases.is_over


def test_a_lease_that_is_renewed_holds(leases: Leases, clock: FakeClock) -> None:
    for _ in range(5):
        leases.renew("a")
        clock.advance(9.0)

    assert not leases.is_over


def test_a_lease_that_is_not_renewed_runs_out(leases: Leases, clock: FakeClock) -> None:
    leases.renew("a")

    clock.advance(10.0)

    assert leases.is_over


def test_the_last_release_ends_it_at_once(leases: Leases) -> None:
    leases.renew("a")
    leases.renew("b")

    leases.release("a")
    assert not leases.is_over

    leases.release("b")
    assert leases.is_over


def test_one_user_that_renews_is_enough(leases: Leases, clock: FakeClock) -> None:
    leases.renew("killed")
    clock.advance(9.0)
    leases.renew("alive")
    clock.advance(9.0)

    assert not leases.is_over


def test_releasing_what_was_never_leased_does_no_harm(leases: Leases) -> None:
    leases.renew("a")

    leases.release("b")

    assert not leases.is_over
