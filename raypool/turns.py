"""The turn engine: one agent, its conversations, and what happens between its turns."""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import aclosing
from typing import Any, Literal, get_args

import uuid_utils

from raypool.agent import Agent, AgentStart, SessionOptions, Turn, TurnTask
from raypool.backends.base import Backend, Session
from raypool.callbacks import Callbacks
from raypool.clock import Clock
from raypool.events import ErrorEvent, Event, ResultEvent
from raypool.messages import Answer, Assignment, Failure, Outcome
from raypool.outcomes import (
    BROKEN_CONTRACT,
    answer_of,
    failure_of_callback,
    failure_of_event,
    failure_of_raised,
    failure_of_timeout,
    response_of,
    sendable,
)
from raypool.task import Content
from raypool.watchdog import Watchdog

logger = logging.getLogger(__name__)

Memory = Literal["task", "worker"]

CLOSE_SECONDS = 5.0
EVENT_TYPES = get_args(Event)
USER_ERRORS = (Exception, SystemExit, asyncio.CancelledError)
"""What the user's code may raise; a `CancelledError` may be its own."""


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
        self._watchdog = Watchdog()
        self._worker = ""
        self._options = SessionOptions()
        self._shared: tuple[Session, str] | None = None
        self._handles_response = self._callbacks.is_overridden("handle_response")

    async def begin(self, start: AgentStart) -> None:
        """Connect the backend and initialise the agent; raises what either raises."""
        self._worker = start.worker
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
            await self._close(self._shared[0])
        await self._close(self._backend)
        self._callbacks.close()

    async def run(self, work: Assignment) -> Outcome:
        """One attempt at a task, from its prompt to its outcome; raises only cancellation."""
        started = self._clock.monotonic()
        limit = self._turn_timeout if work.timeout is None else work.timeout
        try:
            with self._watchdog.limit(limit) as allowed:
                result = await self._attempt(work, started)
            if allowed.has_expired:  # and the user's code swallowed that
                result = failure_of_timeout(limit, self._since(started))
        except USER_ERRORS as error:
            _raise_if_cancelled()
            duration_ms = self._since(started)
            if allowed.has_expired:
                result = failure_of_timeout(limit, duration_ms)
            else:
                result = failure_of_raised(error, duration_ms)
        if isinstance(result, Answer):
            return sendable(Outcome(work.number, result))
        return sendable(Outcome(work.number, failure=result))

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
                await self._close(session)

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
        except USER_ERRORS as error:
            _raise_if_cancelled()
            return failure_of_callback(error, answer.duration_ms)
        return answer

    async def _close(self, opened: Session | Backend) -> None:
        """Close what the backend opened; that it cannot be closed changes no outcome."""
        try:
            with self._watchdog.limit(CLOSE_SECONDS):
                await _settled(_optional(opened, "close"))
        except USER_ERRORS:
            _raise_if_cancelled()
            kind = type(opened).__name__
            logger.exception("worker %r could not close its %s", self._worker, kind)

    def _since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


def _check_decision(decision: object) -> None:
    if decision is not None:
        raise TypeError(f"handle_response must return None, got {decision!r:.80}")


async def _collect(session: Session, prompt: Content) -> list[Event]:
    """The events of one turn, of which the last is its `result` or `error`."""
    events: list[Event] = []
    stream: Any = await _settled(session.prompt(prompt))
    if not hasattr(stream, "aclose"):
        stream = _as_generator(stream)
    async with aclosing(stream):
        async for event in stream:
            if not isinstance(event, EVENT_TYPES):
                return [_broken_contract(f"yielded a {type(event).__name__}, which is no event")]
            events.append(event)
            if isinstance(event, (ResultEvent, ErrorEvent)):
                return events
    return [_broken_contract("ended its turn with neither a result nor an error event")]


def _broken_contract(what: str) -> ErrorEvent:
    return ErrorEvent("invalid", BROKEN_CONTRACT, f"the backend {what}")


async def _as_generator(events: Any) -> Any:
    async for event in events:
        yield event


async def _settled(value: Any) -> Any:
    """A user's backend may write `def` where the contract has `async def`."""
    return await value if inspect.isawaitable(value) else value


def _optional(owner: Any, name: str) -> Any:
    """Call a method that a user's backend or session may leave out."""
    method = getattr(owner, name, None)
    return method() if method else None


def _raise_if_cancelled() -> None:
    """Go on with a cancellation by the caller; one by the user's code itself is an error."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
