"""Answers and conversations of `AnthropicBackend`, over HTTP and the official SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import pytest

from raypool.agent import SessionOptions
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.prices import cost_usd
from raypool.task import Content
from raypool.testing import Answer, Fault, MessagesServer
from raypool.usage import Usage

Converse: TypeAlias = Callable[..., list[list[Event]]]

MODEL = "claude-haiku-5-5"


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextEvent))


def without_limits(event: Event) -> Event:
    return msgspec.structs.replace(event, limits=None)


def test_text_arrives_in_pieces_that_join_to_the_answer(converse: Converse) -> None:
    with MessagesServer(reply="Paris,  of course.\n") as server:
        [events] = converse(server.url, "capital of France?")

    assert [type(event) for event in events] == [*[TextEvent] * 4, ResultEvent]
    assert text_of(events) == "Paris,  of course.\n"


def test_a_result_has_model_stop_reason_usage_and_cost(converse: Converse) -> None:
    usage = Usage(1000, 20, cache_read_tokens=300, cache_write_tokens=40)
    with MessagesServer(reply=Answer("Par", stop_reason="max_tokens", usage=usage)) as server:
        [events] = converse(server.url, "capital of France?")

    assert without_limits(events[-1]) == ResultEvent(
        model=MODEL, stop_reason="max_tokens", usage=usage, cost_usd=cost_usd(MODEL, usage)
    )
    assert cost_usd(MODEL, usage) is not None


def test_a_model_without_a_known_price_has_no_cost(converse: Converse) -> None:
    with MessagesServer(reply="Paris") as server:
        [events] = converse(server.url, "capital of France?", model="smol")

    expected = ResultEvent(model="smol", usage=Usage(3, 1), cost_usd=None)
    assert without_limits(events[-1]) == expected


def test_the_model_is_the_one_that_answered(converse: Converse) -> None:
    with MessagesServer(reply=Answer("Paris", model="claude-opus-5-5")) as server:
        [events] = converse(server.url, "capital of France?", model="the-best")

    assert isinstance(events[-1], ResultEvent)
    assert events[-1].model == "claude-opus-5-5"
    assert events[-1].cost_usd == cost_usd("claude-opus-5-5", Usage(3, 1))


def test_a_request_carries_what_the_session_and_the_backend_ask_for(converse: Converse) -> None:
    options = SessionOptions(system="Be brief.", max_tokens=7, model="claude-opus-5-5")
    with MessagesServer() as server:
        converse(
            server.url,
            "Hello?",
            options=options,
            cache_prompts=False,
            extra_body={"temperature": 0},
            extra_headers={"X-Team": "blue"},
        )
        [call] = server.calls

    assert call.body == {
        "model": "claude-opus-5-5",
        "max_tokens": 7,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello?"}],
        "temperature": 0,
        "stream": True,
    }
    assert call.headers["x-team"] == "blue"
    assert call.headers["authorization"] == "Bearer a-test-key"


def test_no_system_prompt_sends_none(converse: Converse) -> None:
    with MessagesServer() as server:
        converse(server.url, "Hello?")

        assert "system" not in server.calls[0].body


def test_a_second_prompt_sends_the_whole_conversation(converse: Converse) -> None:
    with MessagesServer(reply="Yes.") as server:
        converse(server.url, "Is it?", [{"role": "user", "content": "Really?"}])
        messages = server.calls[1].body["messages"]

    assert messages == [
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "user", "content": "Really?"},
    ]


def test_a_list_of_messages_is_sent_as_it_stands(converse: Converse) -> None:
    prompt: Content = [
        {"role": "user", "content": "Guess."},
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": [{"type": "text", "text": "No."}]},
    ]
    with MessagesServer() as server:
        [events] = converse(server.url, prompt)

        assert server.calls[0].body["messages"] == prompt
    assert text_of(events) == "No."


@pytest.mark.parametrize("fault", [Fault.status(500), Fault.cut(), Fault.error_event()], ids=repr)
def test_a_failed_turn_is_not_part_of_the_conversation(converse: Converse, fault: Fault) -> None:
    with MessagesServer(reply="Yes.", faults=[None, fault]) as server:
        turns = converse(server.url, "One?", "Two?", "Three?")
        said = [message["content"] for message in server.calls[2].body["messages"]]

    assert [type(events[-1]) for events in turns] == [ResultEvent, ErrorEvent, ResultEvent]
    assert said == ["One?", [{"type": "text", "text": "Yes."}], "Three?"]


def test_thinking_is_no_text_and_goes_back_with_its_signature(converse: Converse) -> None:
    thinking = {"type": "thinking", "thinking": "Hm, Paris.", "signature": "c2lnbmVk"}
    hidden = {"type": "redacted_thinking", "data": "aGlkZGVu"}
    text = {"type": "text", "text": "Paris."}
    with MessagesServer(reply=Answer([thinking, hidden, text])) as server:
        turns = converse(server.url, "capital of France?", "Sure?")
        remembered = server.calls[1].body["messages"][1]["content"]

    assert text_of(turns[0]) == "Paris."
    assert remembered == [thinking, hidden, text]


def test_a_prompt_of_ten_megabytes_is_answered(converse: Converse) -> None:
    with MessagesServer(reply="Long.") as server:
        [events] = converse(server.url, "word " * 2_000_000)

    assert isinstance(events[-1], ResultEvent)
    assert events[-1].usage == Usage(2_000_000, 1)


def test_every_character_survives_the_way_there_and_back(converse: Converse) -> None:
    text = "naïve 日本 🎉 \u2028 \x00 \r\n end"
    with MessagesServer() as server:
        [events] = converse(server.url, text)

    assert text_of(events) == text
