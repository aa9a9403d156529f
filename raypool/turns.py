"""The turn engine: one agent, its conversations, and what happens between its turns."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from typing import Any, Literal

import uuid_utils

from raypool.agent import Agent, AgentStart, SessionOptions, Turn, TurnTask
from raypool.backends.base import Backend, Session
from raypool.backends.faults import error_event
from raypool.callbacks import Callbacks
from raypool.clock import Clock
from raypool.events import ErrorEvent, Event, ResultEvent
from raypool.messages import Answer, Assignment, Failure, Outcome
from raypool.outcomes import (
    answer_of,
    failure_of_callback,
    failure_of_event,
    failure_of_timeout,
    response_of,
)
from raypool.task import Content

Memory = Literal["task", "worker"]


class TurnEngine:
    """Runs the turns of one agent.

    With `memory="task"` each task has a conversation of its own; with
    `memory="worker"` all tasks share one, and the caller runs them one at a time.
    """

    def __init__(
        self, agent: Agent, backend: Backend, *, memory: Memory, turn_timeout: float, clock: Clock
    ) -> None:
        self._callbacks = Callbacks(agent)
        self._backend = backend
        self._memory = memory
        self._turn_timeout = turn_timeout
        self._clock = clock
        self._options = SessionOptions()
        self._shared: tuple[Session, str] | None = None
        self._handles_response = self._callbacks.is_overridden("handle_response")

    async def begin(self, start: AgentStart) -> None:
        """Connect the backend and initialise the agent; raises what either raises."""
        await _settled(_optional(self._backend, "open"))
        options = await self._callbacks.call("init_agent", start)
        if not isinstance(options, SessionOptions | None):
            raise TypeError(
                f"init_agent must return SessionOptions or None, got {type(options).__name__}"
            )
        self._options = options or SessionOptions()

    async def end(self) -> None:
        """Close the worker's conversation and the backend."""
        if self._shared is not None:
            await _settled(self._shared[0].close())
        await _settled(_optional(self._backend, "close"))
        self._callbacks.close()

    async def run(self, work: Assignment) -> Outcome:
        """One attempt at a task, from its prompt to its outcome; raises only cancellation."""
        started = self._clock.monotonic()
        limit = self._turn_timeout if work.timeout is None else work.timeout
        try:
            async with asyncio.timeout(limit) as timer:
                result = await self._attempt(work, started)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
            duration_ms = self._since(started)
            if timer.expired():
                result = failure_of_timeout(limit, duration_ms)
            else:
                result = failure_of_event(error_event(error), duration_ms)
        if isinstance(result, Answer):
            return Outcome(work.number, result)
        return Outcome(work.number, failure=result)

    async def _attempt(self, work: Assignment, started: float) -> Answer | Failure:
        session, session_id = await self._open_session()
        try:
            events = await _collect(session, work.prompt)
            duration_ms = self._since(started)
            last = events[-1]
            if isinstance(last, ErrorEvent):
                return failure_of_event(last, duration_ms)
            answer = answer_of(events, session_id, duration_ms)
            if self._handles_response:
                return await self._handle_response(work, answer)
            return answer
        finally:
            if self._memory == "task":
                await _settled(session.close())

    async def _open_session(self) -> tuple[Session, str]:
        if self._shared is not None:
            return self._shared
        session: Session = await _settled(self._backend.start(self._options))
        opened = session, getattr(session, "id", None) or str(uuid_utils.uuid7())
        if self._memory == "worker":
            self._shared = opened
        return opened

    async def _handle_response(self, work: Assignment, answer: Answer) -> Answer | Failure:
        turn = Turn(
            task=TurnTask(id=work.id, role=work.role, metadata=work.metadata),
            attempt=work.attempt,
            session_id=answer.session_id,
        )
        try:
            decision = await self._callbacks.call("handle_response", turn, response_of(answer))
            _check_decision(decision)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - likewise
            return failure_of_callback(error, answer.duration_ms)
        return answer

    def _since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


def _check_decision(decision: object) -> None:
    if decision is not None:
        raise TypeError(f"handle_response must return None, got {decision!r:.80}")


async def _collect(session: Session, prompt: Content) -> list[Event]:
    """The events of one turn, of which the last is its `result` or `error`."""
    events: list[Event] = []
    stream: Any = session.prompt(prompt)
    if not hasattr(stream, "aclose"):
        stream = _as_generator(stream)
    async with aclosing(stream):
        async for event in stream:
            events.append(event)
            if isinstance(event, (ResultEvent, ErrorEvent)):
                return events
    events.append(
        ErrorEvent(
            verdict="invalid",
            error_type="BrokenContract",
            message="the backend's turn ended with neither a result nor an error event",
        )
    )
    return events


async def _as_generator(events: Any) -> Any:
    async for event in events:
        yield event


async def _settled(value: Any) -> Any:
    """A user's backend may write `def` where the contract has `async def`."""
    return await value if inspect.isawaitable(value) else value


def _optional(backend: Any, name: str) -> Any:
    """Call a method that a user's backend may leave out."""
    method = getattr(backend, name, None)
    return method() if method else None
