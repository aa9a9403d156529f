"""From what the dispatcher delivers to what a future gives or raises."""

from __future__ import annotations

import pickle

from raypool import errors
from raypool.errors import Cause, LedgerError, RaypoolError, TaskCancelled, TaskFailed
from raypool.events import Event, ResultEvent, plain_events
from raypool.messages import Delivery, Found, Refusal
from raypool.records import AcceptedTask, Ending, task_result
from raypool.response import Response, TaskResult
from raypool.task import Task

_KINDS: tuple[type[TaskFailed], ...] = (TaskFailed, *TaskFailed.__subclasses__())
_FAILURES = {kind.__name__: kind for kind in _KINDS}


def response_of_ending(ending: Ending, events: list[Event] | None) -> Response:
    """The response of a completed task."""
    return Response(
        text=ending.text or "",
        usage=ending.usage,
        duration_ms=ending.duration_ms or 0.0,
        model=ending.model,
        stop_reason=ending.stop_reason,
        session_id=ending.session_id,
        events=tuple(events) if events else _plain_events(ending),
        cost_usd=ending.cost_usd,
    )


def error_of_delivery(task_id: str, delivery: Delivery) -> RaypoolError | None:
    """What the future of a task that did not complete raises; `None` for one that did."""
    ending = delivery.ending
    if ending is None:
        return LedgerError(delivery.ledger_error or "the task's end could not be recorded")
    if ending.state == "completed":
        return None
    if ending.state == "cancelled":
        return TaskCancelled(task_id, ending.cause.message if ending.cause else None)
    assert ending.cause is not None
    exception = _unpickled(delivery.exception)
    cause = Cause(ending.cause.type, ending.cause.message, ending.cause.traceback, exception)
    kind = _FAILURES.get(ending.cause.kind, TaskFailed)
    error = kind(task_id, ending.worker, ending.attempts, cause)
    error.__cause__ = exception
    return error


def error_of_refusal(refusal: Refusal) -> RaypoolError:
    """What the future of a task that was not accepted raises."""
    kind: type[RaypoolError] = getattr(errors, refusal.kind)
    return kind(refusal.message)


def result_of_ending(task: Task, task_id: str, ending: Ending) -> TaskResult:
    """The public record of a task that this client submitted."""
    asked = AcceptedTask(ending.number, task_id, task.prompt, task.role, task.metadata)
    return task_result(asked, ending)


def result_of_found(found: Found) -> TaskResult:
    """The public record of a task as the dispatcher has found it."""
    task = found.task
    if found.ending is not None:
        return task_result(task, found.ending)
    return TaskResult(
        id=task.id,
        worker=found.worker,
        role=task.role,
        prompt=task.prompt,
        state=found.state,
        attempts=found.attempts,
        metadata=task.metadata,
    )


def result_of_error(task: Task, task_id: str, error: BaseException) -> TaskResult:
    """The public record of a task that was never accepted."""
    return TaskResult(
        id=task_id,
        worker=None,
        role=task.role,
        prompt=task.prompt,
        state="failed",
        error=Cause.of(error),
        metadata=task.metadata,
    )


def _plain_events(ending: Ending) -> tuple[Event, ...]:
    result = ResultEvent(ending.model, ending.stop_reason, ending.usage, ending.cost_usd)
    return plain_events(ending.text or "", result)


def _unpickled(exception: bytes | None) -> BaseException | None:
    """An exception from a worker of this pool, if its class can be had here."""
    if exception is None:
        return None
    try:
        error = pickle.loads(exception)  # noqa: S301 - from a worker, never from a file
    except Exception:  # noqa: BLE001 - unpickling may raise anything
        return None
    return error if isinstance(error, BaseException) else None
