"""Conversations that are longer than the model's context."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from raypool.agent import Agent, Prompt, SessionOptions, Turn
from raypool.backends import Session
from raypool.chain_run import TurnRules
from raypool.conversations import shortened
from raypool.events import Event, ResultEvent, TextEvent, ToolUseEvent
from raypool.response import Response
from tests.turns.parts import (
    TOO_LONG,
    Library,
    Mute,
    Steps,
    ask,
    engine,
    failure_of,
    new_log,
    said,
    text_of,
    told,
)

USER = "user-42"


def turns(*names: str) -> list[dict[str, Any]]:
    return [message for name in names for message in said(f"{name}?", name)]


def test_shortening_drops_whole_turns_from_the_oldest_and_keeps_the_newer_half() -> None:
    assert shortened(turns("a", "b", "c", "d")) == turns("c", "d")
    assert shortened(turns("a", "b", "c")) == turns("c")
    assert shortened(turns("a" * 100, "b", "c")) == turns("b", "c")
    assert shortened(turns("a", "b", "c" * 100)) == turns("c" * 100)
    assert shortened(turns("a")) == []
    assert shortened([]) == []


def test_shortening_never_parts_a_tool_call_from_its_result() -> None:
    use = {"type": "tool_use", "id": "1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "x" * 100}
    tool_turn: list[dict[str, Any]] = [
        {"role": "user", "content": "look!"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": "seen"},
    ]

    assert shortened([*turns("a"), *tool_turn]) == tool_turn
    assert shortened([*tool_turn, *turns("a", "b")]) == turns("a", "b")


@pytest.mark.asyncio
async def test_conversation_too_long_for_the_model_is_shortened_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    library, log = Library(), new_log()
    library.conversations[USER] = turns("a", "b", "c", "d")
    backend = Steps(TOO_LONG, TOO_LONG, "e")

    with caplog.at_level(logging.WARNING):
        async with engine(backend, library=library, log=log) as one:
            outcome = await one.run(ask(prompt="e?", session=USER, session_turns=4))

    assert text_of(outcome) == "e"
    assert backend.started[1:] == [turns("c", "d"), turns("d")]
    assert outcome.conversation is not None
    assert outcome.conversation.is_whole
    assert outcome.conversation.messages == turns("d", "e")
    shortenings = [event for event in told(log) if event.name == "conversation.shortened"]
    assert [(event.fields["dropped"], event.fields["kept"]) for event in shortenings] == [
        (4, 4),
        (2, 2),
    ]
    assert caplog.messages[0] == (
        "conversation 'user-42' was longer than the model's context: its 4 oldest messages were "
        "dropped, 4 are kept"
    )
    assert backend.open_sessions == 0


@pytest.mark.asyncio
async def test_prompt_that_alone_is_too_long_fails() -> None:
    library = Library()
    library.conversations[USER] = turns("a")
    backend = Steps(TOO_LONG, TOO_LONG)

    async with engine(backend, library=library) as one:
        failure = failure_of(await one.run(ask(session=USER, session_turns=1)))

    assert failure.message == "prompt is too long"
    assert backend.started == [turns("a"), []]


@pytest.mark.asyncio
async def test_answer_that_filled_the_context_is_kept_and_the_next_turn_finds_it_shorter() -> None:
    full: list[Event] = [
        TextEvent("c"),
        ResultEvent(stop_reason="model_context_window_exceeded"),
    ]

    class Twice(Agent):
        def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
            return Prompt("d?") if turn.number == 1 else None

    library, backend = Library(), Steps(full, "d")
    library.conversations[USER] = turns("a", "b")
    async with engine(backend, Twice(), library=library) as one:
        outcome = await one.run(ask(prompt="c?", session=USER, session_turns=2))

    assert backend.started == [turns("a", "b"), turns("b", "c")]
    assert outcome.conversation is not None
    assert outcome.conversation.messages == turns("b", "c", "d")
    assert outcome.conversation.is_whole


@pytest.mark.asyncio
async def test_session_that_keeps_no_messages_is_shortened_too() -> None:
    class Forgetful(Steps):
        async def start(self, options: SessionOptions) -> Session:
            return Mute(await super().start(options))

    backend = Forgetful("a", "b", TOO_LONG, "c")
    async with engine(backend, agent=Agent(), rules=TurnRules(memory="worker")) as one:
        for number, prompt in enumerate(["a?", "b?", "c?"]):
            outcome = await one.run(ask(number, prompt))

    assert text_of(outcome) == "c"
    assert backend.started == [[], turns("b")]


@pytest.mark.asyncio
async def test_conversation_is_shortened_in_the_middle_of_a_tool_loop_which_goes_on() -> None:
    def look() -> str:
        """Look around."""
        return "a door"

    class Looking(Agent):
        def init_agent(self, start: object) -> SessionOptions:
            return SessionOptions(tools=[look])

    library, backend = Library(), Steps(ToolUseEvent("1", "look", {}), TOO_LONG, "A door.")
    library.conversations[USER] = turns("a", "b")
    async with engine(backend, Looking(), library=library) as one:
        outcome = await one.run(ask(prompt="c?", session=USER, session_turns=2))

    assert text_of(outcome) == "A door."
    assert backend.asked[1] == backend.asked[2]
    question, call = backend.started[1][2:]
    assert backend.started[1][:2] == turns("b")
    assert question == {"role": "user", "content": "c?"}
    assert call["content"][0]["type"] == "tool_use"
    assert outcome.conversation is not None
    assert len(outcome.conversation.messages) == 6


@pytest.mark.asyncio
async def test_turn_that_alone_is_too_long_fails_with_its_tool_calls_kept() -> None:
    def look() -> str:
        """Look around."""
        return "a door"

    class Looking(Agent):
        def init_agent(self, start: object) -> SessionOptions:
            return SessionOptions(tools=[look])

    backend = Steps(ToolUseEvent("1", "look", {}), TOO_LONG)
    async with engine(backend, Looking()) as one:
        failure = failure_of(await one.run(ask(prompt="c?")))

    assert failure.message == "prompt is too long"
    assert backend.started == [[]]
