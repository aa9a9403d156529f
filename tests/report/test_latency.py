"""Durations, counted: quantiles, and how they are spread."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.report.latency import FEWEST_BARS, MOST_BARS, Durations, Latency

THREE_DIGITS = st.builds(
    lambda digits, power: float(f"{digits}e{power}"),
    st.integers(100, 999),
    st.integers(-4, 4),
)


def counted(values: list[float]) -> Durations:
    durations = Durations()
    for value, count in Counter(values).items():
        durations.add(value, count)
    return durations


def test_quantiles_are_nearest_ranks() -> None:
    assert counted([float(n) for n in range(1, 101)]).latency() == Latency(100, 50, 90, 95, 99, 100)


def test_single_duration_is_every_quantile() -> None:
    assert counted([7.5]).latency() == Latency(1, 7.5, 7.5, 7.5, 7.5, 7.5)


def test_without_durations_there_is_nothing_to_tell() -> None:
    assert Durations().latency() == Latency()
    assert Durations().bars() == []


@given(st.lists(THREE_DIGITS, min_size=1))
def test_quantiles_are_those_of_the_sorted_list(values: list[float]) -> None:
    ordered = sorted(values)

    latency = counted(values).latency()

    for share, found in ((0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99)):
        assert found == ordered[math.ceil(round(share * len(values), 6)) - 1]
    assert latency.longest == ordered[-1]


@given(st.lists(THREE_DIGITS, min_size=1))
def test_every_duration_is_in_one_of_few_adjoining_bars(values: list[float]) -> None:
    bars = counted(values).bars()

    assert sum(bar.count for bar in bars) == len(values)
    assert FEWEST_BARS <= len(bars) <= MOST_BARS
    assert bars[0].low <= min(values) * 1.001
    assert bars[-1].high >= max(values) * 0.999
    for bar, following in itertools.pairwise(bars):
        assert bar.high == pytest.approx(following.low)


def test_turns_that_took_no_time_have_a_bar() -> None:
    assert sum(bar.count for bar in counted([0.0, 0.0]).bars()) == 2
