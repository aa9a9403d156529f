"""Quantiles of recent values."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.quantiles import FEWEST_VALUES, LAST_VALUES, RecentQuantiles


def of(values: list[float]) -> RecentQuantiles:
    quantiles = RecentQuantiles()
    for value in values:
        quantiles.add(value)
    return quantiles


def test_quantile_is_unknown_while_there_are_few_values() -> None:
    values = [1.0] * FEWEST_VALUES

    assert of(values[1:]).quantile(0.95) is None
    assert of(values).quantile(0.95) == 1.0


@pytest.mark.parametrize(("share", "value"), [(0.01, 1), (0.5, 50), (0.95, 95), (0.99, 99)])
def test_quantile_is_the_least_value_that_so_many_do_not_exceed(share: float, value: int) -> None:
    assert of([float(one) for one in range(100, 0, -1)]).quantile(share) == value


def test_only_the_last_values_count() -> None:
    quantiles = of([9.0] * LAST_VALUES)

    for _ in range(LAST_VALUES // 2 + 1):
        quantiles.add(1.0)

    assert quantiles.quantile(0.5) == 1.0
    assert quantiles.quantile(0.51) == 9.0


@given(
    st.lists(st.floats(0, 1e6), min_size=FEWEST_VALUES, max_size=60),
    st.integers(1, 99),
    st.integers(0, 30),
)
def test_quantile_is_that_of_the_values_sorted(
    values: list[float], percent: int, repeats: int
) -> None:
    last = deque(values * (repeats + 1), LAST_VALUES)

    quantile = of(values * (repeats + 1)).quantile(percent / 100)

    assert quantile == sorted(last)[math.ceil(percent * len(last) / 100) - 1]
