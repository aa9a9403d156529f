"""The suite of faults must notice each way in which a backend may take one badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raypool.agent import SessionOptions
from raypool.backends import Backend, Session
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.testing import FaultContract, Meets

FAULT = "fail, please"
HANGING = "hang, please"


class Suite(FaultContract):
    faults = {FAULT: Meets("transient", "line"), HANGING: Meets(None)}  # noqa: RUF012 - as in README
    timeout = 2.0


class Sound(Session):
    """Takes each fault as it should; each subclass takes one badly."""

    def __init__(self) -> None:
        self.messages = []

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        if prompt == HANGING:
            await asyncio.Event().wait()
        if prompt == FAULT:
            async for event in self.fail(str(prompt)):
                yield event
            return
        yield TextEvent("Paris")
        self.remember(str(prompt))
        yield ResultEvent()

    async def fail(self, prompt: str) -> AsyncIterator[Event]:
        yield ErrorEvent("transient", "ConnectionResetError", "the line went dead")

    def remember(self, prompt: str) -> None:
        self.messages = [*(self.messages or []), {"role": "user", "content": prompt}]


class Raises(Sound):
    async def fail(self, prompt: str) -> AsyncIterator[Event]:
        raise ConnectionResetError("the line went dead")
        yield


class SaysNothing(Sound):
    async def fail(self, prompt: str) -> AsyncIterator[Event]:
        yield ErrorEvent("transient", "ConnectionResetError", "")


class GivesUp(Sound):
    async def fail(self, prompt: str) -> AsyncIterator[Event]:
        yield ErrorEvent("fatal", "ConnectionResetError", "the line went dead")


class Remembers(Sound):
    async def fail(self, prompt: str) -> AsyncIterator[Event]:
        self.remember(prompt)
        yield ErrorEvent("transient", "ConnectionResetError", "the line went dead")


class LeavesWork(Sound):
    async def fail(self, prompt: str) -> AsyncIterator[Event]:
        self.work = asyncio.ensure_future(asyncio.sleep(60))
        yield ErrorEvent("transient", "ConnectionResetError", "the line went dead")


class Falls(Sound):
    """Answers nothing more after a fault."""

    is_down = False

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        self.is_down |= prompt in (FAULT, HANGING)
        async for event in super().prompt(FAULT if self.is_down else prompt):
            yield event


class Sessions(Backend):
    """Opens sessions of one class."""

    def __init__(self, kind: type[Session]) -> None:
        self.kind = kind

    async def start(self, options: SessionOptions) -> Session:
        return self.kind()


ENDS = "test_turn_ends_in_an_error_that_says_why"
GOES_ON = "test_conversation_goes_on_after_it"
LEFT = "test_nothing_of_it_is_left"
TESTS = [name for name in dir(Suite) if name.startswith("test_")]


def run(kind: type[Session], test: str, fault: str) -> None:
    suite: Any = Suite()
    getattr(suite, test)(Sessions(kind), fault)


@pytest.mark.parametrize("fault", [FAULT, HANGING])
@pytest.mark.parametrize("test", TESTS)
def test_sound_backend_passes(test: str, fault: str) -> None:
    run(Sound, test, fault)


@pytest.mark.parametrize(
    ("kind", "test", "error"),
    [
        (Raises, ENDS, ConnectionResetError),
        (SaysNothing, ENDS, AssertionError),
        (GivesUp, ENDS, AssertionError),
        (Remembers, GOES_ON, AssertionError),
        (Falls, GOES_ON, AssertionError),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_unsound_backend_is_found_out(
    kind: type[Session], test: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(kind, test, FAULT)


def test_work_that_is_left_behind_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypool.testing.fault_contract.SETTLING_SECONDS", 0.05)

    with pytest.raises(AssertionError, match="run on after their turns"):
        run(LeavesWork, LEFT, FAULT)
