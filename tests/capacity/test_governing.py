"""Several shares of one limit: whatever they do, together they keep it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypool.capacity.adaptive import FIRST_RATE, PAUSE_SECONDS
from raypool.capacity.governing import LEASE_SECONDS, RENEW_SECONDS, Governing
from raypool.capacity.share import Share
from raypool.clock import FakeClock
from raypool.config import RateLimit
from raypool.provider_limits import Allowance, ProviderLimits


class Crowd:
    """Shares of one limit, whose leases are renewed when they are due, urged or called upon."""

    def __init__(self, count: int, limit: RateLimit, *, first_rate: float = FIRST_RATE) -> None:
        self.clock = FakeClock(100.0)
        self.governing = Governing(self.clock, first_rate=first_rate)
        self.limit = limit
        self.shares: dict[str, Share] = {}
        self.urged: set[str] = set()
        for number in range(count):
            self.join(str(number))

    def join(self, name: str) -> Share:
        self.shares[name] = Share(self.clock, self.limit, urge=lambda: self.urged.add(name))
        self.renew(name)
        return self.shares[name]

    def leave(self, name: str) -> None:
        self.governing.leave(name, self.shares.pop(name).report())

    def renew(self, name: str) -> None:
        self.urged.discard(name)
        share = self.shares[name]
        share.renew(self.governing.renew(name, share.report()))

    def renew_what_is_due(self) -> None:
        due = {name for name, share in self.shares.items() if not share.renews_in}
        for name in sorted(due | self.urged | self.governing.called):
            if name in self.shares:
                self.renew(name)

    def send_all(
        self, seconds: float, *, step: float = 0.01, tokens: float = 0.0
    ) -> dict[str, int]:
        """How much each sends that always has something to send."""
        counts = dict.fromkeys(self.shares, 0)
        for _ in range(round(seconds / step)):
            for name, share in self.shares.items():
                while share.take(tokens, tokens) is not None:
                    counts[name] += 1
            self.renew_what_is_due()
            self.clock.advance(step)
        return counts


def fixed(requests: float, tokens: float | None = None) -> RateLimit:
    return RateLimit(
        requests_per_minute=requests * 60,
        input_tokens_per_minute=None if tokens is None else tokens * 60,
        adaptive=False,
    )


moves = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "renew", "leave", "join", "die"]),
        st.integers(0, 3),
        st.floats(0, 2.0),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=80,
)


@settings(deadline=None)
@given(moves, st.sampled_from([0.3, 1.0, 4.0, 20.0]))
def test_shares_together_send_no_more_requests_than_the_contract_allows(
    moves: list[tuple[str, int, float, int]], rate: float
) -> None:
    """In any window of w seconds w + 1 seconds' worth, or one request more than w seconds' worth.

    It does not matter who sends, joins, leaves or dies meanwhile, nor when leases are renewed.
    """
    crowd, sent = Crowd(2, fixed(rate)), []
    for act, number, seconds, count in moves:
        name = str(number)
        crowd.clock.advance(seconds)
        if act == "join" and name not in crowd.shares:
            crowd.join(name)
        elif name in crowd.shares and act == "leave":
            crowd.leave(name)
        elif name in crowd.shares and act == "die":
            del crowd.shares[name]
        elif name in crowd.shares and act == "renew":
            crowd.renew_what_is_due()
        elif name in crowd.shares:
            taken = [crowd.shares[name].take(0, 0) for _ in range(count)]
            sent += [crowd.clock.monotonic()] * sum(one is not None for one in taken)

    for place, start in enumerate(sent):
        for count, end in enumerate(sent[place:], start=1):
            assert count <= rate * (end - start) + max(1.0, rate) + 1e-6


@settings(deadline=None)
@given(moves)
def test_shares_together_send_no_more_tokens_than_the_contract_allows(
    moves: list[tuple[str, int, float, int]],
) -> None:
    """A turn that is larger than the bucket of its share may put each share into debt once."""
    rate = 20.0
    crowd = Crowd(4, fixed(1_000.0, rate))
    sent: list[tuple[float, int, int]] = []
    for act, number, seconds, tokens in moves:
        crowd.clock.advance(seconds)
        if act == "send" and crowd.shares[str(number)].take(tokens, 0) is not None:
            sent.append((crowd.clock.monotonic(), tokens, number))
        crowd.renew_what_is_due()

    for place, (start, _, _) in enumerate(sent):
        total, last = 0, {}
        for end, tokens, number in sent[place:]:
            total += tokens
            last[number] = tokens
            assert total <= rate * (end - start + 1) + sum(last.values()) + 1e-6


@pytest.mark.parametrize("rate", [0.5, 2.0, 30.0], ids="{} per second".format)
def test_shares_that_are_short_get_equal_parts_of_all_there_is(rate: float) -> None:
    crowd = Crowd(3, fixed(rate))

    counts = crowd.send_all(60.0, step=0.05)

    assert sum(counts.values()) >= 0.95 * rate * 60
    assert max(counts.values()) - min(counts.values()) <= max(2, 0.1 * rate * 60 / 3)


def test_one_that_sends_little_leaves_the_rest_to_the_others() -> None:
    crowd = Crowd(2, fixed(10.0))
    modest = crowd.shares.pop("1")

    counts = 0
    for _ in range(40):
        counts += crowd.send_all(0.5)["0"]
        modest.take(0, 0)
        modest.renew(crowd.governing.renew("1", modest.report()))

    assert counts >= 0.7 * 10.0 * 20


def test_part_of_a_share_that_leaves_goes_to_the_others_at_once() -> None:
    crowd = Crowd(2, fixed(10.0))
    crowd.send_all(5.0)

    crowd.leave("1")

    assert crowd.send_all(5.0)["0"] >= 45


def test_part_of_a_share_that_is_not_heard_of_goes_to_the_others_after_its_lease() -> None:
    crowd = Crowd(2, fixed(10.0))
    crowd.send_all(5.0)
    del crowd.shares["1"]

    held = crowd.send_all(LEASE_SECONDS - RENEW_SECONDS)["0"]
    crowd.send_all(2 * RENEW_SECONDS)

    assert held <= 5.5 * (LEASE_SECONDS - RENEW_SECONDS) + 5
    assert crowd.send_all(5.0)["0"] >= 45


def test_strictest_limit_of_the_pools_that_are_present_holds() -> None:
    crowd = Crowd(1, fixed(10.0))
    crowd.limit = fixed(4.0)
    crowd.join("strict")
    crowd.send_all(2.0)

    assert sum(crowd.send_all(10.0).values()) <= 4.0 * 11
    crowd.leave("strict")
    crowd.send_all(2.0)
    assert crowd.send_all(10.0)["0"] >= 95


def test_new_governor_leases_no_more_than_is_held_until_all_old_leases_have_run_out() -> None:
    crowd = Crowd(2, fixed(10.0))
    crowd.send_all(3.0)

    crowd.governing = Governing(crowd.clock, is_replacement=True)
    crowd.renew("0")

    assert crowd.shares["0"].status().rates.requests == pytest.approx(5.0)
    assert crowd.join("new").status().rates.requests == 0
    assert sum(crowd.send_all(LEASE_SECONDS).values()) <= 10.0 * (LEASE_SECONDS + 1)


def test_share_without_a_governor_stops_when_its_lease_has_run_out() -> None:
    crowd = Crowd(1, fixed(10.0))
    share = crowd.shares["0"]

    crowd.clock.advance(LEASE_SECONDS - 0.01)
    assert share.take(0, 0) is not None
    crowd.clock.advance(0.01)

    assert share.take(0, 0) is None


def test_retry_after_stops_all_pools_for_exactly_so_long() -> None:
    crowd = Crowd(2, RateLimit())
    ticket = crowd.shares["0"].take(0, 0)

    crowd.shares["0"].settle(ticket, verdict="refused", retry_after=7.5)
    crowd.renew_what_is_due()
    crowd.renew_what_is_due()

    for _ in range(7):
        crowd.clock.advance(1.0)
        crowd.renew_what_is_due()
    crowd.clock.advance(0.499)
    crowd.renew_what_is_due()
    assert [share.take(0, 0) for share in crowd.shares.values()] == [None, None]
    crowd.clock.advance(0.001)
    crowd.renew_what_is_due()
    crowd.renew_what_is_due()
    assert any(share.take(0, 0) for share in crowd.shares.values())


def test_nothing_is_sent_until_the_reset_when_nothing_remains() -> None:
    crowd = Crowd(1, RateLimit())
    share = crowd.shares["0"]
    reset = crowd.clock.time() + 3.0

    share.settle(
        share.take(0, 0), limits=ProviderLimits(requests=Allowance(600.0, 0.0, reset)), seconds=0.1
    )

    assert sum(crowd.send_all(2.99).values()) == 0
    assert sum(crowd.send_all(1.0).values()) > 0


def test_limits_that_headers_tell_are_kept_from_the_first_answer_on() -> None:
    crowd = Crowd(2, RateLimit())
    share = crowd.shares["0"]
    told = ProviderLimits(requests=Allowance(300.0, 250.0, crowd.clock.time() + 10))

    share.settle(share.take(0, 0), limits=told, seconds=0.1)
    crowd.send_all(1.0)

    assert sum(crowd.send_all(20.0).values()) == pytest.approx(5.0 * 0.98 * 20, rel=0.05)


def test_burst_of_refusals_slows_the_sending_down_once() -> None:
    crowd = Crowd(2, RateLimit())
    crowd.send_all(2.0)
    crowd.clock.advance(0.5)
    tickets = [(share, share.take(0, 0)) for share in crowd.shares.values() for _ in range(2)]
    assert all(ticket for _, ticket in tickets)

    for share, ticket in tickets:
        share.settle(ticket, verdict="refused")
        crowd.renew_what_is_due()

    assert crowd.governing.renew("0", crowd.shares["0"].report()).epoch == 1


def test_refusals_of_what_was_sent_while_nothing_was_limited_are_one_burst() -> None:
    crowd = Crowd(1, RateLimit(), first_rate=math.inf)
    share = crowd.shares["0"]
    assert not share.is_limiting

    for _ in range(64):
        share.settle(None, verdict="refused")
        crowd.renew_what_is_due()

    assert crowd.governing.renew("0", share.report()).epoch == 1


def test_refusal_without_retry_after_is_followed_by_a_pause() -> None:
    crowd = Crowd(1, RateLimit())
    share = crowd.shares["0"]

    share.settle(share.take(0, 0), verdict="refused")
    crowd.renew_what_is_due()

    assert sum(crowd.send_all(PAUSE_SECONDS - 0.05).values()) == 0


def test_pools_that_want_no_adapting_are_held_to_what_they_say_alone() -> None:
    crowd = Crowd(1, RateLimit(adaptive=False))
    share = crowd.shares["0"]

    share.settle(share.take(0, 0), verdict="refused")
    crowd.renew_what_is_due()

    assert not share.is_limiting
