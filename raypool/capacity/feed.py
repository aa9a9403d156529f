"""How many turns a share of a provider's limits lets through."""

from __future__ import annotations

from raypool.capacity.share import Share


class ShareFeed:
    """What a share feeds, in turns like those that it has sent so far."""

    def __init__(self, share: Share) -> None:
        self._share = share

    @property
    def turns_per_second(self) -> float:
        """By what the pool has when that is too little, else by what all pools have together.

        A lease follows what a pool has sent, so it says nothing of what it could have.
        """
        status = self._share.status()
        rates = status.rates if status.is_short else status.limit
        requests = status.sent.requests
        if requests <= 0:
            return rates.requests
        return min(
            rate * requests / sent
            for rate, sent in zip(rates, status.sent, strict=True)
            if sent > 0
        )

    @property
    def mean_turn_seconds(self) -> float | None:
        """How long an exchange took, on average; `None` while none was answered."""
        status = self._share.status()
        return status.seconds / status.answered if status.answered else None
