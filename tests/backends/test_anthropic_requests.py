"""What an `AnthropicBackend` sends: tools, schemas, earlier messages, and what is to be cached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import pydantic
import pytest

from raypool.agent import SessionOptions
from raypool.backends import AnthropicBackend
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.prices import cost_usd
from raypool.testing import Answer, Call, Fault, MessagesServer
from raypool.usage import Usage

Converse: TypeAlias = Callable[..., list[list[Event]]]

EPHEMERAL = {"type": "ephemeral"}


def look_up(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


class City(pydantic.BaseModel):
    name: str
    people: Annotated[int, pydantic.Field(ge=0)]


class Tree(pydantic.BaseModel):
    branches: list[Tree]


def recite(call: Call) -> str:
    return f"So far: {call.conversation}"


class TestTools:
    def test_tools_are_offered_by_their_schemas(self, converse: Converse) -> None:
        with MessagesServer() as server:
            converse(server.url, "weather?", options=SessionOptions(system="Hi.", tools=[look_up]))
            [tool] = server.calls[0].body["tools"]

        assert tool["name"] == "look_up"
        assert tool["description"] == "The weather of a city."
        assert tool["input_schema"]["properties"] == {"city": {"type": "string"}}
        assert tool["input_schema"]["required"] == ["city"]

    def test_without_tools_none_are_sent(self, converse: Converse) -> None:
        with MessagesServer() as server:
            converse(server.url, "Hello?")

            assert "tools" not in server.calls[0].body


class TestOutputType:
    def test_the_schema_is_sent_as_the_api_can_enforce_it(self, converse: Converse) -> None:
        reply = '{"name": "Paris", "people": 2000000}'
        with MessagesServer(reply) as server:
            [events] = converse(server.url, "Paris?", options=SessionOptions(output_type=City))
            sent = server.calls[0].body["output_config"]["format"]

        assert sent["type"] == "json_schema"
        assert sent["schema"]["required"] == ["name", "people"]
        assert sent["schema"]["properties"]["people"] == {
            "type": "integer",
            "description": "{minimum: 0}",
        }
        assert events[-1].type == "result"

    def test_a_paid_answer_that_does_not_fit_is_an_answer(self, converse: Converse) -> None:
        with MessagesServer("Paris, I think.") as server:
            [events] = converse(server.url, "Paris?", options=SessionOptions(output_type=City))

        assert "".join(one.text for one in events if isinstance(one, TextEvent)) == (
            "Paris, I think."
        )
        assert isinstance(events[-1], ResultEvent)

    @pytest.mark.parametrize("output_type", [dict[str, int], Tree, list[Any]], ids=str)
    def test_a_schema_that_the_api_cannot_enforce_is_asked_for_in_words(
        self, converse: Converse, output_type: Any
    ) -> None:
        options = SessionOptions(system="Be brief.", output_type=output_type)
        with MessagesServer() as server:
            [events] = converse(server.url, "Well?", options=options, cache_prompts=False)
            body = server.calls[0].body

        assert "output_config" not in body
        assert body["system"].startswith("Be brief.\n\nAnswer with nothing but JSON that fits")
        assert events[-1].type == "result"


class TestMemory:
    MESSAGES = (
        {"role": "user", "content": "The password is cobalt."},
        {"role": "assistant", "content": [{"type": "text", "text": "Noted."}]},
    )

    def test_a_conversation_goes_on_where_its_messages_end(self, converse: Converse) -> None:
        with MessagesServer(recite) as server:
            converse(server.url, "Well?", options=SessionOptions(messages=self.MESSAGES))

            assert server.calls[0].body["messages"] == [
                *self.MESSAGES,
                {"role": "user", "content": "Well?"},
            ]

    def test_a_session_tells_its_messages_and_never_changes_a_list_that_it_gave(self) -> None:
        async def scenario(url: str) -> list[list[dict[str, Any]]]:
            backend = AnthropicBackend(api_key="a-test-key", base_url=url)
            await backend.open()
            session = await backend.start(SessionOptions(messages=self.MESSAGES))
            told = [session.messages or []]
            for prompt in ("One?", "Two?"):
                assert [event async for event in session.prompt(prompt)]
                told.append(session.messages or [])
            await backend.close()
            return told

        with MessagesServer("Yes.") as server:
            told = asyncio.run(scenario(server.url))

        yes = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
        one = [{"role": "user", "content": "One?"}, yes]
        two = [{"role": "user", "content": "Two?"}, yes]
        assert told == [[*self.MESSAGES], [*self.MESSAGES, *one], [*self.MESSAGES, *one, *two]]


class TestCaching:
    def test_the_system_prompt_is_marked_and_later_the_conversation_too(
        self, converse: Converse
    ) -> None:
        options = SessionOptions(system="Be brief.", tools=[look_up])
        with MessagesServer("Yes.") as server:
            converse(server.url, "One?", "Two?", options=options)
            first, second = (call.body for call in server.calls)

        marked = [{"type": "text", "text": "Be brief.", "cache_control": EPHEMERAL}]
        assert first["system"] == second["system"] == marked
        assert "cache_control" not in first["tools"][0]
        assert "cache_control" not in first
        assert second["cache_control"] == EPHEMERAL

    def test_tools_alone_are_marked(self, converse: Converse) -> None:
        with MessagesServer() as server:
            converse(server.url, "One?", options=SessionOptions(tools=[look_up]))

            assert server.calls[0].body["tools"][-1]["cache_control"] == EPHEMERAL

    def test_a_conversation_that_is_continued_is_marked_at_once(self, converse: Converse) -> None:
        with MessagesServer() as server:
            converse(server.url, "Well?", options=SessionOptions(messages=TestMemory.MESSAGES))

            assert server.calls[0].body["cache_control"] == EPHEMERAL

    def test_it_can_be_turned_off(self, converse: Converse) -> None:
        options = SessionOptions(system="Be brief.", tools=[look_up])
        with MessagesServer("Yes.") as server:
            converse(server.url, "One?", "Two?", options=options, cache_prompts=False)

            assert "cache_control" not in str([call.body for call in server.calls])

    def test_what_the_cache_saves_and_costs_is_counted(self, converse: Converse) -> None:
        options = SessionOptions(system="word " * 20)
        with MessagesServer("one two", least_cached_words=10) as server:
            turns = converse(server.url, "word " * 5, "word " * 3, options=options)
            [[*_, again]] = converse(server.url, "word " * 7, options=options)

        results = [event for [*_, event] in turns if isinstance(event, ResultEvent)]
        assert [result.usage for result in results] == [
            Usage(5, 2, cache_write_tokens=20),
            Usage(0, 2, cache_read_tokens=20, cache_write_tokens=10),
        ]
        assert isinstance(again, ResultEvent)
        assert again.usage == Usage(7, 2, cache_read_tokens=20)
        for result in (*results, again):
            assert result.usage is not None
            assert result.cost_usd == cost_usd("claude-haiku-5-5", result.usage)

    def test_reading_from_the_cache_is_cheaper_and_writing_dearer(self) -> None:
        read, plain, written = (
            cost_usd("claude-haiku-5-5", usage)
            for usage in (Usage(cache_read_tokens=1000), Usage(1000), Usage(0, 0, 0, 1000))
        )

        assert read is not None
        assert plain is not None
        assert written is not None
        assert read < plain < written


class TestContext:
    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
            (
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, "
                "decrease input length or `max_tokens` and try again",
            ),
            ("BadRequestError", "This model's maximum context length is 4096 tokens."),
            ("exceed_context_size_error", "request (9 tokens) exceeds the available context size"),
        ],
        ids=["Anthropic", "with max_tokens", "vLLM", "llama.cpp"],
    )
    def test_a_conversation_that_is_too_long_is_told_from_other_mistakes(
        self, converse: Converse, kind: str, words: str
    ) -> None:
        faults = [Fault.status(400, kind=kind, message=words), Fault.status(400)]
        with MessagesServer(faults=faults) as server:
            [[full], [other]] = converse(server.url, "One?", "Two?")

        assert isinstance(full, ErrorEvent)
        assert isinstance(other, ErrorEvent)
        assert (full.verdict, other.verdict) == ("invalid", "invalid")
        assert (full.is_context_full, other.is_context_full) == (True, False)

    def test_the_words_alone_mean_nothing_under_another_status(self, converse: Converse) -> None:
        fault = Fault.status(500, message="prompt is too long: the server's fault")
        with MessagesServer(faults=[fault]) as server:
            [[error]] = converse(server.url, "One?")

        assert isinstance(error, ErrorEvent)
        assert (error.verdict, error.is_context_full) == ("transient", False)

    def test_the_conversation_is_as_it_was_and_goes_on(self, converse: Converse) -> None:
        with MessagesServer(Answer("one two"), context_words=10) as server:
            turns = converse(server.url, "word " * 5, "word " * 5, "word " * 3)

        ends = [events[-1] for events in turns]
        assert [end.type for end in ends] == ["result", "error", "result"]
        assert isinstance(ends[1], ErrorEvent)
        assert ends[1].is_context_full
