"""What a provider says of its limits as it answers."""

from __future__ import annotations

import msgspec

NEARLY_USED_UP = 0.1


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


class LimitNews:
    """Finds what is news in what a provider repeats with every answer.

    News is a limit that is new or has changed, or of which less than a tenth remains, and
    whatever is said with a refusal.
    """

    def __init__(self) -> None:
        self._known: list[float | None] = []

    def of(self, limits: ProviderLimits, *, is_refused: bool) -> ProviderLimits | None:
        """`limits` where any of them is news."""
        told = (limits.requests, limits.input_tokens, limits.output_tokens, limits.tokens)
        known = [None if one is None else one.limit for one in told]
        is_new, self._known = known != self._known, known
        is_short = any(one and one.remaining < one.limit * NEARLY_USED_UP for one in told)
        return limits if is_new or is_short or is_refused else None
