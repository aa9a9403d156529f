"""Whether an agent takes tasks, and who has been told that it does not."""

from __future__ import annotations

from collections.abc import Callable

from raypool.unicode import unicode_text


class Halting:
    """An agent's halts.

    Attributes:
        reason: why it takes no more tasks; `None` while it does.
        on_halt: called as it halts.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.on_halt: Callable[[], None] = _do_nothing
        self._unreported: str | None = None
        self._owes_post_run = False

    @property
    def is_halted(self) -> bool:
        """Whether it takes no more tasks."""
        return self.reason is not None

    @property
    def is_reported(self) -> bool:
        """Whether the dispatcher was told of the last halt, or will be by what is on its way."""
        return self._unreported is None

    def halt(self, reason: str) -> bool:
        """Take no more tasks; false when it takes none already."""
        if self.is_halted:
            return False
        self.reason = self._unreported = unicode_text(reason)
        self._owes_post_run = True
        self.on_halt()
        return True

    def resume(self) -> None:
        """Take tasks again."""
        self.reason = self._unreported = None
        self._owes_post_run = False

    def take_report(self) -> str | None:
        """The reason of a halt that nobody was told of."""
        reason, self._unreported = self._unreported, None
        return reason

    def take_post_run(self) -> bool:
        """Whether `post_run` is due; once for each halt."""
        is_due, self._owes_post_run = self._owes_post_run, False
        return is_due


def _do_nothing() -> None:
    """Nobody wants to know."""
