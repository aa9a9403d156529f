"""A provider whose limit nobody tells: it is found, used up, and hardly ever run into.

The real `Governing` and `Share` against a provider with token buckets, on a clock of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from raypool.config import RateLimit
from tests.capacity.simulation import Hidden, SimulatedPool, Turns, simulate

MINUTE = 60.0
END = 240.0
DEEP, SHALLOW = 60.0, 1.0


class Result(NamedTuple):
    """What pools came to together, from the end of the first minute on.

    Attributes:
        used: how much of the hidden limit, as a part of it.
        refused: how much of what was sent, likewise.
        refused_first: how many were refused in the first minute.
        parts: of each pool, how much of what was answered.
    """

    used: float
    refused: float
    refused_first: int
    parts: list[float]


def result_of(pools: list[SimulatedPool], hidden: Hidden) -> Result:
    counts = [pool.count(MINUTE, END) for pool in pools]
    answered = sum(count.answered for count in counts)
    refused = sum(count.refused for count in counts)
    minutes = (END - MINUTE) / 60
    return Result(
        used=max(
            answered / (hidden.requests * minutes),
            sum(count.tokens for count in counts) / (hidden.tokens * minutes),
        ),
        refused=refused / (answered + refused),
        refused_first=sum(pool.count(0.0, MINUTE).refused for pool in pools),
        parts=[count.answered / answered for count in counts],
    )


@pytest.mark.parametrize("pools", [1, 2], ids=["one pool", "two pools"])
@pytest.mark.parametrize(
    ("tells_retry_after", "tells_limits"),
    [(False, False), (True, False), (True, True)],
    ids=["silent", "retry-after", "headers"],
)
@pytest.mark.parametrize("depth", [DEEP, SHALLOW], ids=["deep", "shallow"])
@pytest.mark.parametrize("seconds", [0.05, 0.5, 5.0], ids="turns of {} s".format)
def test_hidden_limit_is_used_up_and_shared_evenly(
    seconds: float, depth: float, tells_retry_after: bool, tells_limits: bool, pools: int
) -> None:
    hidden = Hidden(600.0, 100_000.0, depth, tells_retry_after, tells_limits)

    crowd = simulate(
        hidden, seconds=END, pools=pools, slots=64 // pools, turns=Turns(seconds), seed=1
    )

    result = result_of(crowd, hidden)
    assert result.used >= 0.95
    assert result.refused < 0.01
    assert result.refused_first <= 100
    assert max(result.parts) <= 1.1 * min(result.parts)


@pytest.mark.parametrize("seconds", [0.05, 0.5, 5.0], ids="turns of {} s".format)
def test_limit_on_tokens_is_found_by_the_requests_that_it_lets_through(seconds: float) -> None:
    hidden = Hidden(600.0, 100_000.0, DEEP)

    crowd = simulate(hidden, seconds=END, turns=Turns(seconds, tokens=400.0), seed=1)

    result = result_of(crowd, hidden)
    assert result.used >= 0.95
    assert result.refused < 0.01


@pytest.mark.parametrize("seconds", [0.05, 0.5, 5.0], ids="turns of {} s".format)
def test_shallow_limit_on_tokens_is_used_though_turns_vary_in_size(seconds: float) -> None:
    """A second's worth is that of four turns, and every few hundredth turn is as large by itself.

    Sent by requests, 63 to 82 % of the limit were used.
    """
    hidden = Hidden(600.0, 100_000.0, SHALLOW)

    crowd = simulate(hidden, seconds=END, turns=Turns(seconds, tokens=400.0), seed=1)

    result = result_of(crowd, hidden)
    assert result.used >= 0.9
    assert result.refused < 0.01


@pytest.mark.parametrize("requests", [150.0, 250.0])
@pytest.mark.parametrize("seconds", [0.05, 5.0], ids="turns of {} s".format)
def test_shallow_limit_of_few_requests_is_used_up(seconds: float, requests: float) -> None:
    hidden = Hidden(requests, depth=SHALLOW)

    crowd = simulate(hidden, seconds=END, turns=Turns(seconds), seed=1)

    result = result_of(crowd, hidden)
    assert result.used >= 0.97
    assert result.refused < 0.01


@pytest.mark.parametrize(("before", "after"), [(600.0, 1200.0), (600.0, 300.0)])
def test_limit_that_changes_is_found_again(before: float, after: float) -> None:
    crowd = simulate(
        Hidden(before, depth=SHALLOW),
        seconds=280.0,
        turns=Turns(0.5),
        changes={120.0: Hidden(after, depth=SHALLOW)},
    )

    count = crowd[0].count(200.0, 280.0)
    assert count.answered >= 0.93 * after / 60 * 80
    assert count.refused_part < 0.01


def test_small_limit_is_shared_request_by_request() -> None:
    hidden = Hidden(50.0, depth=DEEP)

    crowd = simulate(hidden, seconds=END, pools=2, slots=32, turns=Turns(0.5), seed=1)

    result = result_of(crowd, hidden)
    assert result.used >= 0.95
    assert result.refused < 0.01
    assert max(result.parts) <= 1.1 * min(result.parts)


@pytest.mark.parametrize("seconds", [0.5, 5.0], ids="turns of {} s".format)
def test_configured_limit_is_used_up_from_the_start(seconds: float) -> None:
    limit = RateLimit(requests_per_minute=6000)

    [pool] = simulate(
        Hidden(6e9), seconds=6.0, slots=1000, turns=Turns(seconds), rate_limit=limit, seed=1
    )

    assert len(pool.sent) >= 0.95 * 100 * 6


def test_configured_limit_that_is_too_high_is_adapted_downwards_and_back_up() -> None:
    limit = RateLimit(requests_per_minute=1200)

    [pool] = simulate(
        Hidden(600.0, depth=SHALLOW),
        seconds=240.0,
        turns=Turns(0.5),
        rate_limit=limit,
        seed=1,
        changes={120.0: Hidden(6e9)},
    )

    below, above = pool.count(MINUTE, 120.0), pool.count(180.0, 240.0)
    assert below.answered >= 0.95 * 600
    assert below.refused_part < 0.01
    assert above.answered >= 0.95 * 1200


def test_server_without_a_limit_is_not_held_back_after_its_first_answers() -> None:
    crowd = simulate(Hidden(6e9), seconds=2.0, slots=16, turns=Turns(0.005, spread=0.1), seed=1)

    whole = crowd[0].count(1.0, 2.0).answered
    assert crowd[0].count(0.2, 0.4).answered >= 0.9 * whole / 5
