"""How many turns a rate limit lets through."""

from __future__ import annotations

import math

import pytest

from raypool.capacity.alone import LoneShare
from raypool.capacity.feed import ShareFeed
from raypool.clock import FakeClock
from raypool.config import RateLimit


def test_nothing_limits_what_has_no_limit() -> None:
    feed = ShareFeed(LoneShare(FakeClock(), RateLimit(adaptive=False)))

    assert feed.turns_per_second == math.inf
    assert feed.mean_turn_seconds is None


def test_limit_on_requests_is_turns_a_second() -> None:
    share = LoneShare(FakeClock(), RateLimit(requests_per_minute=120, adaptive=False))

    assert ShareFeed(share).turns_per_second == pytest.approx(2.0)


def test_limit_on_tokens_feeds_turns_like_those_so_far() -> None:
    limit = RateLimit(requests_per_minute=6_000, output_tokens_per_minute=6_000, adaptive=False)
    share = LoneShare(FakeClock(), limit)
    feed = ShareFeed(share)

    for _ in range(2):
        ticket = share.take(10, 50)
        share.settle(ticket, input_tokens=10, output_tokens=25, seconds=3.0)

    assert feed.turns_per_second == pytest.approx(100 / 25)
    assert feed.mean_turn_seconds == pytest.approx(3.0)
