"""Which of requests and tokens a provider limits, by the size of what it refuses."""

from __future__ import annotations

from raypool.capacity.buckets import Rates

LARGER = 0.3
"""By how much of the usual size what is refused is larger, from which on that speaks for tokens."""

LARGEST = 1.5
"""The most that one burst can speak for them."""

SURE = 1.0
"""How much must speak for the other thing, before that is what is limited."""

FADING = 0.9
"""What is left, after a burst, of the weight of what was accepted before it."""


class Binding:
    """Finds out whether tokens are what a provider limits; requests are, until it shows.

    Where requests are limited, what is refused is of the usual size. Where tokens are, a large
    request is refused rather than a small one. What is not limited is not held back either.

    Attributes:
        tokens_per_turn: where tokens are limited, how many count as a turn; else `None`.
    """

    def __init__(self) -> None:
        self.tokens_per_turn: float | None = None
        self._evidence = 0.0
        self._requests = self._tokens = 0.0

    @property
    def kind(self) -> int:
        """What is limited, by its place among `Rates`."""
        return Rates._fields.index("requests" if self.tokens_per_turn is None else "tokens")

    def turns(self, requests: float, tokens: float) -> float:
        """How many turns so much counts as."""
        return requests if self.tokens_per_turn is None else tokens / self.tokens_per_turn

    def rates(self, turns: float) -> Rates:
        """What a limit of so many turns in a second is."""
        if self.tokens_per_turn is None:
            return Rates(turns)
        return Rates(tokens=turns * self.tokens_per_turn)

    def accept(self, requests: float, tokens: float) -> None:
        """So much was not refused."""
        self._requests += requests
        self._tokens += tokens

    def refuse(self, requests: float, tokens: float) -> bool:
        """A burst of refusals has begun with these; whether it changes what is limited.

        With no tokens it is not known how large they were.
        """
        if min(requests, tokens, self._requests, self._tokens) <= 0:
            return False
        usual = self._tokens / self._requests
        excess = min(tokens / requests / usual - 1, LARGEST)
        self._evidence = max(-SURE, min(SURE, self._evidence + excess - LARGER))
        self._requests *= FADING
        self._tokens *= FADING
        before = self.kind
        if self._evidence == -SURE:
            self.tokens_per_turn = None
        elif self._evidence == SURE and self.tokens_per_turn is None:
            self.tokens_per_turn = usual
        return self.kind != before
