"""Pauses: a chain makes the exchanges that it may, and goes on exactly where it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from raypool.agent import Agent, AgentStart, Halt, Prompt, SessionOptions, Turn
from raypool.chain_run import TurnRules
from raypool.clock import FakeClock
from raypool.conversations import Memory
from raypool.errors import TaskFailed
from raypool.events import ErrorEvent, ToolUseEvent
from raypool.messages import Outcome
from raypool.response import Response
from raypool.task import Content
from raypool.usage import Usage
from tests.turns.hosting import outcomes, post, running_host
from tests.turns.parts import (
    CUT,
    TOO_LONG,
    Library,
    Steps,
    ask,
    engine,
    failure_of,
    new_log,
    said,
    text_of,
    told,
)

BUSY = ErrorEvent("refused", "overloaded_error", "busy")
USER = "user-42"

memories = pytest.mark.parametrize("memory", ["task", "worker"])


class Looking(Agent):
    """Has one tool, and notes what it is told.

    Attributes:
        looks: how often the tool was called.
        journal: the callbacks that ran.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.looks = 0
        self.journal: list[str] = []

    def look(self) -> str:
        """Look around."""
        self.looks += 1
        return f"door {self.looks}"

    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(tools=[self.look], **self._options)

    def pre_turn(self, turn: Turn, prompt: Content) -> None:
        self.journal.append(f"before {turn.number}, attempt {turn.attempt}")

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.journal.append(f"response {response.text}")

    def handle_error(self, turn: Turn, error: TaskFailed) -> None:
        self.journal.append(f"error {type(error).__name__}")

    def post_turn(self, turn: Turn, outcome: object) -> None:
        self.journal.append(f"after {turn.number}")


def look(place: int = 1) -> ToolUseEvent:
    return ToolUseEvent(str(place), "look", {})


def results_in(asked: Content) -> list[str]:
    """What tools gave, in what an exchange was asked."""
    assert not isinstance(asked, str)
    return [block["content"] for block in asked[0]["content"]]


def paused(outcome: Outcome) -> tuple[bool, int, Usage, float | None]:
    assert (outcome.answer, outcome.failure) == (None, None)
    return outcome.is_paused, outcome.requests, outcome.usage, outcome.cost_usd


@memories
@pytest.mark.asyncio
async def test_tool_loop_pauses_before_each_exchange_that_is_not_reserved(memory: Memory) -> None:
    backend, agent = Steps(look(1), look(2), "A door."), Looking()

    async with engine(backend, agent, TurnRules(memory=memory)) as one:
        first = await one.run(ask(exchanges=1))
        second = await one.run(ask(exchanges=1))
        last = await one.run(ask(exchanges=1))

    assert paused(first) == paused(second) == (True, 1, Usage(1, 1), 0.5)
    assert text_of(last) == "A door."
    assert (last.is_paused, last.requests, last.turns, last.usage) == (False, 1, 3, Usage(1, 1))
    assert [results_in(asked) for asked in backend.asked[1:]] == [["door 1"], ["door 2"]]
    assert agent.looks == 2
    assert agent.journal == ["before 1, attempt 1", "response A door.", "after 1"]
    assert backend.open_sessions == 0


@pytest.mark.asyncio
async def test_assignment_without_a_number_of_exchanges_never_pauses() -> None:
    async with engine(Steps(look(1), look(2), "A door."), Looking()) as one:
        outcome = await one.run(ask())

    assert (text_of(outcome), outcome.requests) == ("A door.", 3)


@pytest.mark.asyncio
async def test_chain_that_may_make_several_exchanges_pauses_after_the_last() -> None:
    backend = Steps(look(1), look(2), look(3), "A door.")
    async with engine(backend, Looking()) as one:
        first = await one.run(ask(exchanges=3))
        last = await one.run(ask(exchanges=3))

    assert paused(first) == (True, 3, Usage(3, 3), 1.5)
    assert (text_of(last), last.requests) == ("A door.", 1)


@pytest.mark.asyncio
async def test_answers_that_do_not_fit_their_type_are_asked_for_again_after_a_pause() -> None:
    class City(BaseModel):
        name: str

    backend = Steps("Paris", '{"name": "Paris"}')
    async with engine(backend, Looking(output_type=City)) as one:
        first = await one.run(ask(exchanges=1))
        last = await one.run(ask(exchanges=1))

    assert paused(first)[:2] == (True, 1)
    assert text_of(last) == '{"name": "Paris"}'
    assert len(backend.started) == 1


