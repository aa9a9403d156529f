"""What the ledger keeps of a task: what was accepted, and how it ended."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from raypool.errors import Cause
from raypool.output_type import InvalidAnswer, plain
from raypool.response import TaskResult
from raypool.task import Content
from raypool.usage import Usage

EndState: TypeAlias = Literal["completed", "failed", "cancelled"]


class AcceptedTask(msgspec.Struct, frozen=True):
    """A task as it was accepted.

    Attributes:
        number: its place in the order of acceptance, from 1; never used again.
        id: its name.
        prompt: what was asked.
        role: the role that must answer.
        metadata: whatever JSON can hold.
        timeout: the longest that one turn may run, in seconds.
        session: the conversation that it continues; `None` for one of its own.
        worker: the only worker that may run it, while the pool has one of that name; `None`
            for any of its role.
        output_type: the digest of the type that its answer must be.
        priority: of the tasks that wait, those with a higher one go first.
        tenant: on whose account it is.
        hedge_after: when a second copy of it is started: seconds, or a percentile as `p95`.
        race: tasks with the same one run on different workers.
        fingerprint: of what was asked, and of which model; empty where nobody took one.
    """

    number: int
    id: str
    prompt: Content
    role: str | None = None
    metadata: Any = None
    timeout: float | None = None
    session: str | None = None
    worker: str | None = None
    output_type: str | None = None
    priority: int = 0
    tenant: str | None = None
    hedge_after: float | str | None = None
    race: str | None = None
    fingerprint: bytes = b""


class Conversation(msgspec.Struct, frozen=True):
    """What a task adds to the session that it named.

    Attributes:
        session: the session's name.
        messages: the Messages-API messages of the task's turns, in order.
        is_whole: they are all that the session has: its older turns were dropped.
    """

    session: str
    messages: list[dict[str, Any]]
    is_whole: bool = False


class StoredCause(msgspec.Struct, frozen=True):
    """What a task failed with, as text: nothing read from a ledger is unpickled.

    Attributes:
        kind: the name of the error class that the task's future raises.
        type: the class name of the exception, or the provider's error type.
        message: what it said.
        traceback: the traceback as text.
    """

    kind: str
    type: str
    message: str
    traceback: str = ""


class Death(msgspec.Struct, frozen=True):
    """A worker has died that had a task.

    Attributes:
        number: the task's number.
        worker: the worker's name.
        died_at: when that was noticed, in milliseconds since the epoch.
        reason: what Ray says of it.
    """

    number: int
    worker: str
    died_at: int
    reason: str


class Ending(msgspec.Struct, frozen=True):
    """How a task ended; a task has one, and the first recorded is the one.

    Attributes:
        number: the task's number.
        state: `completed`, `failed` or `cancelled`.
        worker: the worker it was given to last.
        attempts: how many attempts were made.
        completed_at: when it ended, in milliseconds since the epoch.
        duration_ms: how long its last turn ran, in milliseconds.
        text: the answer, when completed.
        usage: tokens spent.
        model: the model that answered.
        stop_reason: why the model stopped.
        session_id: the conversation it belonged to.
        cost_usd: what it cost in USD; `None` when no price is known.
        cause: what it failed with, or why it was cancelled.
        turns: how many exchanges with the backend its last chain took.
        answers: the texts that did not fit its output type.
        conversation: what it adds to its session; only on the way into the ledger.
    """

    number: int
    state: EndState
    worker: str | None
    attempts: int
    completed_at: int
    duration_ms: float | None = None
    text: str | None = None
    usage: Usage = Usage()
    model: str | None = None
    stop_reason: str | None = None
    session_id: str | None = None
    cost_usd: float | None = None
    cause: StoredCause | None = None
    turns: int = 0
    answers: list[str] | None = None
    conversation: Conversation | None = None


def task_result(task: AcceptedTask, ending: Ending) -> TaskResult:
    """The public record of a task that has ended; `parsed` is plain JSON."""
    cause = ending.cause
    return TaskResult(
        id=task.id,
        worker=ending.worker,
        role=task.role,
        prompt=task.prompt,
        state=ending.state,
        text=ending.text,
        usage=ending.usage,
        duration_ms=ending.duration_ms,
        completed_at=ending.completed_at,
        attempts=ending.attempts,
        error=_error(cause, ending.answers) if cause else None,
        parsed=json_of_answer(ending.text) if task.output_type else None,
        metadata=task.metadata,
        session=task.session,
        turns=ending.turns,
        model=ending.model,
        stop_reason=ending.stop_reason,
        cost_usd=ending.cost_usd,
    )


def json_of_answer(text: str | None) -> Any:
    """The JSON in an answer, as no type has read it; `None` where there is none."""
    try:
        return plain(text or "")
    except InvalidAnswer:
        return None


def _error(cause: StoredCause, answers: list[str] | None) -> Cause:
    return Cause(cause.type, cause.message, cause.traceback, answers=tuple(answers or ()))
