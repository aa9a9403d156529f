"""Which of many has the fewest, found without a look at each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable


class Loads:
    """How many tasks each of some workers has, by the workers' places in their order.

    A worker with the fewest is found by bisection, however many there are.
    """

    def __init__(self, loads: Iterable[int]) -> None:
        self._loads = list(loads)
        self._places: dict[int, list[int]] = {}
        for place, load in enumerate(self._loads):
            self._places.setdefault(load, []).append(place)
        self._fewest = min(self._places, default=0)

    def __len__(self) -> int:
        return len(self._loads)

    def change(self, place: int, load: int) -> None:
        """The worker at a place has so many from now on."""
        before = self._loads[place]
        places = self._places[before]
        del places[bisect_left(places, place)]
        if not places:
            del self._places[before]
        insort(self._places.setdefault(load, []), place)
        self._loads[place] = load
        if load < self._fewest:
            self._fewest = load
        elif self._fewest not in self._places:
            self._fewest = min(self._places)

    def place_of_fewest(self, start: int) -> int:
        """Where a worker is with the fewest: the first from `start` on, else from the beginning."""
        places = self._places[self._fewest]
        return places[bisect_left(places, start) % len(places)]
