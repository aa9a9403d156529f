"""Turns that are told to end: interrupts, cancellations, and what they leave alone."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raypool.agent import Agent, AgentStart, Halt, Prompt, SessionOptions, Turn
from raypool.backends import Backend, ScriptedBackend, Session
from raypool.chain_run import TurnRules
from raypool.errors import TaskFailed
from raypool.events import Event, ResultEvent, TextEvent, ToolUseEvent
from raypool.messages import Assignment, Notice, Outcome
from raypool.response import Response
from raypool.task import Content
from tests.turns.hosting import Gated, outcomes, post, results, running_host, settle
from tests.turns.parts import Steps, failure_of, text_of

pytestmark = pytest.mark.timeout(30)

PROMPTLY = 0.1
"""How long an interrupt may take, in seconds."""


@pytest.fixture
def gated() -> Gated:
    return Gated()


class Told(Agent):
    """Notes the errors that it is asked about, and may ask something else."""

    def __init__(self, *then: Prompt) -> None:
        self.errors: list[TaskFailed] = []
        self._then = list(then)

    def handle_error(self, turn: Turn, error: TaskFailed) -> Prompt | None:
        self.errors.append(error)
        return self._then.pop(0) if self._then else None


def test_interrupt_ends_the_running_turn_at_once_and_the_next_task_runs(gated: Gated) -> None:
    agent = Told()
    took = []

    with running_host(gated.backend, agent) as host:
        for number in range(1, 6):
            envelope = post(host, number)
            gated.wait_started(number)
            began = time.monotonic()
            assert host.interrupt() == 1
            failure = failure_of(results(envelope)[number])
            took.append(time.monotonic() - began)
        gated.let(6)
        assert outcomes(post(host, 6)) == {6: "6"}

    assert statistics.median(took) < PROMPTLY
    assert (failure.kind, failure.verdict) == ("Interrupted", "invalid")
    assert failure.message == "the turn was interrupted by Pool.interrupt or cancel"
    assert [type(error).__name__ for error in agent.errors] == ["Interrupted"] * 5


def test_agent_may_ask_something_else_after_an_interrupt(gated: Gated) -> None:
    gated.let(11)

    with running_host(gated.backend, Told(Prompt("11"))) as host:
        envelope = post(host, 1)
        gated.wait_started(1)
        host.interrupt()
        assert outcomes(envelope) == {1: "11"}


def test_interrupt_ends_the_turns_of_every_slot(gated: Gated) -> None:
    with running_host(gated.backend, slots=3) as host:
        envelope = post(host, 1, 2, 3)
        gated.wait_started(3)
        assert host.interrupt() == 3
        kinds = {failure_of(outcome).kind for outcome in results(envelope).values()}

    assert kinds == {"Interrupted"}


def test_interrupt_of_an_idle_worker_does_nothing(gated: Gated) -> None:
    gated.let(1)

    with running_host(gated.backend) as host:
        assert host.interrupt() == 0
        assert outcomes(post(host, 1)) == {1: "1"}
        assert host.interrupt() == 0


def test_interrupt_ends_a_turn_that_an_event_led_to(gated: Gated) -> None:
    class Asking(Agent):
        def handle_event(self, event: Any) -> Prompt:
            return Prompt("21")

    with running_host(gated.backend, Asking()) as host:
        asked = host.notify(Notice(10, "ask"))
        gated.wait_started(1)
        assert host.interrupt() == 1
        outcome = asked.result(10)

    assert failure_of(outcome).kind == "Interrupted"
    assert outcome.asked is not None


def entered_and_waits(entered: threading.Event) -> Any:
    async def wait(*args: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    return wait


@pytest.mark.parametrize("hook", ["pre_turn", "handle_stream_event", "handle_response"])
def test_interrupt_ends_an_async_callback_of_the_turn_at_once(hook: str) -> None:
    entered, agent = threading.Event(), Told()
    setattr(agent, hook, entered_and_waits(entered))

    with running_host(agent=agent) as host:
        envelope = post(host, 1)
        entered.wait()
        host.interrupt()
        failure = failure_of(results(envelope)[1])

    assert failure.kind == "Interrupted"
    assert [type(error).__name__ for error in agent.errors] == ["Interrupted"]


def test_interrupt_takes_effect_as_soon_as_a_def_callback_returns() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Blocking(Told):
        def handle_response(self, turn: Turn, response: Response) -> Prompt:
            entered.set()
            go_on.wait()
            return Prompt("what nobody asks any more")

    agent = Blocking()
    with running_host(agent=agent) as host:
        envelope = post(host, 1)
        entered.wait()
        assert host.interrupt() == 1
        go_on.set()
        assert failure_of(results(envelope)[1]).kind == "Interrupted"


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async"])
def test_interrupt_ends_a_turn_at_once_while_a_tool_runs(is_async: bool) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        """Wait."""
        entered.set()
        go_on.wait()

    async def wait_too() -> None:
        """Wait."""
        entered.set()
        await asyncio.Event().wait()

    class Equipped(Agent):
        def init_agent(self, start: AgentStart) -> SessionOptions:
            return SessionOptions(tools=[wait_too if is_async else wait])

    backend = Steps(ToolUseEvent("1", "wait_too" if is_async else "wait", {}), "next")
    with running_host(backend, Equipped()) as host:
        first, second = post(host, 1), post(host, 2)
        entered.wait()
        host.interrupt()
        failure = failure_of(results(first)[1])
        assert outcomes(second) == {2: "next"}
        go_on.set()

    assert failure.kind == "Interrupted"


def test_event_handler_is_no_turn_and_is_not_interrupted() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Blocking(Agent):
        def handle_event(self, event: Any) -> None:
            entered.set()
            go_on.wait()

    with running_host(agent=Blocking()) as host:
        heard = host.notify(Notice(10, "news"))
        entered.wait()
        assert host.interrupt() == 0
        go_on.set()
        assert heard.result(10) == Outcome(10)


def test_cancelled_task_that_handle_error_would_go_on_with_ends_all_the_same(
    gated: Gated,
) -> None:
    with running_host(gated.backend, Told(Prompt("11"))) as host:
        envelope = post(host, 1)
        gated.wait_started(1)
        assert host.cancel([1]) == []
        assert results(envelope) == {1: Outcome(1, requests=1)}

    assert gated.started == [1]


def test_task_that_is_tried_again_and_cancelled_in_line_never_starts(gated: Gated) -> None:
    gated.fail(1)

    with running_host(gated.backend) as host:
        results(post(host, 1))
        first = post(host, 2)
        gated.wait_started(2)
        again = host.post([Assignment(1, "task-1", "1", attempt=2)])
        settle(host)
        assert host.cancel([1]) == [1]
        gated.let(2)
        assert outcomes(first) == {2: "2"}
        assert results(again) == {1: Outcome(1)}

    assert gated.started == [1, 2]


def test_chain_that_waits_for_another_attempt_is_forgotten_when_it_is_cancelled() -> None:
    class Chaining(Agent):
        def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
            return Prompt("b?") if turn.number == 1 else None

    backend = Steps("one", ConnectionError("cut"), "never")
    with running_host(backend, Chaining()) as host:
        results(post(host, 1))
        assert backend.open_sessions == 1
        assert host.cancel([1]) == [1]
        assert results(host.post([Assignment(1, "task-1", "1", attempt=2)])) == {1: Outcome(1)}
        assert backend.open_sessions == 0


def test_cancelled_task_that_was_handed_back_never_starts_here(gated: Gated) -> None:
    class Halting(Agent):
        def handle_event(self, event: Any) -> Halt:
            return Halt("enough")

    with running_host(gated.backend, Halting()) as host:
        host.notify(Notice(10, "halt")).result(10)
        results(post(host, 1))
        assert host.cancel([1]) == [1]
        host.resume()
        assert results(post(host, 1)) == {1: Outcome(1)}

    assert gated.started == []


class Streaming(Backend):
    """Streams each prompt's words, one at a time, as the test lets them."""

    def __init__(self) -> None:
        self.words = threading.Semaphore(0)

    async def start(self, options: SessionOptions) -> Session:
        return StreamingSession(self.words)


