"""Every backend of the project, and one of a user's own, through the one contract suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from raypool.agent import SessionOptions
from raypool.backends import (
    AnthropicBackend,
    Backend,
    FunctionBackend,
    ScriptedBackend,
    Session,
)
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.testing import BackendContract, Call, Fault, MessagesServer

FAILING = "Fail, please."
SECRET = "sk-ant-very-secret"


class TestScriptedBackend(BackendContract):
    remembered = None
    failing = FAILING

    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(script, latency=0.001)


def script(prompt: str) -> str:
    if prompt == FAILING:
        raise ValueError("as you wish")
    return f"You said: {prompt}"


class TestFunctionBackend(BackendContract):
    failing = FAILING

    @pytest.fixture
    def backend(self) -> Backend:
        return FunctionBackend(answer)


async def answer(prompt: Content, options: SessionOptions) -> str:
    await asyncio.sleep(0.001)
    if prompt == FAILING:
        raise ValueError("as you wish")
    return f"{options.system} {prompt}"


class TestAnthropicBackend(BackendContract):
    failing = FAILING
    secrets = (SECRET,)

    @pytest.fixture
    def backend(self, server: MessagesServer) -> Backend:
        return AnthropicBackend(api_key=SECRET, base_url=server.url)

    @pytest.fixture
    def server(self) -> Iterator[MessagesServer]:
        with MessagesServer(reply=recite, faults=refuse) as server:
            yield server


def recite(call: Call) -> str:
    return f"So far: {call.conversation}"


def refuse(call: Call) -> Fault | None:
    if call.prompt == FAILING:
        return Fault.status(401, message=f"the key {SECRET} is not known")
    return None


class TestUsersOwnBackend(BackendContract):
    failing = FAILING
    keeps_messages = False

    @pytest.fixture
    def backend(self) -> Backend:
        return Parrot()


class Parrot(Backend):
    """The smallest backend that keeps the contract."""

    name = "parrot"

    async def start(self, options: SessionOptions) -> Session:
        return ParrotSession([str(one["content"]) for one in options.messages])


class ParrotSession(Session):
    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        await asyncio.sleep(0)
        if prompt == FAILING:
            yield ErrorEvent(verdict="invalid", error_type="Rude", message="not with me")
            return
        yield TextEvent(" ".join([*self._heard, str(prompt)]))
        self._heard.append(str(prompt))
        yield ResultEvent()
