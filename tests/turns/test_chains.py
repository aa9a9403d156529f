"""Chains: several turns for one task, and retries that go on where the task was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raypool.agent import Agent, Halt, Prompt, Skip, Turn
from raypool.chain_run import TurnRules
from raypool.conversations import Memory
from raypool.errors import TaskFailed
from raypool.events import ErrorEvent, ResultEvent, TextEvent, UsageEvent
from raypool.messages import Outcome
from raypool.response import Response
from raypool.task import Content
from raypool.usage import Usage
from tests.turns.parts import CUT, Steps, ask, engine, failure_of, said, text_of

pytestmark = pytest.mark.asyncio


class Planned(Agent):
    """Decides what is planned, one decision after the other.

    Attributes:
        turns: the turns of which it was told, as (number, attempt).
        errors: the errors that it was asked about.
    """

    def __init__(self, *decisions: Prompt | Halt | None) -> None:
        self._decisions = list(decisions)
        self.turns: list[tuple[int, int]] = []
        self.errors: list[TaskFailed] = []

    def handle_response(self, turn: Turn, response: Response) -> Prompt | Halt | None:
        self.turns.append((turn.number, turn.attempt))
        return self._decisions.pop(0) if self._decisions else None

    def handle_error(self, turn: Turn, error: TaskFailed) -> Prompt | Halt | None:
        self.errors.append(error)
        return self._decisions.pop(0) if self._decisions else None


class Endless(Agent):
    """Never has enough."""

    def handle_response(self, turn: Turn, response: Response) -> Prompt:
        return Prompt("go on")

    def handle_error(self, turn: Turn, error: TaskFailed) -> Prompt:
        return Prompt("go on all the same")


async def test_chain_is_one_conversation_and_its_task_has_the_last_response() -> None:
    backend, agent = Steps("one", "two", "three"), Planned(Prompt("b?"), Prompt("c?"))

    async with engine(backend, agent) as one:
        outcome = await one.run(ask(prompt="a?"))

    assert text_of(outcome) == "three"
    assert backend.asked == ["a?", "b?", "c?"]
    assert backend.started == [[]]
    assert agent.turns == [(1, 1), (2, 1), (3, 1)]
    assert backend.open_sessions == 0


async def test_tokens_and_cost_of_a_chain_are_summed_on_its_outcome_and_not_on_its_response() -> (
    None
):
    responses: list[Response] = []

    class Counting(Planned):
        def handle_response(self, turn: Turn, response: Response) -> Prompt | Halt | None:
            responses.append(response)
            return super().handle_response(turn, response)

    async with engine(Steps("one", "two", "three"), Counting(Prompt("b?"), Prompt("c?"))) as one:
        outcome = await one.run(ask())

    assert (outcome.usage, outcome.cost_usd, outcome.turns) == (Usage(3, 3), 1.5, 3)
    assert [response.usage for response in responses] == [Usage(1, 1)] * 3
    assert [response.cost_usd for response in responses] == [0.5] * 3


async def test_cost_of_a_chain_is_not_known_when_that_of_one_turn_is_not() -> None:
    priceless = [TextEvent("two"), ResultEvent(usage=Usage(1, 1))]

    async with engine(Steps("one", priceless, "three"), Planned(Prompt("b"), Prompt("c"))) as one:
        outcome = await one.run(ask())

    assert (outcome.usage, outcome.cost_usd) == (Usage(3, 3), None)


async def test_chain_without_end_fails_at_its_limit_and_says_what_to_write() -> None:
    backend = Steps(*["again"] * 5)

    async with engine(backend, Endless(), TurnRules(max_turns_per_task=3)) as one:
        outcome = await one.run(ask())

    failure = failure_of(outcome)
    assert (failure.kind, failure.type, failure.verdict) == (
        "TaskFailed",
        "TooManyTurns",
        "invalid",
    )
    assert "max_turns_per_task=3; let handle_response and handle_error return None" in (
        failure.message
    )
    assert len(backend.asked) == 3
    assert (outcome.turns, outcome.usage) == (3, Usage(3, 3))


async def test_chain_whose_turns_all_fail_has_the_same_limit() -> None:
    backend = Steps(*[CUT] * 9)
    rules = TurnRules(max_turns_per_task=3, max_attempts=1)

    async with engine(backend, Endless(), rules) as one:
        failure = failure_of(await one.run(ask()))

    assert failure.type == "TooManyTurns"
    assert len(backend.asked) == 3


async def test_halt_ends_its_task_with_the_response_and_is_reported_once() -> None:
    async with engine(agent=Planned(Halt("enough"), Halt("again"))) as one:
        first, second = await one.run(ask(1)), await one.run(ask(2))

        assert one.halting.reason == "enough"
        assert one.resume() is True
        assert one.resume() is False

    assert (text_of(first), first.halt) == ("why?", "enough")
    assert (text_of(second), second.halt) == ("why?", None)


async def test_agent_may_halt_again_after_it_was_resumed() -> None:
    post_runs = 0

    class Halting(Planned):
        def post_run(self) -> None:
            nonlocal post_runs
            post_runs += 1

    async with engine(agent=Halting(Halt("one"), Halt("two"))) as one:
        first = await one.run(ask(1))
        one.resume()
        second = await one.run(ask(2))

    assert (first.halt, second.halt, post_runs) == ("one", "two", 2)


async def test_skip_in_the_middle_of_a_chain_cancels_the_task_with_its_tokens_counted() -> None:
    class Skipping(Planned):
        def pre_turn(self, turn: Turn, prompt: Content) -> Skip | None:
            return Skip("seen enough") if turn.number == 2 else None

    async with engine(Steps("one"), Skipping(Prompt("b?"))) as one:
        outcome = await one.run(ask())

    assert outcome == Outcome(
        1, usage=Usage(1, 1), cost_usd=0.5, turns=1, requests=1, skipped="seen enough"
    )


async def test_halt_of_one_task_does_not_cut_short_the_chain_of_another() -> None:
    go_on = asyncio.Event()
    post_runs: list[int] = []

    class Selective(Agent):
        def handle_response(self, turn: Turn, response: Response) -> Prompt | Halt | None:
            if turn.task.id == "task-1":
                return Prompt("b?") if turn.number < 3 else None
            return Halt("enough")

        def post_run(self) -> None:
            post_runs.append(len(ended))

    async def waits() -> str:
        await go_on.wait()
        return "one"

    ended: list[Outcome] = []
    async with engine(Steps(waits, "halts", "two", "three"), Selective()) as one:
        chain = asyncio.create_task(one.run(ask(1)))
        await asyncio.wait({chain}, timeout=0.01)
        ended.append(await one.run(ask(2)))
        go_on.set()
        outcome = await chain

    assert text_of(outcome) == "three"
    assert post_runs == [1]


async def test_handle_error_may_ask_something_else_in_the_same_conversation() -> None:
    backend, agent = Steps("one", CUT, "three"), Planned(Prompt("b?"), Prompt("c?"))

    async with engine(backend, agent, TurnRules(max_attempts=1)) as one:
        outcome = await one.run(ask(prompt="a?", session="user-42"))

    assert text_of(outcome) == "three"
    assert outcome.conversation is not None
    assert outcome.conversation.messages == [*said("a?", "one"), *said("c?", "three")]
    assert [error.cause.message for error in agent.errors] == ["cut"]
    assert agent.turns == [(1, 1), (3, 1)]


async def test_handle_error_may_halt_and_its_task_fails() -> None:
    async with engine(Steps(CUT), Planned(Halt("no line")), TurnRules(max_attempts=1)) as one:
        outcome = await one.run(ask())

    assert failure_of(outcome).type == "ConnectionError"
    assert outcome.halt == "no line"


async def test_transient_failure_is_reported_and_the_agent_hears_only_of_the_last() -> None:
    agent = Planned()

    async with engine(Steps(CUT, CUT, CUT), agent, TurnRules(max_attempts=3)) as one:
        failures = [failure_of(await one.run(ask(attempt=n))) for n in (1, 2, 3)]

    assert [failure.verdict for failure in failures] == ["transient"] * 3
    assert [error.attempts for error in agent.errors] == [3]


REFUSED = ErrorEvent("refused", "overloaded_error", "later")


async def test_refusal_is_waited_for_unless_the_task_may_wait_no_more() -> None:
    agent = Planned()

    async with engine(Steps(REFUSED, REFUSED), agent, TurnRules(max_attempts=1)) as one:
        await one.run(ask(1))
        assert agent.errors == []
        await one.run(ask(1, may_wait=False))

    assert [error.cause.type for error in agent.errors] == ["overloaded_error"]


async def test_provider_out_of_reach_is_waited_for_but_after_the_last_try() -> None:
    agent, nobody = Planned(), ErrorEvent("unreachable", "ConnectError", "nobody is there")

    async with engine(Steps(nobody, nobody), agent, TurnRules(max_attempts=1)) as one:
        await one.run(ask(1))
        assert agent.errors == []
        await one.run(ask(1, may_miss=False))

    assert [error.cause.type for error in agent.errors] == ["ConnectError"]


@pytest.mark.parametrize("memory", ["task", "worker"])
async def test_retry_of_the_third_turn_of_a_chain_goes_on_where_it_was(memory: Memory) -> None:
    backend = Steps("one", "two", CUT, REFUSED, "three")
    agent = Planned(Prompt("b?"), Prompt("c?"))

    async with engine(backend, agent, TurnRules(memory=memory)) as one:
        cut = await one.run(ask(prompt="a?"))
        refused = await one.run(ask(prompt="a?", attempt=2))
        outcome = await one.run(ask(prompt="a?", attempt=2))

    assert [failure_of(cut).turn, failure_of(refused).turn] == [3, 3]
    assert backend.asked == ["a?", "b?", "c?", "c?", "c?"]
    assert agent.turns == [(1, 1), (2, 1), (3, 2)]
    assert (text_of(outcome), outcome.turns) == ("three", 3)
    assert (cut.usage, refused.usage, outcome.usage) == (Usage(2, 2), Usage(), Usage(1, 1))
    assert backend.open_sessions == 0


@pytest.mark.parametrize("memory", ["task", "worker"])
async def test_chain_that_halts_before_a_turn_goes_on_there_when_it_comes_back(
    memory: Memory,
) -> None:
    class Reviewed(Planned):
        is_reviewed = False

        def pre_turn(self, turn: Turn, prompt: Content) -> Halt | None:
            if turn.number == 1 or self.is_reviewed:
                return None
            self.is_reviewed = True
            return Halt("please review")

    backend, agent = Steps("one", "two"), Reviewed(Prompt("b?"))
    async with engine(backend, agent, TurnRules(memory=memory)) as one:
        halted = await one.run(ask(prompt="a?"))
        one.resume()
        outcome = await one.run(ask(prompt="a?", attempt=2))

    assert (halted.is_returned, halted.halt) == (True, "please review")
    assert (halted.usage, outcome.usage) == (Usage(1, 1), Usage(1, 1))
    assert text_of(outcome) == "two"
    assert backend.asked == ["a?", "b?"]
    assert backend.started == [[]]
    assert agent.turns == [(1, 1), (2, 1)]
    assert backend.open_sessions == 0


async def test_worker_with_memory_goes_on_in_what_its_conversation_has_become_meanwhile() -> None:
    backend = Steps("one", CUT, "other", "two")

    async with engine(backend, Planned(Prompt("b?")), TurnRules(memory="worker")) as one:
        await one.run(ask(1, "a?"))
        await one.run(ask(2, "x?"))
        assert text_of(await one.run(ask(1, "a?", attempt=2))) == "two"

    assert backend.started == [[]]


async def test_attempt_that_begins_its_turn_is_looked_at_before_it_again() -> None:
    seen: list[tuple[int, int]] = []

    class Looking(Planned):
        def pre_turn(self, turn: Turn, prompt: Content) -> str:
            seen.append((turn.number, turn.attempt))
            return f"{prompt} ({turn.attempt})"

    backend = Steps(CUT, "one", CUT, "two")
    async with engine(backend, Looking(Prompt("b?"))) as one:
        for attempt in (1, 2, 2):
            outcome = await one.run(ask(prompt="a?", session="user-42", attempt=attempt))

    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert backend.asked == ["a? (1)", "a? (2)", "b? (1)", "b? (2)"]
    assert text_of(outcome) == "two"


async def test_task_that_waits_for_another_attempt_can_be_forgotten() -> None:
    backend = Steps("one", CUT, "anew")

    async with engine(backend, Planned(Prompt("b?"))) as one:
        await one.run(ask(prompt="a?"))
        assert backend.open_sessions == 1
        await one.forget(1)
        assert backend.open_sessions == 0
        assert text_of(await one.run(ask(prompt="a?"))) == "anew"

    assert backend.asked == ["a?", "b?", "a?"]


async def test_conversations_of_tasks_that_wait_are_closed_at_the_end() -> None:
    backend = Steps("one", CUT)

    async with engine(backend, Planned(Prompt("b?"))) as one:
        await one.run(ask(prompt="a?"))

    assert backend.open_sessions == 0


async def test_only_so_many_tasks_that_wait_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypool.chain_run.MOST_PAUSED", 2)
    backend = Steps("one", CUT, "one", CUT, "one", CUT)

    async with engine(backend, Planned(*[Prompt("b?")] * 3)) as one:
        for number in (1, 2, 3):
            await one.run(ask(number))

        assert backend.open_sessions == 2


async def test_tokens_that_were_counted_before_a_failure_are_reported() -> None:
    counted = [UsageEvent(Usage(7, 3)), CUT]

    async with engine(Steps(counted, counted)) as one:
        outcomes = [await one.run(ask(attempt=n)) for n in (1, 2)]

    assert [outcome.usage for outcome in outcomes] == [Usage(7, 3)] * 2


async def test_tokens_that_were_counted_before_an_interrupt_are_reported() -> None:
    class Hanging(Agent):
        async def handle_stream_event(self, turn: Turn, event: Any) -> None:
            await asyncio.Event().wait()

    async with engine(Steps([UsageEvent(Usage(7, 3)), ResultEvent()]), Hanging()) as one:
        outcome = await one.run(ask(timeout=0.02))

    assert failure_of(outcome).kind == "TurnTimeout"
    assert outcome.usage == Usage(7, 3)


async def test_cancelled_task_has_no_outcome_but_what_it_consumed() -> None:
    agent = Planned(Prompt("b?"), Prompt("c?"))
    in_second = asyncio.Event()

    async def hangs() -> None:
        in_second.set()
        await asyncio.Event().wait()

    async with engine(Steps("one", hangs), agent) as one:
        turn = asyncio.create_task(one.run(ask()))
        await in_second.wait()
        one.cancel(1)
        outcome = await turn

    assert outcome == Outcome(1, usage=Usage(1, 1), cost_usd=0.5, turns=1, requests=2)
    assert [type(error).__name__ for error in agent.errors] == ["Interrupted"]


async def test_task_that_is_cancelled_between_its_turns_takes_no_other() -> None:
    class Cancelling(Agent):
        async def post_turn(self, turn: Turn, outcome: Response | TaskFailed) -> None:
            one.cancel(1)

        def handle_response(self, turn: Turn, response: Response) -> Prompt:
            return Prompt("b?")

    backend = Steps("one")
    async with engine(backend, Cancelling()) as one:
        outcome = await one.run(ask())

    assert outcome == Outcome(1, usage=Usage(1, 1), cost_usd=0.5, turns=1, requests=1)
    assert backend.asked == ["why?"]


async def test_timeout_of_a_task_is_that_of_each_of_its_turns() -> None:
    async def slowly() -> str:
        await asyncio.sleep(0.2)
        return "in time"

    backend = Steps(slowly, slowly, slowly)
    async with engine(backend, Planned(Prompt("b?"), Prompt("c?"))) as one:
        assert text_of(await one.run(ask(timeout=0.5))) == "in time"
