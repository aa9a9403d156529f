"""Whether a worker may be sent a task now, as far as capacity goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from raypool.clock import Clock
from raypool.messages import Outcome
from raypool.task_record import TaskRecord

REFUSED_SECONDS = 0.5


@dataclass(slots=True, kw_only=True, eq=False)
class Reservation:
    """What is set aside for one exchange of a task; each gate makes a kind of its own.

    Attributes:
        is_probe: it is sent to find out whether any task can succeed.
    """

    is_probe: bool = False


class Gate(Protocol):
    """What stands between the lines and the workers that share provider, key and model."""

    @property
    def is_wide_open(self) -> bool:
        """Nothing limits what is sent now: `reserve` need not be asked."""

    @property
    def is_broken(self) -> bool:
        """No request can succeed now: a task that meets with a fatal failure goes back in line."""

    @property
    def why(self) -> str | None:
        """Why nothing is sent, for a person; `None` while something may be."""

    def reserve(self, record: TaskRecord) -> bool:
        """Whether there is room for one more exchange of the task.

        It is set aside then, as `record.reserved`, until `settle` is called.
        """

    def hold(self, record: TaskRecord) -> None:
        """Set aside, room or not, what an exchange of the task takes that is under way."""

    def opens_in(self) -> float | None:
        """Seconds until those may have room for whom `reserve` had none since `wake`.

        `None` when nobody was turned away, or that is not a matter of time alone.
        """

    def wake(self) -> None:
        """Time has passed: whoever was turned away asks again."""

    def settle(self, record: TaskRecord, outcome: Outcome | None) -> None:
        """An attempt of the task has ended: put what it took in place of what was set aside.

        It is called once for each attempt that was sent, whether or not something is set aside
        for it. With an outcome that `is_returned` nothing was taken; without an outcome nobody
        knows (the worker has died).
        """


class OpenGate:
    """A gate that limits nothing."""

    is_wide_open = True
    is_broken = False
    why = None

    def reserve(self, record: TaskRecord) -> bool:
        return True

    def hold(self, record: TaskRecord) -> None:
        return None

    def opens_in(self) -> float | None:
        return None

    def wake(self) -> None:
        return None

    def settle(self, record: TaskRecord, outcome: Outcome | None) -> None:
        return None


class ClosingGate:
    """A gate that is closed after a refusal, for as long as the provider asks."""

    is_broken = False
    why = None

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed_until = 0.0

    @property
    def is_wide_open(self) -> bool:
        """It is not closed."""
        return self.opens_in() is None

    def reserve(self, record: TaskRecord) -> bool:
        return self.is_wide_open

    def hold(self, record: TaskRecord) -> None:
        return None

    def opens_in(self) -> float | None:
        seconds = self._closed_until - self._clock.monotonic()
        return seconds if seconds > 0 else None

    def wake(self) -> None:
        return None

    def settle(self, record: TaskRecord, outcome: Outcome | None) -> None:
        failure = outcome.failure if outcome is not None else None
        if failure is not None and failure.verdict == "refused":
            seconds = failure.retry_after or REFUSED_SECONDS
            self._closed_until = max(self._closed_until, self._clock.monotonic() + seconds)
