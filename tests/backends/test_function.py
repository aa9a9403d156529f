"""Any model as a function."""

from __future__ import annotations

import asyncio
from typing import Any

import pydantic
import pytest

from raypool.agent import SessionOptions
from raypool.backends import FunctionBackend
from raypool.events import (
    ErrorEvent,
    Event,
    ResultEvent,
    TextEvent,
    ToolResultEvent,
    ToolUseEvent,
)
from raypool.output_type import output_schema
from raypool.response import Response
from raypool.task import Content
from raypool.tools import tool_schema
from raypool.usage import Usage

OPTIONS = SessionOptions(system="Be brief.", max_tokens=9)


def converse(
    backend: FunctionBackend, *prompts: Content, options: SessionOptions = OPTIONS
) -> list[list[Event]]:
    """The events of each turn of one session."""

    async def run() -> list[list[Event]]:
        session = await backend.start(options)
        return [[event async for event in session.prompt(prompt)] for prompt in prompts]

    return asyncio.run(run())


def test_a_text_is_the_whole_answer() -> None:
    async def shout(prompt: Content, _: SessionOptions) -> str:
        return f"{prompt}!"

    [events] = converse(FunctionBackend(shout), "Hello")

    assert events == [TextEvent("Hello!"), ResultEvent(usage=Usage())]


def test_a_response_brings_usage_model_and_cost() -> None:
    usage = Usage(3, 1)

    async def answer(_: Content, __: SessionOptions) -> Response:
        return Response(
            text="Yes.", usage=usage, model="m", stop_reason="max_tokens", cost_usd=0.25
        )

    [events] = converse(FunctionBackend(answer), "Is it?")

    assert events == [
        TextEvent("Yes."),
        ResultEvent(model="m", stop_reason="max_tokens", usage=usage, cost_usd=0.25),
    ]


def test_the_function_gets_the_sessions_options() -> None:
    async def tell(_: Content, options: SessionOptions) -> str:
        return f"{options.system} {options.max_tokens}"

    [events] = converse(FunctionBackend(tell), "?")

    assert events[0] == TextEvent("Be brief. 9")


def test_the_first_prompt_comes_as_it_is_and_later_ones_with_the_conversation() -> None:
    asked: list[Content] = []

    async def note(prompt: Content, _: SessionOptions) -> str:
        asked.append(prompt)
        return "Yes."

    converse(FunctionBackend(note), "One?", [{"role": "user", "content": "Two?"}])

    assert asked == [
        "One?",
        [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Two?"},
        ],
    ]


def test_a_conversation_goes_on_where_its_messages_end() -> None:
    earlier = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Yes."}]
    asked: list[Content] = []

    async def note(prompt: Content, options: SessionOptions) -> str:
        asked.append(prompt)
        assert options.messages == (), "they are in the prompt"
        return "Yes."

    converse(FunctionBackend(note), "Two?", options=SessionOptions(messages=earlier))

    assert asked == [[*earlier, {"role": "user", "content": "Two?"}]]


class City(pydantic.BaseModel):
    name: str


def test_the_function_can_offer_tools_and_schemas_to_its_library() -> None:
    def look_up(city: str) -> str:
        """The weather."""
        return city

    async def tell(_: Content, options: SessionOptions) -> str:
        schema = output_schema(options)
        assert schema is not None
        names = [tool_schema(tool)["name"] for tool in options.tools]
        return f"{names} {list(schema['properties'])}"

    options = SessionOptions(tools=[look_up], output_type=City)
    [events] = converse(FunctionBackend(tell), "?", options=options)

    assert events[0] == TextEvent("['look_up'] ['name']")


CALL = ToolUseEvent("t1", "look_up", {"city": "Paris"})
RESULT: Content = [
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}],
    }
]