@memories
@pytest.mark.asyncio
async def test_chained_turn_begins_only_after_the_pause_before_it(memory: Memory) -> None:
    class Chaining(Looking):
        def handle_response(self, turn: Turn, response: Response) -> Any:
            super().handle_response(turn, response)
            return Prompt("b?") if turn.number == 1 else None

    agent, backend = Chaining(), Steps("one", "two")
    async with engine(backend, agent, TurnRules(memory=memory)) as one:
        first = await one.run(ask(prompt="a?", exchanges=1))
        assert agent.journal == ["before 1, attempt 1", "response one", "after 1"]
        last = await one.run(ask(prompt="a?", exchanges=1))

    assert paused(first)[:2] == (True, 1)
    assert (text_of(last), last.turns) == ("two", 2)
    assert agent.journal[3:] == ["before 2, attempt 1", "response two", "after 2"]
    assert backend.started == [[]]


@pytest.mark.asyncio
async def test_pause_is_no_attempt_and_a_refusal_is_a_request() -> None:
    backend, agent = Steps(look(), BUSY, CUT, "A door."), Looking()
    async with engine(backend, agent) as one:
        steps = [await one.run(ask(exchanges=1, attempt=n)) for n in (1, 1, 1, 2)]

    assert [one.requests for one in steps] == [1, 1, 1, 1]
    assert [one.failure.verdict if one.failure else None for one in steps] == [
        None,
        "refused",
        "transient",
        None,
    ]
    assert text_of(steps[-1]) == "A door."
    assert [results_in(asked) for asked in backend.asked[1:]] == [["door 1"]] * 3
    assert agent.journal == ["before 1, attempt 1", "response A door.", "after 1"]


@pytest.mark.asyncio
async def test_conversation_that_is_shortened_is_asked_again_after_a_pause() -> None:
    library, backend = Library(), Steps(TOO_LONG, "c")
    library.conversations[USER] = [*said("a?", "a"), *said("b?", "b")]
    async with engine(backend, library=library) as one:
        work: dict[str, Any] = {"prompt": "c?", "session": USER, "session_turns": 2, "exchanges": 1}
        first = await one.run(ask(**work))
        last = await one.run(ask(**work))

    assert paused(first)[:2] == (True, 1)
    assert text_of(last) == "c"
    assert backend.started[-1] == said("b?", "b")
    assert last.conversation is not None
    assert last.conversation.messages == [*said("b?", "b"), *said("c?", "c")]


@pytest.mark.asyncio
async def test_named_session_has_all_that_was_said_before_and_after_a_pause() -> None:
    backend = Steps(look(), "A door.", "Still.")
    async with engine(backend, Looking()) as one:
        await one.run(ask(1, "what is there?", session=USER, exchanges=1))
        last = await one.run(ask(1, "what is there?", session=USER, exchanges=1))
        await one.run(ask(2, "still?", session=USER, session_turns=1, exchanges=1))

    assert last.conversation is not None
    assert [one["role"] for one in last.conversation.messages] == ["user", "assistant"] * 2
    assert backend.started == [[]]


@pytest.mark.asyncio
async def test_worker_with_memory_runs_other_tasks_between_the_exchanges_of_one() -> None:
    backend, agent = Steps(look(), "other", "A door.", "more"), Looking()

    async with engine(backend, agent, TurnRules(memory="worker")) as one:
        assert (await one.run(ask(1, "what is there?", exchanges=1))).is_paused
        assert text_of(await one.run(ask(2, "x?", exchanges=1))) == "other"
        assert text_of(await one.run(ask(1, "what is there?", exchanges=1))) == "A door."
        assert text_of(await one.run(ask(3, "and more?"))) == "more"

    assert agent.looks == 1
    assert backend.started[1] == []
    again = backend.started[2]
    assert again[:2] == said("x?", "other")
    assert again[2] == {"role": "user", "content": "what is there?"}
    assert again[3]["content"][0]["type"] == "tool_use"
    assert backend.open_sessions == 0


@pytest.mark.asyncio
async def test_time_of_a_turn_is_that_of_its_attempt_without_the_pauses() -> None:
    clock = FakeClock()

    async def slow() -> Any:
        clock.advance(40.0)
        return look()

    async def slower() -> str:
        clock.advance(19.0)
        return "A door."

    async with engine(Steps(slow, slower), Looking(), clock=clock) as one:
        await one.run(ask(exchanges=1, timeout=60.0))
        clock.advance(3600.0)
        last = await one.run(ask(exchanges=1, timeout=60.0))

    assert last.answer is not None
    assert last.answer.duration_ms == 59_000


