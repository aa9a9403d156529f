"""Finding how many requests a provider takes in a second, by what it refuses."""

from __future__ import annotations

import math

FIRST_RATE = 10.0
OPEN_ABOVE = 1_000.0
"""Requests a second that nobody need be held back from who has never been refused."""

LOWEST_RATE = 1 / 60
SHORTEST_TURN = 0.002
PAUSE_SECONDS = 0.25
PAUSE_REQUESTS = 2.0
LONGEST_PAUSE_SECONDS = 2.0
"""How long nothing is sent after a refusal that does not say how long.

Time for some requests that are larger than usual, where few are allowed, but not for ever.
"""

HALVED = 0.5
LOWERED = 0.85
"""What is left of the rate after refusals that do not tell the limit: of the first, of others."""

ENOUGH_ACCEPTED = 5
"""Requests between two bursts from which on the limit is reckoned by them."""

SURE = 0.01
UNSURE = 0.25
"""How far a ceiling may be off, as a part of it: at least and at most."""

USUAL_OVERSHOOT = 1.15
"""How far past the ceiling probing goes before it is refused, when the ceiling is right."""

BELOW = 0.01
RECOVERY_SECONDS = 4.0
"""After a burst, how far below the ceiling to begin, and for how long to come back to it."""

DOUBLING_SECONDS = 7.0
"""How long the step past the ceiling takes to double; the doubt in it is the first step."""

UNSURE_FULL_SPEED = 2.0


class Adaptive:
    """Sends faster while the answers are clean, and slower once for each burst of refusals.

    It begins at `first_rate` and doubles within the time of a turn, as long as it is what holds
    the sending back. From the first refusal on it knows a ceiling: the provider's bucket was
    empty then, and is empty at the next refusal, so what was accepted between the two is what the
    provider allows. It sends just below that, then at it, then probes past it, ever faster.

    Where tokens are what is limited, a request stands for so many tokens (`Binding`).

    Where a rate is stated it begins with that. A burst that cannot be reckoned by, since less was
    sent than might have been, takes at most half of what was known before.

    Attributes:
        rate: requests a second; infinite while nothing need hold them back.
        epoch: how many bursts of refusals there were.
    """

    def __init__(self, first_rate: float = FIRST_RATE) -> None:
        self.rate = first_rate
        self._known = min(first_rate, FIRST_RATE)
        self.epoch = 0
        self._ceiling: float | None = None
        self._doubt = UNSURE
        self._held_back = self._progress = 0.0
        self._since = 0.0
        self._accepted_then = 0.0
        self._seconds = self._count = self._highest = 0.0
        self._is_measured = False

    def adopt(self, epoch: int, rate: float) -> None:
        """Go on with what another has found, if it has found out more."""
        if epoch > self.epoch and rate < math.inf:
            self.epoch = epoch
            self._ceiling = self._known = self.rate = rate
            self._doubt = UNSURE / 4

    def trust(self, rate: float) -> None:
        """Somebody states what may be sent: before a refusal, it need not be approached."""
        if self._ceiling is None and rate > self.rate:
            self.rate = rate
            if rate < math.inf:
                self._known = rate

    @property
    def pause_seconds(self) -> float:
        """For how long nothing is to be sent after a refusal that does not say how long."""
        seconds = max(PAUSE_SECONDS, PAUSE_REQUESTS / self.rate)
        return min(seconds, LONGEST_PAUSE_SECONDS)

    def grow(self, seconds: float, answered: int, mean_seconds: float) -> None:
        """For so many seconds nothing but this rate has held the sending back."""
        if self._ceiling is not None:
            self._held_back += seconds
            self._progress += seconds * min(1.0, self.rate / self._full_speed)
            self.rate = self._ceiling * self._factor()
        elif answered:
            self.rate += answered * math.log(2) / max(mean_seconds, SHORTEST_TURN)
            if self.rate > OPEN_ABOVE:
                self.rate = math.inf

    def refuse(self, now: float, accepted: float, recent: float | None) -> None:
        """A burst of refusals has begun, at this rate.

        `accepted` are the requests that were not refused, since the beginning; `recent` is how
        many there were in a second, lately, where that is known.
        """
        self._seconds, self._count = now - self._since, accepted - self._accepted_then
        self._is_measured = (
            self._ceiling is not None
            and self._count >= ENOUGH_ACCEPTED
            and self._held_back >= 0.5 * (self._seconds - PAUSE_SECONDS) - 0.1
        )
        if self._is_measured:
            self._highest = self.rate
        else:
            rate = min(self.rate, self._known if recent is None else max(recent, 1.0))
            self._highest = max(rate * self._lowering, min(self.rate, self._known) * HALVED)
        self.epoch += 1
        self._since, self._accepted_then = now, accepted
        self._held_back = self._progress = 0.0
        self._set_ceiling()

    def doubt(self) -> None:
        """What was found may be far off: probe past it with large steps."""
        if self._ceiling is not None:
            self._doubt = UNSURE
            self.rate = self._ceiling * self._factor()

    def refuse_more(self, count: float) -> None:
        """So many more were refused of those that were sent before the burst was known."""
        self._accepted_then -= count
        if self._ceiling is not None:
            self._count -= count
            self._set_ceiling()

    @property
    def _lowering(self) -> float:
        return HALVED if self._ceiling is None else LOWERED

    def _set_ceiling(self) -> None:
        if self._is_measured:
            count = max(self._count, 1.0)
            self._ceiling = max(min(count / self._seconds, self._highest), LOWEST_RATE)
            gap = self._highest / self._ceiling - USUAL_OVERSHOOT
            self._doubt = min(max(1.5 / count, gap / 2, SURE), UNSURE)
        else:
            self._ceiling = max(self._highest, LOWEST_RATE)
            self._doubt = UNSURE
        self._known = self._ceiling
        self.rate = self._ceiling * self._factor()

    @property
    def _full_speed(self) -> float:
        """The rate from which on probing goes by time; below, it goes by requests.

        A burst of refusals must come after many answers, where the ceiling is known.
        """
        return FIRST_RATE if self._doubt < UNSURE else UNSURE_FULL_SPEED

    def _factor(self) -> float:
        """How far from the ceiling the rate is, by how long it has held the sending back."""
        recovery = RECOVERY_SECONDS * (1 - self._doubt / UNSURE)
        if self._progress < recovery:
            return 1 - (self._doubt + BELOW) * (1 - self._progress / recovery)
        doublings = (self._progress - recovery) / DOUBLING_SECONDS
        return 1 + self._doubt * (math.exp2(min(doublings, 50.0)) - 1)
