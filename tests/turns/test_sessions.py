"""Conversations that outlive a task: named sessions, and the worker's own."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from raypool.agent import Agent, Halt, Prompt, SessionOptions, Skip, Turn
from raypool.backends import Session
from raypool.chain_run import TurnRules
from raypool.clock import FakeClock
from raypool.conversations import REST_SECONDS
from raypool.output_type import OutputType
from raypool.response import Response
from raypool.task import Content
from tests.turns.parts import (
    CUT,
    Library,
    Mute,
    Steps,
    Told,
    ask,
    engine,
    failure_of,
    said,
    text_of,
)

pytestmark = pytest.mark.asyncio

USER = "user-42"


class City(BaseModel):
    name: str


async def test_session_goes_on_where_its_last_task_ended_and_says_what_was_added() -> None:
    backend = Steps("Hello Ada.", "You are Ada.")

    async with engine(backend) as one:
        first = await one.run(ask(1, "I am Ada.", session=USER))
        second = await one.run(ask(2, "who am I?", session=USER, session_turns=1))

    assert backend.started == [[]]
    assert first.conversation is not None
    assert first.conversation.messages == said("I am Ada.", "Hello Ada.")
    assert second.conversation is not None
    assert second.conversation.messages == said("who am I?", "You are Ada.")
    assert not second.conversation.is_whole
    assert second.answer is not None
    assert second.answer.session_id == USER
    assert backend.open_sessions == 0


async def test_session_that_is_not_here_is_continued_from_the_library() -> None:
    library = Library()
    library.conversations[USER] = said("I am Ada.", "Hello Ada.")
    backend = Steps("You are Ada.", "Still Ada.")

    async with engine(backend, library=library) as one:
        await one.run(ask(1, "who am I?", session=USER, session_turns=1))
        await one.run(ask(2, "and now?", session=USER, session_turns=2))

    assert backend.started == [said("I am Ada.", "Hello Ada.")]
    assert library.asked == [USER]


async def test_session_that_another_worker_has_continued_is_loaded_again() -> None:
    library, backend = Library(), Steps("one", "three")

    async with engine(backend, library=library) as one:
        library.keep(await one.run(ask(1, "a?", session=USER)))
        library.conversations[USER] += said("b?", "two")
        await one.run(ask(3, "c?", session=USER, session_turns=2))

    assert backend.started == [[], [*said("a?", "one"), *said("b?", "two")]]
    assert backend.open_sessions == 0


async def test_session_that_cannot_be_loaded_fails_the_attempt() -> None:
    async with engine(Steps("never")) as one:
        failure = failure_of(await one.run(ask(session=USER, session_turns=1)))

    assert (failure.type, failure.verdict) == ("KeyError", "transient")


async def test_sessions_run_side_by_side_and_know_nothing_of_one_another() -> None:
    backend = Steps("Hello Ada.", "Hello Bob.", "Ada.", "Bob.")

    async with engine(backend) as one:
        await one.run(ask(1, "I am Ada.", session="ada"))
        await one.run(ask(2, "I am Bob.", session="bob"))
        ada = await one.run(ask(3, "who am I?", session="ada", session_turns=1))
        bob = await one.run(ask(4, "who am I?", session="bob", session_turns=1))

    assert (text_of(ada), text_of(bob)) == ("Ada.", "Bob.")
    assert backend.started == [[], []]


@pytest.mark.parametrize("way", ["rested too long", "too many others"])
async def test_session_that_rests_leaves_memory_and_comes_back_from_the_library(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, library = FakeClock(), Library()
    backend = Steps("one", "other", "two")

    async with engine(backend, library=library, clock=clock) as one:
        monkeypatch.setattr(one._conversations, "_most_resting", 1)
        library.keep(await one.run(ask(1, "a?", session=USER)))
        if way == "rested too long":
            monkeypatch.setattr(one._conversations, "_most_resting", 9)
            clock.advance(REST_SECONDS)
        await one.run(ask(2, "x?", session="somebody else"))
        assert backend.open_sessions == 1
        await one.run(ask(3, "b?", session=USER, session_turns=1))

    assert backend.started[-1] == said("a?", "one")
    assert library.asked == [USER]


@pytest.mark.parametrize("has_messages", [True, False], ids=["keeps messages", "keeps none"])
async def test_failed_task_leaves_its_session_as_it_was(has_messages: bool) -> None:
    class Chaining(Agent):
        def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
            return Prompt("go on") if response.text == "half" else None

    class Forgetful(Steps):
        async def start(self, options: SessionOptions) -> Session:
            session = await super().start(options)
            return session if has_messages else Mute(session)

    library, backend = Library(), Forgetful("one", "half", CUT, "two")
    rules = TurnRules(max_attempts=1)
    async with engine(backend, Chaining(), rules, library=library) as one:
        library.keep(await one.run(ask(1, "a?", session=USER)))
        failed = await one.run(ask(2, "b?", session=USER, session_turns=1))
        outcome = await one.run(ask(3, "c?", session=USER, session_turns=1))

    assert failure_of(failed).type == "ConnectionError"
    assert failed.conversation is None
    assert backend.started == [[], said("a?", "one")]
    assert outcome.conversation is not None
    assert outcome.conversation.messages == said("c?", "two")


@pytest.mark.parametrize("stop", [Skip("no"), Halt("no")], ids=["skipped", "handed back"])
async def test_task_that_was_never_asked_leaves_its_session_open(stop: Skip | Halt) -> None:
    class Choosy(Agent):
        def pre_turn(self, turn: Turn, prompt: Content) -> Skip | Halt | None:
            return stop if turn.task.id == "task-2" else None

    backend = Steps("one", "two")
    async with engine(backend, Choosy()) as one:
        await one.run(ask(1, "a?", session=USER))
        await one.run(ask(2, "b?", session=USER, session_turns=1))
        outcome = await one.run(ask(3, "c?", session=USER, session_turns=1))

    assert backend.started == [[]]
    assert outcome.conversation is not None
    assert outcome.conversation.messages == said("c?", "two")


async def test_tasks_of_a_session_may_ask_for_answers_of_different_types() -> None:
    library = Library(City)
    digest = OutputType.of(City).digest
    backend = Steps("Hello.", '{"name": "Paris"}', "Bye.")

    async with engine(backend, library=library) as one:
        await one.run(ask(1, "hello", session=USER))
        city = await one.run(
            ask(2, "which city?", session=USER, session_turns=1, output_type=digest)
        )
        await one.run(ask(3, "bye", session=USER, session_turns=2))

    assert text_of(city) == '{"name": "Paris"}'
    assert [getattr(options.output_type, "name", None) for options in backend.options] == [
        None,
        "City",
        None,
    ]
    assert backend.started[2] == [
        *said("hello", "Hello."),
        *said("which city?", '{"name": "Paris"}'),
    ]
    assert backend.open_sessions == 0


async def test_worker_with_memory_forgets_what_a_failed_turn_has_said() -> None:
    class Broken(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            if response.text == "wrong":
                raise ValueError("wrong")

    backend = Steps("one", "wrong", "three")
    async with engine(backend, Broken(), TurnRules(memory="worker")) as one:
        await one.run(ask(1, "a?"))
        await one.run(ask(2, "b?"))
        assert text_of(await one.run(ask(3, "c?"))) == "three"

    assert backend.started == [[], said("a?", "one")]
    assert backend.open_sessions == 0


async def test_conversation_that_cannot_be_opened_again_fails_a_turn_and_no_more() -> None:
    class Broken(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            if response.text == "wrong":
                raise ValueError("wrong")

    class Flaky(Steps):
        async def start(self, options: SessionOptions) -> Session:
            if len(self.started) == 1:
                self.started.append([])
                raise ConnectionError("no line")
            return await super().start(options)

    backend = Flaky("one", "wrong", "three")
    async with engine(backend, Broken(), TurnRules(memory="worker")) as one:
        await one.run(ask(1, "a?"))
        wrong = await one.run(ask(2, "b?"))
        down = await one.run(ask(3, "c?"))
        outcome = await one.run(ask(3, "c?", attempt=2))

    assert failure_of(wrong).type == "ValueError"
    assert (failure_of(down).type, failure_of(down).verdict) == ("ConnectionError", "transient")
    assert text_of(outcome) == "three"
    assert backend.started[-1] == said("a?", "one")


async def test_session_of_a_worker_that_stops_is_closed() -> None:
    backend = Told()

    async with engine(backend) as one:
        await one.run(ask(session=USER))
        assert "close session" not in backend.log

    assert backend.log[-2:] == ["close session", "close backend"]
