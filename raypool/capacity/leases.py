"""What a pool and the governor of its key say to each other."""

from __future__ import annotations

import math

import msgspec

from raypool.capacity.buckets import NOTHING, UNLIMITED, Rates


class Report(msgspec.Struct, frozen=True):
    """A share to its governor: what it has done, and what it wants.

    What is counted is counted since the share was made, so that a report that is lost or comes
    twice changes nothing.

    Attributes:
        limit: what its pool's `RateLimit` allows, in a second.
        is_adaptive: the provider's own limit is to be found.
        told: what the provider's headers say that it allows, in a second.
        held: the rates of the lease that it holds; nothing when that has run out.
        levels: what its buckets hold; less than nothing is debt.
        is_short: of which things more would have been sent, had there been more.
        sent: what was sent, by estimate until it is known.
        refused: how many exchanges of it were refused.
        refused_tokens: how many tokens these would have taken, by estimate.
        refused_epoch: the latest epoch in which one was sent that was refused.
        answered: how many exchanges were answered.
        seconds: how long these took together.
        closed_for: for how many seconds the provider wants nothing sent.
        epoch: that of its latest lease.
        found: what was found then of the provider's limit.
    """

    limit: Rates = UNLIMITED
    is_adaptive: bool = True
    told: Rates = UNLIMITED
    held: Rates = NOTHING
    levels: Rates = NOTHING
    is_short: tuple[bool, bool, bool, bool] = (False, False, False, False)
    sent: Rates = NOTHING
    refused: int = 0
    refused_tokens: float = 0.0
    refused_epoch: int = -1
    answered: int = 0
    seconds: float = 0.0
    closed_for: float = 0.0
    epoch: int = 0
    found: float = math.inf


class Lease(msgspec.Struct, frozen=True):
    """A governor to one share: how fast it may send, and for how long.

    Attributes:
        epoch: grows with every burst of refusals that slows the sending down.
        rates: how much the share may send in a second.
        request_size: how many requests its bucket holds.
        credit: what is put into its buckets at once, as far as it fits.
        seconds: how long the lease holds, counted from when the share asked for it.
        renew_in: after how many seconds to ask again.
        closed_for: for how many seconds nothing may be sent.
        limit: what all shares together may send in a second.
        found: how many turns of it are what refusals have shown; infinite while none has.
    """

    epoch: int
    rates: Rates
    request_size: float
    credit: Rates
    seconds: float
    renew_in: float
    closed_for: float
    limit: Rates
    found: float
