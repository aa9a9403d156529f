"""A backend without a model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raypool.agent import SessionOptions
from raypool.backends import ScriptedBackend
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.usage import Usage


def ask(backend: ScriptedBackend, prompt: Content = "Is it?") -> list[Event]:
    """The events of one turn."""

    async def run() -> list[Event]:
        session = await backend.start(SessionOptions())
        return [event async for event in session.prompt(prompt)]

    return asyncio.run(run())


def test_without_replies_it_echoes_the_prompt_and_counts_words() -> None:
    events = ask(ScriptedBackend(), "So it goes.")

    assert events == [
        TextEvent("So it goes."),
        ResultEvent(model="scripted", usage=Usage(3, 3), cost_usd=0.0),
    ]


async def async_script(prompt: str) -> str:
    return f"{prompt} Yes."


@pytest.mark.parametrize(
    "replies",
    [{"Is it?": "Is it? Yes."}, lambda prompt: f"{prompt} Yes.", async_script],
    ids=["mapping", "def", "async def"],
)
def test_replies_may_be_a_mapping_or_a_callable(replies: Any) -> None:
    assert ask(ScriptedBackend(replies))[0] == TextEvent("Is it? Yes.")


def test_a_prompt_of_messages_is_looked_up_by_the_text_of_the_last() -> None:
    prompt: Content = [
        {"role": "user", "content": "Guess."},
        {"role": "assistant", "content": "Seven."},
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "url", "url": "http://host/cat.png"}},
                {"type": "text", "text": "Is it?"},
            ],
        },
    ]

    assert ask(ScriptedBackend({"Is it?": "No."}), prompt)[0] == TextEvent("No.")


def test_a_prompt_that_is_not_in_the_mapping_is_an_error() -> None:
    [error] = ask(ScriptedBackend({"Was it?": "Yes."}))

    assert isinstance(error, ErrorEvent)
    assert error.verdict == "invalid"
    assert error.message == "the script has no reply to this prompt of 6 characters"


def fail(_: str) -> str:
    raise ConnectionError("cut")


@pytest.mark.parametrize(
    "replies", [{"Is it?": ConnectionError("cut")}, fail], ids=["given", "raised"]
)
def test_an_exception_makes_the_turn_fail_with_it(replies: Any) -> None:
    [error] = ask(ScriptedBackend(replies))

    assert isinstance(error, ErrorEvent)
    assert (error.verdict, error.error_type, error.message) == (
        "transient",
        "ConnectionError",
        "cut",
    )


def stop(_: str) -> str:
    raise StopIteration


async def stop_later(_: str) -> str:
    raise StopIteration


@pytest.mark.timeout(10)
@pytest.mark.parametrize("replies", [stop, stop_later])
def test_a_script_that_raises_what_no_future_can_hold_ends_its_turn(replies: Any) -> None:
    [error] = ask(ScriptedBackend(replies))

    assert isinstance(error, ErrorEvent)
    assert error.error_type == "RuntimeError"
    assert "StopIteration" in error.message


def test_a_session_keeps_what_was_said() -> None:
    earlier = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]

    async def converse() -> list[list[dict[str, Any]] | None]:
        session = await ScriptedBackend().start(SessionOptions(messages=earlier))
        told = [session.messages]
        for prompt in ("One?", [{"role": "user", "content": "Two?"}]):
            assert [event async for event in session.prompt(prompt)]
            told.append(session.messages)
        return told

    one = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "One?"}]
    two = [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Two?"}]
    assert asyncio.run(converse()) == [earlier, [*earlier, *one], [*earlier, *one, *two]]


def test_a_reply_of_another_kind_is_an_error_that_says_what_came() -> None:
    [error] = ask(ScriptedBackend({"Is it?": 7}))  # type: ignore[dict-item]

    assert isinstance(error, ErrorEvent)
    assert error.verdict == "invalid"
    assert error.message.endswith("got int")


def test_latency_may_depend_on_the_prompt() -> None:
    asked = []

    def latency(prompt: str) -> float:
        asked.append(prompt)
        return 0.001

    ask(ScriptedBackend(latency=latency))

    assert asked == ["Is it?"]


def test_replies_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="got list"):
        ScriptedBackend(["Yes."])  # type: ignore[arg-type]
