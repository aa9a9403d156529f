"""How many tasks a worker may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.window import MAX_PREFETCH, MIN_PREFETCH, PREFETCH_SECONDS, Window


def paced(window: Window, per_second: float, seconds: float = 1.0) -> Window:
    """Have the worker of `window` end tasks at an even pace, in batches 10 ms apart."""
    for tick in range(int(seconds * 100)):
        window.ended(round(per_second / 100), tick / 100)
    return window


def test_new_worker_gets_what_it_runs_and_two_to_go_on_with() -> None:
    assert Window(1).room(held=0) == 1 + MIN_PREFETCH
    assert Window(64).room(held=0) == 64 + MIN_PREFETCH


def test_slow_worker_gets_one_task_for_each_that_ends() -> None:
    window = Window(1)
    for second in range(5):
        window.ended(1, float(second))

    assert window.room(held=3) == 0
    assert window.room(held=2) == 1


def test_fast_worker_holds_what_it_ends_in_a_short_time() -> None:
    window = paced(Window(1), per_second=2_000)

    assert window.prefetch == pytest.approx(2_000 * PREFETCH_SECONDS, rel=0.02)


def test_fast_worker_is_sent_nothing_until_half_of_its_prefetch_is_used() -> None:
    window = paced(Window(1), per_second=2_000)
    full, half = 1 + window.prefetch, (window.prefetch + 1) // 2

    assert window.room(held=full - half + 1) == 0
    assert window.room(held=full - half) == half


def test_window_follows_a_worker_that_becomes_slow() -> None:
    window = paced(Window(1), per_second=2_000)

    for second in range(2, 30):
        window.ended(1, float(second))

    assert window.prefetch == MIN_PREFETCH


def test_fast_worker_that_had_nothing_to_do_for_a_while_is_as_fast_as_before() -> None:
    window = paced(Window(1), per_second=2_000)
    prefetch = window.prefetch

    window.rest()
    for tick in range(3):
        window.ended(20, 60.0 + tick / 100)

    assert window.prefetch == pytest.approx(prefetch, rel=0.02)


def test_prefetch_has_an_end() -> None:
    assert paced(Window(1), per_second=10_000_000).prefetch == MAX_PREFETCH


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_mailbox_limit_is_never_exceeded(limit: int) -> None:
    window = paced(Window(4, limit), per_second=10_000_000)

    assert window.prefetch == limit
    assert window.room(held=0) == 4 + limit


def test_worker_that_holds_more_than_its_window_gets_nothing() -> None:
    assert Window(1).room(held=600) == 0


@given(
    concurrency=st.integers(1, 1000),
    limit=st.none() | st.integers(1, 1000),
    per_second=st.integers(0, 10**7),
)
def test_worker_never_runs_dry_and_is_never_overfilled(
    concurrency: int, limit: int | None, per_second: int
) -> None:
    window = paced(Window(concurrency, limit), per_second, seconds=0.1)
    most = concurrency + (MAX_PREFETCH if limit is None else min(limit, MAX_PREFETCH))

    for held in range(concurrency + 1):
        assert held + window.room(held) >= concurrency + 1
    for held in range(most + 2):
        assert window.room(held) == 0 or held + window.room(held) <= most


def test_tasks_that_others_may_have_too_are_sent_ahead_to_fast_workers_alone() -> None:
    fast, slow = paced(Window(4), per_second=2_000), paced(Window(4), per_second=30)

    assert fast.late_prefetch(waiting=10_000, workers=2) == pytest.approx(40, abs=1)
    assert slow.late_prefetch(waiting=10_000, workers=2) == 0
    assert Window(4).late_prefetch(waiting=10_000, workers=2) == 0


@pytest.mark.parametrize(("waiting", "most"), [(160, 10), (15, 0), (0, 0)])
def test_no_worker_is_sent_more_ahead_than_a_quarter_of_its_part_of_what_waits(
    waiting: int, most: int
) -> None:
    window = paced(Window(1), per_second=2_000)

    assert window.late_prefetch(waiting, workers=4) == most


def test_worker_behind_a_gate_is_sent_what_it_runs_at_once_and_no_more() -> None:
    window = paced(Window(4), per_second=2_000)

    assert window.room(held=1, prefetches=False) == 3
    assert window.room(held=9, prefetches=False) == 0


def test_one_short_turn_among_long_ones_has_nothing_given_out_before_its_time() -> None:
    window = Window(1)
    for second in range(5):
        window.ended(1, float(second))

    window.ended(1, 4.01)

    assert window.late_prefetch(1_000, 10) == 0
