"""What became of the notices that a worker was sent, kept for who asks."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from raypool.messages import Notice, Outcome


class Answers:
    """The outcomes of notices; may be used from any thread.

    What was taken is confirmed by the next call of `take`; a dispatcher that dies before has its
    successor, which calls `begin_again`, be told once more.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._notices: dict[int, Notice] = {}
        self._ready: list[Outcome] = []
        self._taken: list[Outcome] = []
        self._asker = 0

    def expect(self, notice: Notice, outcome: Future[Outcome]) -> None:
        """Wait for what becomes of `notice`."""
        with self._changed:
            self._notices[notice.number] = notice
        outcome.add_done_callback(self._answer)

    def take(self) -> list[Outcome]:
        """The outcomes since the last call, as soon as there is one; none once another asks."""
        with self._changed:
            for outcome in self._taken:
                self._notices.pop(outcome.number, None)
            self._taken = []
            asker = self._asker
            self._changed.wait_for(lambda: self._ready or self._asker != asker)
            if self._asker != asker:
                return []
            self._taken, self._ready = self._ready, []
            return self._taken

    def begin_again(self) -> list[Notice]:
        """Have another ask from now on; the notices whose outcomes it will be told."""
        with self._changed:
            self._asker += 1
            self._ready = [*self._taken, *self._ready]
            self._taken = []
            self._changed.notify_all()
            return list(self._notices.values())

    def _answer(self, outcome: Future[Outcome]) -> None:
        with self._changed:
            self._ready.append(outcome.result())
            self._changed.notify_all()
