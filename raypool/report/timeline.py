"""What ended when, in spans of time that grow with what there is to show."""

from __future__ import annotations

from collections.abc import Iterable

from raypool.report.figures import Moment

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000

STEPS_MS = (
    *(SECOND * n for n in (1, 5, 10, 30)),
    *(MINUTE * n for n in (1, 5, 10, 30)),
    *(HOUR * n for n in (1, 3, 6, 12)),
    *(DAY * n for n in (1, 7, 28)),
)
"""The lengths of spans, each a multiple of the one before it."""

MOST_KEPT = 2_000
MOST_SHOWN = 180


class Timeline:
    """Adds up what ended by spans of time.

    It keeps 2,000 spans at most: when there are more, they become longer.
    """

    def __init__(self) -> None:
        self._level = 0
        self._moments: dict[int, Moment] = {}

    @property
    def step_ms(self) -> int:
        """The length of a span now; a moment to be added begins at a multiple of it."""
        return STEPS_MS[self._level]

    def add(self, moments: Iterable[Moment]) -> None:
        """Add what ended in spans of the length `step_ms`, or shorter."""
        for moment in moments:
            self._add(moment)
            if len(self._moments) > MOST_KEPT:
                self._coarsen()

    def moments(self) -> list[Moment]:
        """Every span from the first to the last, also those in which nothing ended: 180 at most."""
        if not self._moments:
            return []
        while self._length() > MOST_SHOWN and self._level < len(STEPS_MS) - 1:
            self._coarsen()
        spans = range(min(self._moments), max(self._moments) + 1, self.step_ms)
        return [self._moments.get(since, Moment(since)) for since in spans]

    def _length(self) -> int:
        return (max(self._moments) - min(self._moments)) // self.step_ms + 1

    def _coarsen(self) -> None:
        if self._level < len(STEPS_MS) - 1:
            self._level += 1
            finer, self._moments = self._moments, {}
            for moment in finer.values():
                self._add(moment)

    def _add(self, moment: Moment) -> None:
        since = moment.since // self.step_ms * self.step_ms
        there = self._moments.get(since, Moment(since))
        self._moments[since] = Moment(
            since,
            there.completed + moment.completed,
            there.failed + moment.failed,
            there.cancelled + moment.cancelled,
            there.input_tokens + moment.input_tokens,
            there.output_tokens + moment.output_tokens,
            there.cost_usd + moment.cost_usd,
        )
