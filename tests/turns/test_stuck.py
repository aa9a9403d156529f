"""What cannot be interrupted: it costs the process, and every outcome is the right one."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from raypool import host as host_module
from raypool.agent import Agent, Halt, SessionOptions, Turn
from raypool.backends import Backend, ScriptedBackend, Session
from raypool.chain_run import TurnRules
from raypool.events import Event, ResultEvent
from raypool.host import AgentHost
from raypool.messages import Assignment, Notice, Outcome
from raypool.outbox import Envelope
from raypool.response import Response
from raypool.task import Content
from tests.turns.hosting import new_host, post
from tests.turns.parts import START, failure_of, text_of

pytestmark = pytest.mark.timeout(30)

TIMEOUT = TurnRules(turn_timeout=0.02)
PATIENT = TurnRules(turn_timeout=60.0)


class Doomed:
    """A host whose process would end when it gives up; in a test, it waits for that.

    Attributes:
        host: the host.
        has_given_up: it did.
    """

    def __init__(self, backend: Backend, agent: Agent, rules: TurnRules, **options: Any) -> None:
        self.has_given_up = threading.Event()
        self.host = new_host(
            backend,
            agent,
            rules,
            give_up=self.has_given_up.set,
            stuck_seconds=0.05,
            **options,
        )
        self.host.start(START)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end of the test, for what blocks until then."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def doomed(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> Iterator[Callable[..., Doomed]]:
    """Starts hosts that look often for what is stuck, and stops them after the test."""
    monkeypatch.setattr(host_module, "GUARD_SECONDS", 0.01)
    monkeypatch.setattr(host_module, "LAST_WORDS_SECONDS", 0.0)
    monkeypatch.setattr(host_module, "CONTROL_SECONDS", 0.05)
    started: list[AgentHost] = []

    def start(backend: Backend, agent: Agent, rules: TurnRules = PATIENT, **options: Any) -> Doomed:
        one = Doomed(backend, agent, rules, **options)
        started.append(one.host)
        return one

    yield start
    release.set()
    for host in started:
        host.stop(grace=0.0)


def reported(envelope: Envelope) -> list[Outcome]:
    """What the envelope has brought so far; ends it."""
    envelope.end()
    return [outcome for batch in envelope.batches() for outcome in batch.outcomes]


class Blocking(Agent):
    """Blocks its thread in one callback, or the event loop if that is `async`."""

    def __init__(self, hook: str, release: threading.Event, *, is_async: bool = False) -> None:
        self.entered = threading.Event()

        def block(*args: Any) -> None:
            self.entered.set()
            release.wait()

        async def block_the_loop(*args: Any) -> None:
            block()

        setattr(self, hook, block_the_loop if is_async else block)


kinds = pytest.mark.parametrize("is_async", [False, True], ids=["thread", "event loop"])


@kinds
@pytest.mark.parametrize("hook", ["pre_turn", "handle_stream_event", "handle_response"])
def test_turn_that_runs_out_of_time_in_a_blocking_callback_has_timed_out(
    doomed: Callable[..., Doomed], release: threading.Event, hook: str, is_async: bool
) -> None:
    agent = Blocking(hook, release, is_async=is_async)
    one = doomed(ScriptedBackend(), agent, TIMEOUT)
    guilty, innocent = post(one.host, 1), post(one.host, 2)

    assert one.has_given_up.wait(10)

    [outcome] = reported(guilty)
    assert (failure_of(outcome).kind, failure_of(outcome).verdict) == ("TurnTimeout", "invalid")
    assert "did not finish within 0.02 s" in failure_of(outcome).message
    assert reported(innocent) == []


@kinds
def test_turn_that_is_interrupted_in_a_blocking_callback_was_interrupted(
    doomed: Callable[..., Doomed], release: threading.Event, is_async: bool
) -> None:
    agent = Blocking("handle_response", release, is_async=is_async)
    one = doomed(ScriptedBackend(), agent)
    envelope = post(one.host, 1)
    agent.entered.wait()

    began = time.monotonic()
    one.host.interrupt()

    assert one.has_given_up.wait(10)
    assert time.monotonic() - began < 1.0
    [outcome] = reported(envelope)
    assert failure_of(outcome).kind == "Interrupted"


@kinds
def test_task_that_is_cancelled_in_a_blocking_callback_is_cancelled_or_interrupted(
    doomed: Callable[..., Doomed], release: threading.Event, is_async: bool
) -> None:
    agent = Blocking("handle_response", release, is_async=is_async)
    one = doomed(ScriptedBackend(), agent)
    envelope = post(one.host, 1)
    agent.entered.wait()

    one.host.cancel([1])

    assert one.has_given_up.wait(10)
    [outcome] = reported(envelope)
    if is_async:
        assert failure_of(outcome).kind == "Interrupted"
    else:
        assert outcome == Outcome(1)


class Stubborn(Backend):
    """A backend whose turns go on, whatever interrupts them."""

    def __init__(self, release: threading.Event) -> None:
        self._release = release

    async def start(self, options: SessionOptions) -> Session:
        return StubbornSession(self._release)


class StubbornSession(Session):
    def __init__(self, release: threading.Event) -> None:
        self._release = release

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        while not self._release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        yield ResultEvent()


def test_backend_that_ignores_its_interrupt_costs_the_process_and_only_its_own_task_fails(
    doomed: Callable[..., Doomed], release: threading.Event
) -> None:
    one = doomed(Stubborn(release), Agent(), PATIENT, slots=2)
    hasty = one.host.post([assignment(1, timeout=0.02)])
    patient = one.host.post([assignment(2)])

    assert one.has_given_up.wait(10)

    [outcome] = reported(hasty)
    assert failure_of(outcome).kind == "TurnTimeout"
    assert reported(patient) == []


def assignment(number: int, **options: Any) -> Assignment:
    return Assignment(number, f"task-{number}", f"{number}", **options)


@kinds
def test_error_that_handle_error_blocks_on_is_the_tasks(
    doomed: Callable[..., Doomed], release: threading.Event, is_async: bool
) -> None:
    agent = Blocking("handle_error", release, is_async=is_async)
    rules = TurnRules(turn_timeout=0.02, max_attempts=1)
    one = doomed(ScriptedBackend(lambda prompt: OSError("no line")), agent, rules)
    envelope = one.host.post([assignment(1, timeout=10.0)])

    assert one.has_given_up.wait(10)

    [outcome] = reported(envelope)
    assert failure_of(outcome).type == "OSError"


@kinds
@pytest.mark.parametrize("hook", ["post_turn", "post_run", "snapshot"])
def test_answer_is_reported_though_a_callback_after_it_blocks(
    doomed: Callable[..., Doomed], release: threading.Event, hook: str, is_async: bool
) -> None:
    agent = Blocking(hook, release, is_async=is_async)
    block = getattr(agent, hook)

    def later(*args: Any) -> Any:
        return block(*args) if len(asked) > 1 else None

    async def later_too(*args: Any) -> Any:
        return await block(*args) if len(asked) > 1 else None

    asked: list[str] = ["start"]
    if hook == "snapshot":
        agent.snapshot = later_too if is_async else later  # type: ignore[method-assign]

    def handle_response(turn: Turn, response: Response) -> Halt | None:
        asked.append(response.text)
        return Halt("enough") if hook == "post_run" else None

    agent.handle_response = handle_response  # type: ignore[method-assign]
    one = doomed(ScriptedBackend(), agent, TIMEOUT)
    envelope = one.host.post([assignment(1, timeout=10.0)])

    assert one.has_given_up.wait(10)

    [outcome] = reported(envelope)
    assert text_of(outcome) == "1"


@kinds
def test_event_whose_handler_blocks_is_dealt_with(
    doomed: Callable[..., Doomed], release: threading.Event, is_async: bool
) -> None:
    agent = Blocking("handle_event", release, is_async=is_async)
    one = doomed(ScriptedBackend(), agent, TIMEOUT)
    heard, waits = one.host.notify(Notice(10, "news")), one.host.notify(Notice(11, "more"))

    assert one.has_given_up.wait(10)

    assert heard.result(10) == Outcome(10)
    assert not waits.done()


def test_what_has_ended_and_waits_to_be_sent_goes_with_the_last_words(
    doomed: Callable[..., Doomed], release: threading.Event
) -> None:
    class Third(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            if response.text == "3":
                release.wait()

    one = doomed(ScriptedBackend(), Third(), TIMEOUT)
    envelope = post(one.host, 1, 2, 3, 4)

    assert one.has_given_up.wait(10)

    ended = {outcome.number: outcome for outcome in reported(envelope)}
    assert sorted(ended) == [1, 2, 3]
    assert failure_of(ended[3]).kind == "TurnTimeout"


@kinds
def test_process_ends_though_a_callback_keeps_its_host_from_stopping(
    doomed: Callable[..., Doomed],
    release: threading.Event,
    is_async: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(host_module, "FAREWELL_SECONDS", 0.05)
    agent = Blocking("handle_response", release, is_async=is_async)
    one = doomed(ScriptedBackend(), agent)
    envelope = post(one.host, 1)
    agent.entered.wait()

    with caplog.at_level(logging.ERROR):
        stopping = threading.Thread(target=one.host.stop, args=(0.0,))
        stopping.start()
        assert one.has_given_up.wait(10)
    assert reported(envelope) == []
    release.set()
    stopping.join(10)

    assert caplog.messages == [
        "the agent of worker 'crew-1' or its backend does not end; the worker's process does"
    ]


def test_callback_that_ends_in_time_costs_nothing(
    doomed: Callable[..., Doomed], release: threading.Event
) -> None:
    agent = Blocking("handle_response", release)
    one = doomed(ScriptedBackend(), agent, TurnRules(turn_timeout=0.02))
    one.host._stuck_seconds = 10.0
    envelope = post(one.host, 1)
    agent.entered.wait()

    release.set()

    [outcome] = [outcome for batch in envelope.batches() for outcome in batch.outcomes]
    assert outcome.number == 1
    assert not one.has_given_up.is_set()


def test_defect_that_ends_a_slot_ends_the_process(
    doomed: Callable[..., Doomed],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = doomed(ScriptedBackend(), Agent())
    monkeypatch.setattr(one.host._engine, "run", None)

    with caplog.at_level(logging.ERROR):
        post(one.host, 1)
        assert one.has_given_up.wait(10)

    assert caplog.messages == ["raypool's worker met a defect of its own"]