@pytest.mark.asyncio
async def test_turn_that_went_on_after_a_pause_has_only_what_is_left_of_its_time() -> None:
    clock = FakeClock()

    async def slow() -> Any:
        clock.advance(59.99)
        return look()

    agent = Looking()
    async with engine(Steps(slow, asyncio.Event().wait), agent, clock=clock) as one:
        await one.run(ask(exchanges=1, timeout=60.0))
        failure = failure_of(await one.run(ask(exchanges=1, timeout=60.0)))

    assert (failure.kind, failure.duration_ms) == ("TurnTimeout", 59_990)
    assert agent.journal[1:] == ["error TurnTimeout", "after 1"]


@pytest.mark.asyncio
async def test_turn_that_goes_on_is_told_of_once() -> None:
    log = new_log()
    async with engine(Steps(look(), CUT, look(2), "A door."), Looking(), log=log) as one:
        for attempt in (1, 1, 2, 2):
            await one.run(ask(exchanges=1, attempt=attempt))

    starts = [event.fields["attempt"] for event in told(log) if event.name == "prompt.start"]
    assert starts == [1, 2]


@pytest.mark.asyncio
async def test_task_that_waits_in_the_middle_stays_where_it_is_while_the_agent_is_halted() -> None:
    class Halting(Looking):
        def handle_response(self, turn: Turn, response: Response) -> Any:
            return Halt("review") if response.text == "halt" else None

    backend = Steps(look(), "halt", "A door.")
    async with engine(backend, Halting()) as one:
        await one.run(ask(1, exchanges=1))
        assert (await one.run(ask(2))).halt == "review"
        one.resume()
        last = await one.run(ask(1, exchanges=1))

    assert text_of(last) == "A door."
    assert results_in(backend.asked[-1]) == ["door 1"]


@pytest.mark.asyncio
async def test_forgotten_task_begins_anew_and_leaves_no_session_open() -> None:
    backend, agent = Steps(look(), "Nothing."), Looking()
    async with engine(backend, agent) as one:
        await one.run(ask(prompt="what is there?", exchanges=1))
        await one.forget(1)
        assert backend.open_sessions == 0
        last = await one.run(ask(prompt="what is there?", exchanges=1))

    assert text_of(last) == "Nothing."
    assert backend.asked == ["what is there?"] * 2


@pytest.mark.asyncio
async def test_engine_that_ends_closes_the_sessions_of_tasks_that_wait() -> None:
    backend = Steps(look(), look())
    async with engine(backend, Looking()) as one:
        for number in (1, 2):
            assert (await one.run(ask(number, exchanges=1))).is_paused
        assert backend.open_sessions == 2

    assert backend.open_sessions == 0


@pytest.mark.asyncio
async def test_chain_that_may_make_no_exchange_waits_before_its_first_turn() -> None:
    agent = Looking()
    async with engine(Steps("one"), agent) as one:
        assert paused(await one.run(ask(exchanges=0))) == (True, 0, Usage(), 0.0)
        assert agent.journal == []
        assert text_of(await one.run(ask(exchanges=1))) == "one"


def test_slot_is_free_for_others_while_a_task_waits_in_the_middle() -> None:
    with running_host(Steps(look(), "other", "A door."), Looking()) as host:
        [[first]] = [batch.outcomes for batch in host.post([ask(1, exchanges=1)]).batches()]
        assert (first.is_paused, host.running, host.finished) == (True, [], 1)
        assert outcomes(post(host, 2)) == {2: "other"}
        assert outcomes(host.post([ask(1, exchanges=1)])) == {1: "A door."}
        assert host.finished == 3


def test_task_that_waits_in_the_middle_can_be_cancelled() -> None:
    backend = Steps(look(), "other")
    with running_host(backend, Looking()) as host:
        list(host.post([ask(1, exchanges=1)]).batches())

        assert host.cancel([1]) == [1]
        assert outcomes(post(host, 2)) == {2: "other"}
        assert backend.open_sessions == 0


def test_interrupt_leaves_a_task_that_waits_in_the_middle_alone() -> None:
    with running_host(Steps(look(), "A door."), Looking()) as host:
        list(host.post([ask(1, exchanges=1)]).batches())

        assert host.interrupt() == 0
        assert outcomes(host.post([ask(1, exchanges=1)])) == {1: "A door."}
