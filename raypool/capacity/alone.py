"""A share without other pools beside it: it governs itself."""

from __future__ import annotations

from raypool.capacity.governing import Governing
from raypool.capacity.share import Share
from raypool.clock import Clock
from raypool.config import RateLimit


def alone(clock: Clock, rate_limit: RateLimit | None = None) -> Share:
    """A share that has all that its own limit and the provider allow.

    For a backend whose limits no other pool shares; it needs no actor.
    """
    share = Share(clock, rate_limit)
    governing = Governing(clock)

    def renew() -> None:
        share.renew(governing.renew("alone", share.report()))

    share.urge = renew
    return share
