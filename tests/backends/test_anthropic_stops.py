"""What each stop reason of the Messages API means for a turn and for its conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest

from raypool.backends.anthropic_turn import MOST_PAUSES
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, ToolUseEvent, UsageEvent
from raypool.prices import cost_usd
from raypool.task import Content
from raypool.testing import Answer, Call, Fault, MessagesServer
from raypool.usage import Usage

Converse: TypeAlias = Callable[..., list[list[Event]]]
Block: TypeAlias = dict[str, Any]

MODEL = "claude-haiku-5-5"
LOOK_UP: Block = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"city": "Paris"}}
THOUGHT: Block = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
SEARCH: Block = {
    "type": "server_tool_use",
    "id": "s1",
    "name": "web_search",
    "input": {"query": "Paris"},
}
FOUND: Block = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def tool_result(call_id: str = "t1") -> Block:
    return {"type": "tool_result", "tool_use_id": call_id, "content": "sunny"}


def results(*blocks: Block) -> Content:
    """The prompt that answers tool calls."""
    return [{"role": "user", "content": list(blocks or [tool_result()])}]


def in_turn(*answers: Answer | str) -> Callable[[Call], Answer | str]:
    """One answer after the other; the last one again and again."""
    return lambda call: answers[min(call.number, len(answers)) - 1]


def calling(*blocks: Block) -> Answer:
    return Answer(blocks or [LOOK_UP], stop_reason="tool_use")


def sent(server: MessagesServer, number: int) -> list[Any]:
    """The contents of the messages of one request."""
    return [message["content"] for message in server.calls[number - 1].body["messages"]]


def stop_reason(events: list[Event]) -> str | None:
    assert isinstance(events[-1], ResultEvent), events
    return events[-1].stop_reason


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextEvent))


class TestEnds:
    @pytest.mark.parametrize(
        "reason",
        ["end_turn", "stop_sequence", "max_tokens", "model_context_window_exceeded", "a_new_one"],
    )
    def test_an_answer_is_remembered_and_its_reason_told(
        self, converse: Converse, reason: str
    ) -> None:
        with MessagesServer(Answer("Paris is", stop_reason=reason)) as server:
            [first, _] = converse(server.url, "Where?", "Sure?")

            assert sent(server, 2) == ["Where?", [text("Paris is")], "Sure?"]
        assert text_of(first) == "Paris is"
        assert stop_reason(first) == reason

    @pytest.mark.parametrize("content", [(), [text("")], "I would"], ids=["none", "empty", "text"])
    def test_a_refusal_is_an_answer_and_is_forgotten(
        self, converse: Converse, content: str | Sequence[Block]
    ) -> None:
        refusal = Answer(content, stop_reason="refusal")
        with MessagesServer(in_turn("Hello.", refusal, "Yes.")) as server:
            turns = converse(server.url, "Hello!", "Do harm.", "Still there?")

            assert sent(server, 3) == ["Hello!", [text("Hello.")], "Still there?"]
        assert stop_reason(turns[1]) == "refusal"


class TestToolUse:
    def test_tools_that_are_asked_for_arrive_whole_before_the_result(
        self, converse: Converse
    ) -> None:
        now: Block = {"type": "tool_use", "id": "t2", "name": "now", "input": {}}
        with MessagesServer(calling(text("Wait."), LOOK_UP, now)) as server:
            [events] = converse(server.url, "weather?")

        assert events[:3] == [
            TextEvent("Wait."),
            ToolUseEvent("t1", "look_up", {"city": "Paris"}),
            ToolUseEvent("t2", "now", {}),
        ]
        assert stop_reason(events) == "tool_use"

    def test_results_follow_the_turn_that_asked_for_them(self, converse: Converse) -> None:
        with MessagesServer(in_turn(calling(THOUGHT, LOOK_UP), "Sunny.")) as server:
            [_, last] = converse(server.url, "weather?", results())

            assert sent(server, 2) == ["weather?", [THOUGHT, LOOK_UP], [tool_result()]]
        assert text_of(last) == "Sunny."

    def test_a_prompt_with_some_of_the_results_is_an_error_that_names_the_others(
        self, converse: Converse
    ) -> None:
        both = calling(LOOK_UP, {**LOOK_UP, "id": "t2"})
        with MessagesServer(in_turn(both, "Sunny.")) as server:
            [_, [error], last] = converse(
                server.url,
                "weather?",
                results(),
                results(tool_result("t1"), tool_result("t2")),
            )

            assert len(server.calls) == 2
        assert isinstance(error, ErrorEvent)
        assert error.verdict == "invalid"
        assert "no result for tool call 't2'" in error.message
        assert stop_reason(last) == "end_turn"

    def test_a_prompt_without_results_gives_the_question_up(self, converse: Converse) -> None:
        with MessagesServer(in_turn("Hello.", calling(), calling(), "Yes.")) as server:
            converse(server.url, "Hello!", "weather?", results(), "Still there?")

            assert sent(server, 4) == ["Hello!", [text("Hello.")], "Still there?"]

    def test_results_can_be_given_again_after_an_error(self, converse: Converse) -> None:
        faults = [None, Fault.status(500)]
        with MessagesServer(in_turn(calling(), "", "Sunny."), faults=faults) as server:
            turns = converse(server.url, "weather?", results(), results())

            assert sent(server, 3) == ["weather?", [LOOK_UP], [tool_result()]]
        assert isinstance(turns[1][-1], ErrorEvent)
        assert text_of(turns[2]) == "Sunny."

    def test_a_refusal_of_the_results_forgets_the_question_too(self, converse: Converse) -> None:
        refusal = Answer((), stop_reason="refusal")
        with MessagesServer(in_turn(calling(), refusal, "Yes.")) as server:
            converse(server.url, "weather?", results(), "Still there?")

            assert sent(server, 3) == ["Still there?"]

    def test_nothing_to_say_about_the_results_is_an_answer(self, converse: Converse) -> None:
        with MessagesServer(in_turn(calling(), Answer(()), "Yes.")) as server:
            [_, silent, _] = converse(server.url, "weather?", results(), "Still there?")

            assert sent(server, 3) == ["weather?", [LOOK_UP], [tool_result()], "Still there?"]
        assert text_of(silent) == ""
        assert stop_reason(silent) == "end_turn"

    @pytest.mark.parametrize(
        ("blocks", "words"),
        [
            ([text("Wait.")], "without asking for one"),
            ([{**LOOK_UP, "input": '{"city": "Pa'}], "broken JSON"),
        ],
        ids=["no tool", "broken input"],
    )
    def test_a_call_that_cannot_be_read_is_tried_again(
        self, converse: Converse, blocks: list[Block], words: str
    ) -> None:
        with MessagesServer(calling(*blocks)) as server:
            [events] = converse(server.url, "weather?")

        assert isinstance(events[-1], ErrorEvent)
        assert events[-1].verdict == "transient"
        assert words in events[-1].message


class TestCutOff:
    @pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
    @pytest.mark.parametrize(
        "cut",
        [
            [{**LOOK_UP, "input": '{"city": "Pa'}],
            [LOOK_UP, {**LOOK_UP, "id": "t2", "input": ""}],
            [THOUGHT],
            [SEARCH],
        ],
        ids=["half a call", "one call and a half", "a thought", "a search"],
    )
    def test_what_cannot_be_sent_again_is_not_remembered(
        self, converse: Converse, cut: list[Block], reason: str
    ) -> None:
        answer = Answer([text("Let me see."), *cut], stop_reason=reason)
        with MessagesServer(answer) as server:
            [first, second] = converse(server.url, "weather?", "Go on.")

            assert sent(server, 2) == ["weather?", [text("Let me see.")], "Go on."]
        assert not any(isinstance(event, ToolUseEvent) for event in first)
        assert stop_reason(first) == stop_reason(second) == reason

    def test_an_answer_of_half_a_call_is_forgotten_with_its_question(
        self, converse: Converse
    ) -> None:
        half = Answer([{**LOOK_UP, "input": '{"ci'}], stop_reason="max_tokens")
        with MessagesServer(half) as server:
            converse(server.url, "weather?", "Go on.")

            assert sent(server, 2) == ["Go on."]


class TestPause:
    def test_a_paused_answer_is_continued_in_the_same_turn(self, converse: Converse) -> None:
        paused = Answer([text("Let me see. "), SEARCH], "pause_turn", usage=Usage(10, 5))
        rest = Answer([FOUND, text("Sunny.")], usage=Usage(20, 2, cache_read_tokens=7))
        with MessagesServer(in_turn(paused, rest, "Yes.")) as server:
            [first, _] = converse(server.url, "weather?", "Sure?")

            whole = [text("Let me see. "), SEARCH, FOUND, text("Sunny.")]
            assert sent(server, 2) == ["weather?", [text("Let me see. "), SEARCH]]
            assert sent(server, 3) == ["weather?", whole, "Sure?"]
        usage = Usage(30, 7, cache_read_tokens=7)
        assert text_of(first) == "Let me see. Sunny."
        assert isinstance(first[-1], ResultEvent)
        assert (first[-1].stop_reason, first[-1].usage) == ("end_turn", usage)
        assert first[-1].cost_usd == pytest.approx(cost_usd(MODEL, usage))

    def test_an_error_after_a_pause_tells_the_tokens_of_both_and_is_forgotten(
        self, converse: Converse
    ) -> None:
        paused = Answer("Let me see.", "pause_turn", usage=Usage(10, 5))
        with MessagesServer(
            in_turn(paused, "", "Yes."), faults=[None, Fault.overloaded()]
        ) as server:
            [first, _] = converse(server.url, "weather?", "Sure?")

            assert sent(server, 3) == ["Sure?"]
        assert first[-2] == UsageEvent(Usage(10, 5))
        assert isinstance(first[-1], ErrorEvent)

    def test_pauses_without_end_end_the_turn(self, converse: Converse) -> None:
        with MessagesServer(Answer([text("Hm. "), SEARCH], "pause_turn")) as server:
            [events] = converse(server.url, "weather?")

            assert len(server.calls) == 1 + MOST_PAUSES
        assert text_of(events) == "Hm. " * (1 + MOST_PAUSES)
        assert stop_reason(events) == "pause_turn"
