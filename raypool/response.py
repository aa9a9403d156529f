"""What came of a turn and of a task."""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.errors import Cause
from raypool.events import Event
from raypool.task import Content, State
from raypool.usage import Usage


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished turn gave.

    Attributes:
        text: the whole answer.
        usage: tokens spent.
        duration_ms: from the start of the turn to its end, in milliseconds.
        model: the model that answered, as the provider names it.
        stop_reason: why the model stopped: `end_turn`, `max_tokens`, …
        session_id: the conversation that the turn belongs to.
        events: what the backend yielded, with the pieces of text joined.
        parsed: the answer as the task's `output_type`, when it has one.
        cost_usd: what the turn cost in USD; `None` when no price is known.
    """

    text: str
    usage: Usage = Usage()
    duration_ms: float = 0.0
    model: str | None = None
    stop_reason: str | None = "end_turn"
    session_id: str | None = None
    events: tuple[Event, ...] = ()
    parsed: Any = None
    cost_usd: float | None = None


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """A task with its outcome so far.

    Attributes:
        id: the task's id.
        worker: the name of the worker it was given to; `None` when none has it yet.
        role: the role that was asked for.
        prompt: what was asked.
        state: `queued`, `running`, `completed`, `failed` or `cancelled`.
        text: the answer; `None` unless completed.
        usage: tokens spent.
        duration_ms: how long the last turn ran, in milliseconds.
        completed_at: when the task ended, in milliseconds since the epoch.
        attempts: how many attempts were made.
        error: what it failed with; `None` unless failed or cancelled.
        parsed: the answer as the task's `output_type`, when it has one.
        metadata: what the task carried.
        session: the conversation it belonged to, when it named one.
        model: the model that answered.
        stop_reason: why the model stopped.
        cost_usd: what it cost in USD; `None` when no price is known.
        turns: how many exchanges with the backend its last chain took, tool calls included.
    """

    id: str
    worker: str | None
    role: str | None
    prompt: Content
    state: State
    text: str | None = None
    usage: Usage = Usage()
    duration_ms: float | None = None
    completed_at: int | None = None
    attempts: int = 0
    error: Cause | None = None
    parsed: Any = None
    metadata: Any = None
    session: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    cost_usd: float | None = None
    turns: int = 0


class WorkerResults(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker has done.

    Attributes:
        worker: the worker's name.
        role: the worker's role.
        count: how many results there are.
        results: in the order in which the tasks ended.
    """

    worker: str
    role: str
    count: int
    results: list[TaskResult]
