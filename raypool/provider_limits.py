"""What a provider says of its limits as it answers."""

from __future__ import annotations

import msgspec


class Allowance(msgspec.Struct, frozen=True, array_like=True):
    """What may be used of one thing that a provider counts.

    Attributes:
        limit: how much in a minute.
        remaining: how much of it is left.
        reset_at: when all of it is there again, in seconds since the epoch.
    """

    limit: float
    remaining: float
    reset_at: float


class ProviderLimits(msgspec.Struct, frozen=True, array_like=True):
    """Each thing that a provider counts; `None` for what it does not tell.

    Attributes:
        requests: how many requests.
        input_tokens: tokens read.
        output_tokens: tokens written.
        tokens: both together.
    """

    requests: Allowance | None = None
    input_tokens: Allowance | None = None
    output_tokens: Allowance | None = None
    tokens: Allowance | None = None
