"""Any model as a function."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raypool.agent import SessionOptions
from raypool.backends import FunctionBackend
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.response import Response
from raypool.task import Content
from raypool.usage import Usage

OPTIONS = SessionOptions(system="Be brief.", max_tokens=9)


def converse(backend: FunctionBackend, *prompts: Content) -> list[list[Event]]:
    """The events of each turn of one session."""

    async def run() -> list[list[Event]]:
        session = await backend.start(OPTIONS)
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
