"""Fair parts: as much as each wants, as long as nobody gets less than an equal part for it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.capacity.allocation import fair_parts

demands = st.lists(st.one_of(st.floats(0, 1e6), st.just(math.inf)), min_size=1, max_size=20)


def test_all_that_are_short_get_equal_parts() -> None:
    assert fair_parts(12.0, [math.inf, math.inf, math.inf]) == [4.0, 4.0, 4.0]


def test_what_one_does_not_want_goes_to_those_who_are_short() -> None:
    assert fair_parts(12.0, [2.0, math.inf, math.inf]) == [2.0, 5.0, 5.0]


def test_what_nobody_wants_is_parted_equally() -> None:
    assert fair_parts(12.0, [2.0, 4.0]) == [5.0, 7.0]


def test_one_alone_gets_all() -> None:
    assert fair_parts(12.0, [0.0]) == [12.0]


@given(st.floats(0, 1e6), demands)
def test_parts_come_to_the_whole(total: float, demands: list[float]) -> None:
    assert sum(fair_parts(total, demands)) == pytest.approx(total)


@given(st.floats(0, 1e6), demands)
def test_nobody_gets_less_than_it_wants_and_less_than_an_equal_part(
    total: float, demands: list[float]
) -> None:
    parts = fair_parts(total, demands)

    equal = total / len(demands)
    for part, demand in zip(parts, demands, strict=True):
        assert part >= min(demand, equal) * (1 - 1e-9)