class StreamingSession(Session):
    def __init__(self, words: threading.Semaphore) -> None:
        self._words = words

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        for word in str(prompt).split(" "):
            await asyncio.to_thread(self._words.acquire)
            yield TextEvent(f"{word} ")
        yield ResultEvent()


def test_text_of_a_task_that_streams_comes_in_pieces_before_its_outcome() -> None:
    backend = Streaming()

    with running_host(backend) as host:
        assignment = Assignment(1, "task-1", "so far so good", streams=True)
        batches = host.post([assignment]).batches()
        backend.words.release()
        first = next(batches)
        for _ in range(3):
            backend.words.release()
        rest = list(batches)

    assert [(piece.number, piece.text) for piece in first.pieces] == [(1, "so ")]
    assert first.outcomes == []
    assert "".join(piece.text for batch in rest for piece in batch.pieces) == "far so good "
    [outcome] = [outcome for batch in rest for outcome in batch.outcomes]
    assert text_of(outcome) == "so far so good "
    assert rest[-1].outcomes == [outcome]


def test_text_of_a_task_that_nobody_streams_comes_with_its_outcome_alone() -> None:
    with running_host(ScriptedBackend()) as host:
        batches = list(post(host, 1).batches())

    assert [batch.pieces for batch in batches] == [[]]


def test_task_may_outlive_the_timeout_of_its_pool(gated: Gated) -> None:
    rules = TurnRules(turn_timeout=0.02)

    with running_host(gated.backend, rules=rules) as host:
        patient = host.post([Assignment(1, "task-1", "1", timeout=10.0)])
        hasty = post(host, 2)
        gated.wait_started(1)
        time.sleep(0.05)
        gated.let(1)
        assert outcomes(patient) == {1: "1"}
        assert failure_of(results(hasty)[2]).kind == "TurnTimeout"
