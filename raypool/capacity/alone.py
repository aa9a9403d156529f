"""A share without other pools beside it: it governs itself."""

from __future__ import annotations

import math

from raypool.capacity.governing import Governing
from raypool.capacity.share import Share
from raypool.clock import Clock
from raypool.config import RateLimit


class LoneShare(Share):
    """A share that has all that its own limit and the provider allow.

    For a backend whose limits no other pool shares; it needs no actor. Nobody is known to limit
    such a backend: nothing is held back before the first refusal.
    """

    def __init__(self, clock: Clock, rate_limit: RateLimit | None = None) -> None:
        super().__init__(clock, rate_limit, urge=self._renew_now)
        self._governing = Governing(clock, first_rate=math.inf)
        self._renew_now()

    @property
    def is_limiting(self) -> bool:
        # What limits is taken from, and that renews the lease.
        if self._limiting:
            return True
        if self._has_never_closed:
            return False
        if not self.renews_in:
            self._renew_now()
        return super().is_limiting

    def _renew_now(self) -> None:
        self.renew(self._governing.renew("alone", self.report()))
