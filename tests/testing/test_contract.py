"""The contract suite must notice each promise that a backend breaks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from raypool.agent import SessionOptions
from raypool.backends import Backend, Session
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.testing import BackendContract

FAILING = "Fail, please."
SECRET = "a-very-secret-key"


class Suite(BackendContract):
    failing = FAILING
    secrets = (SECRET,)


class Sound(Session):
    """Keeps every promise; each subclass breaks one."""

    def __init__(self, messages: Sequence[dict[str, Any]] = ()) -> None:
        self.messages = list(messages)
        self.heard = [str(one["content"]) for one in messages if one["role"] == "user"]

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        if prompt == FAILING:
            yield ErrorEvent(verdict="invalid", error_type="Rude", message="not with me")
            return
        answer = " ".join([*self.heard, str(prompt)])
        yield TextEvent(answer)
        self.heard.append(str(prompt))
        self.messages = [*(self.messages or []), said("user", prompt), said("assistant", answer)]
        yield ResultEvent()


def said(role: str, content: Content) -> dict[str, Any]:
    return {"role": role, "content": content}


class TalksOn(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        async for event in super().prompt(prompt):
            yield event
        yield TextEvent("and another thing")


class Silent(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        yield ResultEvent()


class Forgetful(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        self.heard = []
        async for event in super().prompt(prompt):
            yield event


class Gossip(Sound):
    everything: list[str] = []  # noqa: RUF012 - shared, which is the point

    def __init__(self, messages: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(messages)
        self.heard = self.everything


class Hasty(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        self.heard.append(str(prompt))
        yield TextEvent(" ".join(self.heard))
        yield ResultEvent()


class StartsAfresh(Sound):
    def __init__(self, messages: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__()


class TellsHalf(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        async for event in super().prompt(prompt):
            if isinstance(event, ResultEvent):
                self.messages = (self.messages or [])[:-1]
            yield event


class ChangesItsList(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        kept = self.messages
        assert kept is not None
        async for event in super().prompt(prompt):
            if isinstance(event, ResultEvent):
                kept += (self.messages or [])[-2:]
                self.messages = kept
            yield event


class Raises(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        if prompt == FAILING:
            raise ConnectionError("cut")
        async for event in super().prompt(prompt):
            yield event


class Tells(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        yield ErrorEvent(verdict="fatal", error_type="Key", message=f"{SECRET} is wrong")

    def __repr__(self) -> str:
        return f"Tells(api_key={SECRET})"


class TextOnly(Sound):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        if not isinstance(prompt, str):
            yield ErrorEvent(verdict="invalid", error_type="TypeError", message="no text")
            return
        async for event in super().prompt(prompt):
            yield event


class Backends(Backend):
    """A backend of one kind of session."""

    def __init__(self, session: type[Sound]) -> None:
        self.session = session

    async def start(self, options: SessionOptions) -> Session:
        return self.session(options.messages)


class Stuck(Backends):
    async def open(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("backend", "test"),
    [
        (Backends(TalksOn), Suite.test_a_turn_ends_in_one_result_and_nothing_after),
        (Backends(Silent), Suite.test_text_events_hold_the_answer),
        (Backends(TextOnly), Suite.test_a_prompt_may_be_a_list_of_messages),
        (Backends(Forgetful), Suite.test_a_second_prompt_continues_the_conversation),
        (
            Backends(StartsAfresh),
            Suite.test_a_session_continues_the_messages_that_it_is_opened_with,
        ),
        *(
            (Backends(kind), Suite.test_what_a_session_says_of_its_conversation_opens_another)
            for kind in (StartsAfresh, TellsHalf, ChangesItsList)
        ),
        (Backends(Gossip), Suite.test_sessions_know_nothing_of_each_other),
        (
            Backends(Hasty),
            Suite.test_a_turn_left_in_the_middle_leaves_the_conversation_as_it_was,
        ),
        (Backends(Raises), Suite.test_what_goes_wrong_is_yielded_and_not_raised),
        (Backends(Tells), Suite.test_many_sessions_run_side_by_side),
        (Backends(Tells), Suite.test_no_repr_shows_a_secret),
        (Backends(Tells), Suite.test_no_error_shows_a_secret),
        (Stuck(Sound), Suite.test_it_pickles_also_while_it_is_open),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_noticed(backend: Backend, test: object) -> None:
    assert callable(test)

    with pytest.raises((AssertionError, ConnectionError, TypeError)):
        test(Suite(), backend)


@pytest.mark.parametrize("name", [name for name in dir(Suite) if name.startswith("test_")])
def test_a_sound_backend_passes(name: str) -> None:
    steps = (10,) if "cancelled" in name else ()

    getattr(Suite(), name)(Backends(Sound), *steps)
