"""What the tests of the turn engine are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from raypool.agent import Agent, AgentStart, SessionOptions
from raypool.backends import Backend, ScriptedBackend, Session
from raypool.chain_run import TurnRules
from raypool.clock import Clock, FakeClock
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, ToolUseEvent
from raypool.messages import Assignment, Failure, Outcome
from raypool.output_type import OutputType
from raypool.task import Content
from raypool.telemetry import EventLog, TelemetryEvent, decode_events
from raypool.turns import TurnEngine
from raypool.usage import Usage

START = AgentStart(worker="crew-1", role="chemist", options={"max_tokens": 7})


class Library:
    """What a worker looks up, in memory.

    Attributes:
        conversations: by session, its messages.
        asked: the sessions that were looked up, in order.
    """

    def __init__(self, *types: Any) -> None:
        self._types = {one.digest: one for one in map(OutputType.of, types)}
        self.conversations: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []

    async def conversation(self, session: str) -> list[dict[str, Any]]:
        self.asked.append(session)
        return list(self.conversations[session])

    async def output_type(self, digest: str) -> OutputType:
        return self._types[digest]

    def keep(self, outcome: Outcome) -> None:
        """Do what a ledger does with what a task has added to its session."""
        added = outcome.conversation
        assert added is not None, outcome
        if added.is_whole:
            self.conversations[added.session] = list(added.messages)
        else:
            self.conversations.setdefault(added.session, []).extend(added.messages)


def new_log() -> EventLog:
    """A log that takes events."""
    log = EventLog(FakeClock(), pool="crew", worker="crew-1", role="chemist")
    log.watch(True)
    return log


def told(log: EventLog) -> list[TelemetryEvent]:
    """What the log has taken so far; it takes no more."""
    log.close()
    return [event for batch in log.batches() for event in decode_events(batch)]


def new_engine(
    backend: Any = None,
    agent: Agent | None = None,
    rules: TurnRules | None = None,
    *,
    library: Library | None = None,
    clock: Clock | None = None,
    log: EventLog | None = None,
) -> TurnEngine:
    """An engine that has not begun; its agent may be rude, but has 10 s for a turn."""
    return TurnEngine(
        agent or Agent(),
        backend or ScriptedBackend(),
        rules or TurnRules(turn_timeout=10.0),
        library=library or Library(),
        clock=clock or FakeClock(),
        log=log or EventLog(FakeClock(), pool="crew", worker="crew-1", role="chemist"),
    )


@asynccontextmanager
async def engine(
    backend: Any = None,
    agent: Agent | None = None,
    rules: TurnRules | None = None,
    *,
    snapshot: str | None = None,
    **parts: Any,
) -> AsyncIterator[TurnEngine]:
    """An engine that has begun, and ends after the block."""
    one = new_engine(backend, agent, rules, **parts)
    await one.begin(START, snapshot)
    yield one
    await one.end()


def ask(number: int = 1, prompt: Content = "why?", **options: Any) -> Assignment:
    return Assignment(number, f"task-{number}", prompt, **options)


def text_of(outcome: Outcome) -> str:
    assert outcome.answer is not None, outcome
    return outcome.answer.text


def failure_of(outcome: Outcome) -> Failure:
    assert outcome.failure is not None, outcome
    assert outcome.answer is None
    return outcome.failure


class Told(Backend):
    """Plays the same events in every turn, and keeps what happened to it.

    Attributes:
        events: what each turn yields.
        log: what was called, in order.
    """

    def __init__(self, *events: Event) -> None:
        self.events = events or (TextEvent("42"), ResultEvent())
        self.log: list[Any] = []

    async def open(self) -> None:
        self.log.append("open backend")

    async def start(self, options: SessionOptions) -> Session:
        self.log.append(options)
        return ToldSession(self)

    async def close(self) -> None:
        self.log.append("close backend")


class ToldSession(Session):
    def __init__(self, backend: Told) -> None:
        self._backend = backend

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        self._backend.log.append(prompt)
        for event in self._backend.events:
            yield event

    async def close(self) -> None:
        self._backend.log.append("close session")


Step = str | Event | Exception | list[Any] | Callable[[], Awaitable[Any]]
"""What one exchange gives: a text, an event alone, what is raised, events, or what a call gives."""


class Steps(Backend):
    """Gives one step after another, whichever conversation asks.

    Attributes:
        asked: what each exchange was asked, in order.
        started: the messages that each session was started with.
        open_sessions: how many are open now.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = iter(steps)
        self.asked: list[Content] = []
        self.started: list[list[dict[str, Any]]] = []
        self.options: list[SessionOptions] = []
        self.open_sessions = 0

    async def start(self, options: SessionOptions) -> Session:
        self.options.append(options)
        self.started.append(list(options.messages))
        self.open_sessions += 1
        return StepSession(self, list(options.messages))

    async def step(self, prompt: Content) -> list[Event]:
        """The events of the next exchange."""
        self.asked.append(prompt)
        step: Any = next(self._steps)
        if callable(step):
            step = await step()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, str):
            step = [TextEvent(step), ResultEvent(usage=Usage(1, 1), cost_usd=0.5)]
        if isinstance(step, ToolUseEvent):
            step = calls(step)
        return step if isinstance(step, list) else [step]


class StepSession(Session):
    messages: list[dict[str, Any]]

    def __init__(self, backend: Steps, messages: list[dict[str, Any]]) -> None:
        self._backend = backend
        self.messages = messages

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        events = await self._backend.step(prompt)
        if isinstance(events[-1], ResultEvent):
            self.messages = [*self.messages, *as_messages(prompt), answered(events)]
        for event in events:
            await asyncio.sleep(0)
            yield event

    async def close(self) -> None:
        self._backend.open_sessions -= 1


class Mute(Session):
    """A session that keeps no messages where raypool can see them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def prompt(self, prompt: Content) -> Any:
        return self._session.prompt(prompt)

    async def close(self) -> None:
        await self._session.close()


def calls(*uses: ToolUseEvent) -> list[Event]:
    """An exchange that asks for tools."""
    return [*uses, ResultEvent(stop_reason="tool_use", usage=Usage(1, 1), cost_usd=0.5)]


def as_messages(prompt: Content) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def answered(events: list[Event]) -> dict[str, Any]:
    """An exchange's answer, as a message."""
    uses = [
        {"type": "tool_use", "id": event.id, "name": event.name, "input": event.input}
        for event in events
        if isinstance(event, ToolUseEvent)
    ]
    text = "".join(event.text for event in events if isinstance(event, TextEvent))
    return {"role": "assistant", "content": uses or text}


def said(question: str, answer: str) -> list[dict[str, Any]]:
    """A question and its answer, as messages."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


TOO_LONG = ErrorEvent(
    "invalid", "invalid_request_error", "prompt is too long", is_context_full=True
)
CUT = ErrorEvent("transient", "ConnectionError", "cut")