@pytest.mark.parametrize("text", ["Wait.", ""], ids=["text", "no text"])
def test_a_response_may_ask_for_tools_and_the_results_come_with_the_conversation(
    text: str,
) -> None:
    asked: list[Content] = []

    async def answer(prompt: Content, _: SessionOptions) -> str | Response:
        asked.append(prompt)
        if len(asked) == 1:
            return Response(text=text, stop_reason="tool_use", events=(CALL,))
        return "Sunny."

    [first, second] = converse(FunctionBackend(answer), "weather?", RESULT)

    spoken = [TextEvent(text)] if text else []
    said = [{"type": "text", "text": text}] if text else []
    call = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"city": "Paris"}}
    assert first == [*spoken, CALL, ResultEvent(stop_reason="tool_use", usage=Usage())]
    assert second[0] == TextEvent("Sunny.")
    assert asked[1] == [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [*said, call]},
        *RESULT,
    ]


async def always_call(prompt: Content, _: SessionOptions) -> Response:
    other = ToolUseEvent("t2", "now", {})
    return Response(text=str(prompt), stop_reason="tool_use", events=(CALL, other))


def test_a_prompt_without_results_gives_the_question_up() -> None:
    turns = converse(FunctionBackend(always_call), "weather?", "Still there?")

    assert turns[1][0] == TextEvent(str([{"role": "user", "content": "Still there?"}]))


def test_a_prompt_with_some_of_the_results_is_an_error_that_names_the_others() -> None:
    [_, [error]] = converse(FunctionBackend(always_call), "weather?", RESULT)

    assert isinstance(error, ErrorEvent)
    assert error.verdict == "invalid"
    assert "no result for tool call 't2'" in error.message


def test_tools_that_the_function_has_run_itself_are_told_and_not_run_again() -> None:
    events = (CALL, ToolResultEvent("t1", "sunny"))

    async def answer(_: Content, __: SessionOptions) -> Response:
        return Response(text="Sunny.", events=events)

    [told] = converse(FunctionBackend(answer), "weather?")

    assert told == [TextEvent("Sunny."), *events, ResultEvent(usage=Usage())]


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Response(text="Wait.", stop_reason="tool_use"), "no events that name a tool"),
        (Response(text="Wait.", events=(CALL,)), "return Response(…, stop_reason='tool_use')"),
    ],
    ids=["no tool", "no stop reason"],
)
def test_half_a_request_for_tools_is_an_error_that_says_the_other_half(
    response: Response, words: str
) -> None:
    async def answer(_: Content, __: SessionOptions) -> Response:
        return response

    [[error]] = converse(FunctionBackend(answer), "weather?")

    assert isinstance(error, ErrorEvent)
    assert error.verdict == "invalid"
    assert words in error.message


def test_what_the_function_raises_is_the_error() -> None:
    async def fail(_: Content, __: SessionOptions) -> str:
        raise LookupError("no such city")

    [events] = converse(FunctionBackend(fail), "Where?")

    [error] = events
    assert isinstance(error, ErrorEvent)
    assert (error.verdict, error.error_type) == ("transient", "LookupError")
    assert error.message == "no such city"
    assert "in fail" in error.traceback


@pytest.mark.parametrize(("is_retryable", "verdict"), [(True, "transient"), (False, "invalid")])
def test_retryable_decides_whether_to_try_again(is_retryable: bool, verdict: str) -> None:
    async def fail(_: Content, __: SessionOptions) -> str:
        raise LookupError("no such city")

    backend = FunctionBackend(fail, retryable=lambda _: is_retryable)
    [[error]] = converse(backend, "Where?")

    assert isinstance(error, ErrorEvent)
    assert error.verdict == verdict


@pytest.mark.parametrize("answer", [None, 7, b"bytes"], ids=repr)
def test_an_answer_of_another_kind_is_an_error_that_says_what_came(answer: Any) -> None:
    async def give(_: Content, __: SessionOptions) -> Any:
        return answer

    [[error]] = converse(FunctionBackend(give), "?")

    assert isinstance(error, ErrorEvent)
    assert error.verdict == "invalid"
    assert error.message.endswith(f"got {type(answer).__name__}")


def test_a_function_that_is_not_async_is_refused() -> None:
    with pytest.raises(TypeError, match="async function"):
        FunctionBackend(lambda prompt, options: "hello")  # type: ignore[arg-type,return-value]
