"""Buckets: at most one second's worth more than the rate gives, in any window."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.capacity.buckets import Bucket


def test_bucket_holds_one_second_of_its_rate() -> None:
    bucket = Bucket(10.0, now=0.0)

    for number in range(10):
        assert bucket.has(1, 5.0)
        bucket.take(1, number, 5.0)

    assert not bucket.has(1, 5.0)


def test_amount_larger_than_the_bucket_leaves_debt_that_is_paid_first() -> None:
    bucket = Bucket(10.0, now=0.0)

    bucket.take(35, 1, 0.0)

    assert bucket.level == -25
    assert bucket.opens_in(5, 0.0) == pytest.approx(3.0)
    assert not bucket.has(5, 2.9)
    assert bucket.has(5, 3.0)


def test_amount_larger_than_the_bucket_waits_until_it_is_full() -> None:
    bucket = Bucket(10.0, now=0.0)
    bucket.take(5, 1, 0.0)

    assert not bucket.has(35, 0.4)
    assert bucket.has(35, 0.5)


def test_what_a_turn_used_beyond_its_estimate_is_debt() -> None:
    bucket = Bucket(10.0, now=0.0)
    bucket.take(10, 1, 0.0)

    bucket.settle(-20, 1, 0.0)

    assert bucket.level == -20


def test_what_a_turn_did_not_use_is_given_back() -> None:
    bucket = Bucket(10.0, now=0.0)
    bucket.take(10, 1, 0.0)

    bucket.settle(6, 1, 0.0)

    assert bucket.level == 6


def test_what_would_have_overflowed_meanwhile_is_not_given_back() -> None:
    bucket = Bucket(10.0, now=0.0)
    bucket.take(10, 1, 0.0)
    bucket.take(10, 2, 1.0)

    bucket.settle(10, 1, 1.0)

    assert bucket.level == 0


def test_slower_bucket_loses_what_it_cannot_hold() -> None:
    bucket = Bucket(10.0, now=0.0)

    bucket.change(4.0, 0.0)

    assert bucket.level == 4


def test_faster_bucket_gets_nothing_at_once() -> None:
    bucket = Bucket(10.0, now=0.0)

    bucket.change(40.0, 0.0)

    assert bucket.level == 10


def test_bucket_that_had_no_limit_begins_empty() -> None:
    bucket = Bucket(math.inf, now=0.0)
    bucket.take(500, 1, 0.0)

    bucket.change(10.0, 0.0)
    bucket.settle(500, 1, 0.0)

    assert bucket.level == 0


def test_paused_bucket_fills_after_the_pause_alone() -> None:
    bucket = Bucket(10.0, now=0.0)
    bucket.drain(0.0)

    bucket.pause(5.0, 0.0)

    assert bucket.fill(4.0) == 0
    assert bucket.fill(5.5) == 5


amounts = st.integers(1, 40)
steps = st.lists(
    st.tuples(
        st.floats(0, 3), amounts, st.floats(0, 1), st.integers(0, 5), st.sampled_from([5.0, 10.0])
    ),
    min_size=1,
    max_size=60,
)


@given(steps, st.booleans())
def test_in_any_window_goes_out_what_the_contract_allows(
    steps: list[tuple[float, int, float, int, float]], has_changes: bool
) -> None:
    """w + 1 seconds' worth, and what the last turn has beyond the bucket's size.

    Of each turn that counts what it used in the end; it never uses more than was set aside.
    """
    bucket, now = Bucket(10.0, now=0.0), 0.0
    sent: list[list[float]] = []
    under_way: list[tuple[float, int, float, int]] = []
    for number, (seconds, amount, part, later, rate) in enumerate(steps, start=1):
        now += seconds
        if has_changes:
            bucket.change(rate, now)
        while under_way and under_way[0][0] <= number:
            _, settled, unused, place = under_way.pop(0)
            bucket.settle(unused, settled, now)
            sent[place][1] -= unused
        if bucket.has(amount, now):
            bucket.take(amount, number, now)
            beyond = max(0.0, amount - bucket.size)
            sent.append([now, amount, beyond])
            under_way.append((number + later, number, amount * part, len(sent) - 1))
            under_way.sort()

    for place, (start, _, _) in enumerate(sent):
        totals = accumulate(amount for _, amount, _ in sent[place:])
        for total, (end, _, beyond) in zip(totals, sent[place:], strict=True):
            assert total <= 10.0 * (end - start + 1) + beyond + 1e-6
