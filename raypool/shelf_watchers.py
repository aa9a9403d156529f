"""Who waits for the tasks of a shelf, in next to no memory where one client asked for many."""

from __future__ import annotations

from bisect import bisect_right

Watcher = tuple[str, int]
"""A client, and the ticket by which it knows the task's future."""


class _Run:
    """Tasks of one client whose tickets grow as their numbers do.

    Attributes:
        client: who waits for them.
        offset: a task's ticket less its number.
        streams: their text is wanted as it is generated.
        first: the first of their numbers.
        last: the last of their numbers.
    """

    __slots__ = ("client", "first", "last", "offset", "streams")

    def __init__(self, client: str, offset: int, number: int, *, streams: bool) -> None:
        self.client = client
        self.offset = offset
        self.streams = streams
        self.first = self.last = number

    def is_of(self, client: str, offset: int, *, streams: bool) -> bool:
        return self.client == client and self.offset == offset and self.streams == streams


def _first(run: _Run) -> int:
    return run.first


class ShelfWatchers:
    """The watchers of the tasks of one shelf, by number.

    The tasks of a client that come one after the other are one entry, however many they are.
    """

    def __init__(self) -> None:
        # By number, and no two overlap. A number within a run that is asked for is of the run.
        self._runs: list[_Run] = []
        self._others: dict[int, list[Watcher]] = {}
        self._streamed: set[int] = set()

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._runs) + len(self._others)

    def add(self, number: int, watcher: Watcher, *, after: int, streams: bool = False) -> None:
        """Have `watcher` wait for the last task of the shelf, which comes next `after` that one."""
        client, ticket = watcher
        run = self._runs[-1] if self._runs else None
        offset = ticket - number
        if run is not None and run.last == after and run.is_of(client, offset, streams=streams):
            run.last = number
        else:
            self._runs.append(_Run(client, offset, number, streams=streams))

    def watch(self, number: int, watcher: Watcher, *, streams: bool = False) -> None:
        """Have `watcher` wait for a task of the shelf, whoever else does; once is enough."""
        client, ticket = watcher
        place = bisect_right(self._runs, number, key=_first)
        before = self._runs[place - 1] if place else None
        offset = ticket - number
        if before is not None and number <= before.last:
            self._watch_too(number, watcher, before)
            if streams:
                self._streamed.add(number)
        elif (
            before is not None
            and before.last == number - 1
            and before.is_of(client, offset, streams=streams)
        ):
            before.last = number
        else:
            self._runs.insert(place, _Run(client, offset, number, streams=streams))

    def of(self, number: int) -> tuple[list[Watcher], bool]:
        """Who waits for a task of the shelf, and whether its text is wanted as it comes."""
        run = self._run_of(number)
        watchers = [] if run is None else [(run.client, number + run.offset)]
        streams = number in self._streamed or (run is not None and run.streams)
        return watchers + self._others.get(number, []), streams

    def forget_up_to(self, number: int) -> None:
        """Nobody will ask for a number up to that one."""
        done = 0
        while done < len(self._runs) and self._runs[done].last <= number:
            done += 1
        del self._runs[:done]
        for one in [one for one in self._others if one <= number]:
            del self._others[one]
        self._streamed = {one for one in self._streamed if one > number}

    def _watch_too(self, number: int, watcher: Watcher, run: _Run) -> None:
        others = self._others.setdefault(number, [])
        if watcher not in (*others, (run.client, number + run.offset)):
            others.append(watcher)
        if not others:
            del self._others[number]

    def _run_of(self, number: int) -> _Run | None:
        place = bisect_right(self._runs, number, key=_first)
        run = self._runs[place - 1] if place else None
        return run if run is not None and number <= run.last else None
