"""Hosts of agents without Ray, and a backend whose turns end when a test says so."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raypool.agent import Agent, SessionOptions
from raypool.backends import Backend, FunctionBackend
from raypool.chain_run import TurnRules
from raypool.clock import SystemClock
from raypool.host import AgentHost
from raypool.messages import Assignment, Outcome
from raypool.outbox import Envelope
from raypool.task import Content
from raypool.telemetry import EventLog
from tests.turns.parts import START, new_engine


def new_host(
    backend: Backend | None = None,
    agent: Agent | None = None,
    rules: TurnRules | None = None,
    *,
    slots: int = 1,
    log: EventLog | None = None,
    **options: Any,
) -> AgentHost:
    """A host that has not started; its agent has a minute for a turn."""
    rules = rules or TurnRules(turn_timeout=60.0)
    engine = new_engine(backend, agent, rules, clock=SystemClock(), log=log)
    return AgentHost(engine, slots, **options)


@contextmanager
def running_host(
    backend: Backend | None = None,
    agent: Agent | None = None,
    rules: TurnRules | None = None,
    **options: Any,
) -> Iterator[AgentHost]:
    """A host that has started, and stops after the block."""
    host = new_host(backend, agent, rules, **options)
    host.start(START)
    yield host
    host.stop(grace=0.0)


def post(host: AgentHost, *numbers: int) -> Envelope:
    return host.post([Assignment(number, f"task-{number}", f"{number}") for number in numbers])


def outcomes(envelope: Envelope) -> dict[int, str | None]:
    """By number, each outcome's text; waits for the envelope to end."""
    return {
        outcome.number: outcome.answer.text if outcome.answer else None
        for batch in envelope.batches()
        for outcome in batch.outcomes
    }


def results(envelope: Envelope) -> dict[int, Outcome]:
    """By number, each outcome; waits for the envelope to end."""
    return {outcome.number: outcome for batch in envelope.batches() for outcome in batch.outcomes}


def settle(host: AgentHost) -> None:
    """Wait until the host has seen to all that it was told before."""
    assert host.cancel([]) == []


class Gated:
    """A function for `FunctionBackend`: each turn waits until its number is let through.

    Attributes:
        started: the numbers whose turns have started, in order.
        interrupted: those whose turn was interrupted.
    """

    def __init__(self) -> None:
        self.started: list[int] = []
        self.interrupted: list[int] = []
        self._gates: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._failing: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()

    async def __call__(self, prompt: Content, options: SessionOptions) -> str:
        number = int(str(prompt if isinstance(prompt, str) else prompt[-1]["content"]))
        self._loop = asyncio.get_running_loop()
        with self._changed:
            self.started.append(number)
            self._changed.notify_all()
        try:
            await self._gates[number].wait()
        except asyncio.CancelledError:
            self.interrupted.append(number)
            raise
        if number in self._failing:
            raise ConnectionError("cut")
        return str(number)

    def fail(self, *numbers: int) -> None:
        """Have turns fail for now."""
        self._failing.update(numbers)
        self.let(*numbers)

    def let(self, *numbers: int) -> None:
        """Let turns end, now or once they have started."""
        for number in numbers:
            if self._loop is None:
                self._gates[number].set()
            else:
                self._loop.call_soon_threadsafe(self._gates[number].set)

    def wait_started(self, count: int) -> None:
        """Wait until `count` turns have started."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.started) >= count)

    @property
    def backend(self) -> FunctionBackend:
        async def answer(prompt: Content, options: SessionOptions) -> str:
            return await self(prompt, options)

        return FunctionBackend(answer)
