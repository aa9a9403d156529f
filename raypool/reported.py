"""What a worker has told of tasks that it has ended, until it knows that it was heard."""

from __future__ import annotations

from collections.abc import Iterable

from raypool.messages import Assignment, HeldTask, Outcome

MOST_KEPT = 20_000


class Reported:
    """The last `most` tasks that have ended here for good.

    The outcome of each is kept until the dispatcher confirms that it has dealt with it: one that
    dies before may have its successor ask for it again. Belongs to one event loop.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._ended: dict[int, tuple[Assignment, Outcome] | None] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._ended

    def note(self, work: Assignment, outcome: Outcome) -> None:
        """A task has ended."""
        self._ended[outcome.number] = (work, outcome)
        if len(self._ended) > self._most:
            del self._ended[next(iter(self._ended))]

    def confirm(self, numbers: Iterable[int]) -> None:
        """The dispatcher has dealt with what these tasks have come to."""
        for number in numbers:
            if number in self._ended:
                self._ended[number] = None

    @property
    def unconfirmed(self) -> list[HeldTask]:
        """The tasks of whose end the dispatcher may not have heard."""
        return [HeldTask.of(kept[0]) for kept in self._ended.values() if kept is not None]

    def again(self, number: int) -> Outcome | None:
        """What was told of a task, unless that is confirmed."""
        kept = self._ended.get(number)
        return None if kept is None else kept[1]
