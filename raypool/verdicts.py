"""From what the dispatcher delivers to what a future gives or raises."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import msgspec

from raypool import errors
from raypool.errors import Cause, LedgerError, RaypoolError, TaskCancelled, TaskFailed
from raypool.events import Event, ResultEvent, plain_events
from raypool.future import TaskFuture
from raypool.messages import Delivery, Found, Refusal
from raypool.output_type import OutputType
from raypool.records import AcceptedTask, Ending, json_of_answer, task_result
from raypool.response import Response, TaskResult
from raypool.task import Task

logger = logging.getLogger(__name__)

_KINDS: tuple[type[TaskFailed], ...] = (TaskFailed, *TaskFailed.__subclasses__())
_FAILURES = {kind.__name__: kind for kind in _KINDS}


def settle(future: TaskFuture, delivery: Delivery) -> None:
    """Give a future what its task came to."""
    error = error_of_delivery(future.id, delivery)
    if delivery.ending is not None:
        future.end(delivery.ending)
    if error is not None:
        future.set_exception(error)
    elif delivery.ending is not None:
        output_type = future._task.output_type if future._task else None
        future.set_result(response_of_delivery(delivery, output_type))


def response_of_delivery(delivery: Delivery, output_type: Any = None) -> Response:
    """The response of a completed task.

    Its `parsed` is what `output_type`, the client's own, makes of the answer; without one,
    what the worker made of it, or plain JSON where that cannot be had here.
    """
    ending = delivery.ending
    assert ending is not None
    events = delivery.events
    return Response(
        text=ending.text or "",
        usage=ending.usage,
        duration_ms=ending.duration_ms or 0.0,
        model=ending.model,
        stop_reason=ending.stop_reason,
        session_id=ending.session_id,
        events=tuple(events) if events else _plain_events(ending),
        parsed=_parsed(delivery, ending.text or "", output_type),
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
    exception = _unpickled_error(delivery.exception)
    cause = Cause(
        ending.cause.type,
        ending.cause.message,
        ending.cause.traceback,
        exception,
        tuple(ending.answers or ()),
    )
    kind = _FAILURES.get(ending.cause.kind, TaskFailed)
    error = kind(task_id, ending.worker, ending.attempts, cause)
    error.__cause__ = exception
    return error


def error_of_refusal(refusal: Refusal) -> RaypoolError:
    """What the future of a task that was not accepted raises."""
    kind: type[RaypoolError] = getattr(errors, refusal.kind)
    return kind(refusal.message)


def result_of_ending(task: Task, task_id: str, ending: Ending, parsed: Any = None) -> TaskResult:
    """The public record of a task that this client submitted."""
    asked = AcceptedTask(
        ending.number, task_id, task.prompt, task.role, task.metadata, session=task.session
    )
    return msgspec.structs.replace(task_result(asked, ending), parsed=parsed)


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
        session=task.session,
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
        session=task.session,
    )


def _plain_events(ending: Ending) -> tuple[Event, ...]:
    result = ResultEvent(ending.model, ending.stop_reason, ending.usage, ending.cost_usd)
    return plain_events(ending.text or "", result)


def _parsed(delivery: Delivery, text: str, output_type: Any) -> Any:
    if output_type is not None:
        return _read(text, output_type)
    if delivery.parsed is not None:
        parsed = _unpickled(delivery.parsed)
        return json_of_answer(text) if parsed is None else parsed
    return None if delivery.output_type is None else json_of_answer(text)


def _read(text: str, output_type: Any) -> Any:
    """The answer as the client's type; its worker has read it with the same one."""
    wanted = OutputType.of(output_type)
    try:
        return wanted.parse(text)
    except Exception as error:  # noqa: BLE001 - validators may raise anything
        logger.error(  # noqa: TRY400 - a traceback would quote the answer
            "an answer that is %s on its worker is none here, its parsed is None: %s",
            wanted.name,
            type(error).__name__,
        )
        return None


def _unpickled_error(packed: bytes | None) -> BaseException | None:
    """An exception from a worker of this pool, if its class can be had here."""
    error = None if packed is None else _unpickled(packed)
    return error if isinstance(error, BaseException) else None


def _unpickled(packed: bytes) -> Any:
    """What a worker of this pool packed; `None` where its class cannot be had here."""
    try:
        return pickle.loads(packed)  # noqa: S301 - from a worker, never from a file
    except Exception:  # noqa: BLE001 - unpickling may raise anything
        return None
