"""Every exception that raypool raises.

RaypoolError
├── PoolStartError
├── PoolStopped
├── PoolFull
├── InvalidTask (a ValueError)
├── UnknownRole (a LookupError)
├── UnknownWorker (a LookupError)
├── UnknownTask (a LookupError)
├── WaitTimeout (a TimeoutError)
├── LedgerError
├── TaskCancelled (a concurrent.futures.CancelledError)
└── TaskFailed
    ├── TurnTimeout
    ├── Interrupted
    ├── WorkerDied
    └── BackendError

Each passes all its arguments to `super().__init__`, so that it survives pickling.
"""

from __future__ import annotations

import concurrent.futures
import traceback
from dataclasses import dataclass, field


class RaypoolError(Exception):
    """The root of every error that raypool raises on purpose."""


class PoolStartError(RaypoolError):
    """Raised when a pool cannot start; the message gives the first cause."""


class PoolStopped(RaypoolError):
    """Raised by every use of a pool that has stopped, and by its unfinished futures."""


class PoolFull(RaypoolError):
    """Raised when `max_pending` tasks are unfinished and the caller must not wait."""


class InvalidTask(RaypoolError, ValueError):
    """Raised when a task cannot be asked: a bad prompt or option, a known id asked otherwise."""


class UnknownRole(RaypoolError, LookupError):
    """Raised when a task asks for a role that the pool has no workers for."""


class UnknownWorker(RaypoolError, LookupError):
    """Raised when a worker is named that the pool does not have."""


class UnknownTask(RaypoolError, LookupError):
    """Raised when a task id is named that the ledger does not have."""


class WaitTimeout(RaypoolError, TimeoutError):
    """Raised when what was waited for has not happened in time; the tasks go on."""


class LedgerError(RaypoolError):
    """Raised when the ledger cannot be opened, read or written."""


class TaskCancelled(RaypoolError, concurrent.futures.CancelledError):
    """Raised by the future of a task that was cancelled."""

    def __init__(self, task_id: str, reason: str | None = None) -> None:
        super().__init__(task_id, reason)
        self.task_id = task_id
        self.reason = reason

    def __str__(self) -> str:
        return f"task {self.task_id!r} was cancelled" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Cause:
    """What made a task fail, in a form that outlives the process where it happened.

    Attributes:
        type: the class name of the exception, or the provider's error type.
        message: what it said.
        traceback: the traceback as text; empty when there was none.
        exception: the exception itself, where it could be carried over.
        answers: the texts that did not fit the task's `output_type`, in order.
    """

    type: str
    message: str
    traceback: str = ""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    answers: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, error: BaseException) -> Cause:
        """The cause that `error` is."""
        text = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error), text, error)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class TaskFailed(RaypoolError):
    """Raised by the future of a task that failed for good.

    Attributes:
        task_id: the id of the task.
        worker: the name of the worker that ran it last, `None` when none did.
        attempts: how many attempts were made.
        cause: what the last attempt failed with.
    """

    def __init__(self, task_id: str, worker: str | None, attempts: int, cause: Cause) -> None:
        super().__init__(task_id, worker, attempts, cause)
        self.task_id = task_id
        self.worker = worker
        self.attempts = attempts
        self.cause = cause

    def __str__(self) -> str:
        where = f" on worker {self.worker!r}" if self.worker else ""
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"task {self.task_id!r} failed{where} after {tries}: {self.cause}"


class TurnTimeout(TaskFailed):
    """Raised when a turn ran longer than the task's `timeout` or the pool's `turn_timeout`."""


class Interrupted(TaskFailed):
    """Raised when a running turn was interrupted by `Pool.interrupt`."""


class WorkerDied(TaskFailed):
    """Raised when the process of the worker that held the task ended."""


class BackendError(TaskFailed):
    """Raised when the backend could not answer: the provider's error after the last attempt."""
