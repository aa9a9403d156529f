"""What a refusal takes of a rate, beside what was known of it before."""

from __future__ import annotations

import math

import pytest

from raypool.capacity.adaptive import FIRST_RATE, Adaptive

SPARSE = 0.05
"""Requests a second that tell nothing of a limit of many more."""


def test_refusal_amid_sparse_requests_takes_at_most_half_of_the_first_rate() -> None:
    adaptive = Adaptive()

    adaptive.refuse(1000.0, accepted=50.0, recent=SPARSE)

    assert FIRST_RATE / 2 <= adaptive.rate < FIRST_RATE


def test_refusal_amid_sparse_requests_takes_at_most_half_of_what_was_found() -> None:
    adaptive = Adaptive()
    adaptive.refuse(10.0, accepted=400.0, recent=40.0)
    found = adaptive.rate

    adaptive.refuse(1000.0, accepted=450.0, recent=SPARSE)

    assert found / 2 <= adaptive.rate < found


def test_refusal_before_anything_is_known_of_what_is_sent_takes_half_of_what_is_stated() -> None:
    adaptive = Adaptive()
    adaptive.trust(100.0)

    adaptive.refuse(0.1, accepted=20.0, recent=None)

    assert adaptive.rate == pytest.approx(50.0)


def test_server_that_was_never_known_to_limit_is_sent_half_the_first_rate_after_a_refusal() -> None:
    adaptive = Adaptive(first_rate=math.inf)

    adaptive.refuse(1000.0, accepted=50.0, recent=SPARSE)

    assert adaptive.rate == pytest.approx(FIRST_RATE / 2)


def test_limit_that_has_become_far_smaller_is_still_found_by_a_few_bursts() -> None:
    adaptive = Adaptive()
    adaptive.refuse(10.0, accepted=400.0, recent=40.0)

    for burst in range(1, 7):
        adaptive.refuse(10.0 + 20 * burst, accepted=400.0 + 10 * burst, recent=0.5)

    assert adaptive.rate <= 1.0


def test_what_is_stated_after_a_refusal_is_not_believed() -> None:
    adaptive = Adaptive()
    adaptive.refuse(10.0, accepted=400.0, recent=40.0)
    found = adaptive.rate

    adaptive.trust(1000.0)

    assert adaptive.rate == found
