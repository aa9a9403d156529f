"""Every backend of the project through the suite of faults, as far as it can have them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import pytest

from raypool.agent import SessionOptions
from raypool.backends import AnthropicBackend, Backend, FunctionBackend, ScriptedBackend
from raypool.events import Verdict
from raypool.response import Response
from raypool.task import Content
from raypool.testing import Call, Fault, FaultContract, Meets, MessagesServer

IDLE_SECONDS = 0.3
SILENT = f"sent nothing for {IDLE_SECONDS:g} s (idle_timeout)"
OUTAGE = "nobody listens"

OVER_HTTP: dict[str, tuple[Fault, Verdict, str]] = {
    "429": (Fault.rate_limited(), "refused", "429"),
    "529": (Fault.overloaded(), "refused", "529"),
    "500": (Fault.status(500), "transient", "500"),
    "503 of a proxy": (Fault.body("<html>", "text/html", status=503), "transient", "503"),
    "401": (Fault.status(401), "fatal", "401"),
    "400": (Fault.status(400, message="too odd"), "invalid", "too odd"),
    "reset": (Fault.reset(), "transient", "Connection reset by peer"),
    "disconnect": (Fault.disconnect(), "transient", "broke"),
    "half a stream, then a reset": (Fault.cut(), "transient", "broke"),
    "half a stream, then its end": (Fault.truncated(), "transient", "in the middle"),
    "silence": (Fault.hang(), "transient", SILENT),
    "silence after the head": (Fault.stall(after=0), "transient", SILENT),
    "silence after a word": (Fault.stall(), "transient", SILENT),
    "malformed JSON": (Fault.garbage(), "transient", "instead of a stream of events"),
    "malformed event": (Fault.garbage_event(), "transient", "not the Messages API's"),
    "empty body": (Fault.empty(), "transient", "instead of a stream of events"),
    "page of HTML": (Fault.html(), "transient", "text/html"),
    "200 with an error inside": (Fault.error_event("api_error"), "transient", "api_error"),
    "200 with overload inside": (Fault.error_event(), "refused", "overloaded_error"),
}


def misbehave(call: Call) -> Fault | None:
    fault = OVER_HTTP.get(call.prompt)
    return None if fault is None else fault[0]


class TestAnthropicBackend(FaultContract):
    faults: ClassVar[Mapping[str, Meets]] = {
        **{name: Meets(verdict, words) for name, (_, verdict, words) in OVER_HTTP.items()},
        OUTAGE: Meets("unreachable", "Connection refused"),
    }

    @pytest.fixture
    def backend(self, server: MessagesServer) -> Backend:
        return AnthropicBackend(
            api_key="a-test-key", base_url=server.url, idle_timeout=IDLE_SECONDS
        )

    @pytest.fixture
    def server(self) -> Iterator[MessagesServer]:
        with MessagesServer(reply="one two three", faults=misbehave) as server:
            type(self).running = server
            yield server

    running: ClassVar[MessagesServer]

    @contextmanager
    def provoke(self, fault: str) -> Iterator[None]:
        with self.running.unreachable() if fault == OUTAGE else nullcontext():
            yield

    def check_released(self) -> None:
        self.running.wait_until_idle()


RAISED: dict[str, tuple[Any, Meets]] = {
    "an error": (ValueError("as you wish"), Meets("transient", "as you wish")),
    "no more items": (StopIteration("empty"), Meets("transient", "StopIteration")),
    "no connection": (ConnectionRefusedError(111, "refused"), Meets("transient", "refused")),
    "too long": (TimeoutError("too long"), Meets("transient", "too long")),
    "an error without words": (KeyError(), Meets("transient")),
}
RETURNED: dict[str, tuple[Any, Meets]] = {
    "nothing": (None, Meets("invalid", "got NoneType")),
    "a number": (42, Meets("invalid", "got int")),
    "bytes": (b"text", Meets("invalid", "got bytes")),
    "a class": (ValueError, Meets("invalid", "got type")),
}
HANGS = "for ever"
STRANGE = RAISED | RETURNED


class StatusError(Exception):
    status_code = 529


def act(prompt: object) -> Any:
    """What a user's function does that is asked for a fault by name."""
    if prompt in RAISED:
        raise RAISED[str(prompt)][0]
    if prompt in RETURNED:
        return RETURNED[str(prompt)][0]
    if prompt == "529":
        raise StatusError("overloaded")
    return "Paris"


OWN: dict[str, Meets] = {
    **{name: meets for name, (_, meets) in STRANGE.items()},
    "529": Meets("refused", "overloaded"),
    HANGS: Meets(None),
}


async def act_async(prompt: Content) -> Any:
    if prompt == HANGS:
        await asyncio.Event().wait()
    return act(_last_text(prompt))


def _last_text(prompt: Content) -> object:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


async def answer(prompt: Content, options: SessionOptions) -> Any:
    if _last_text(prompt) == HANGS:
        await asyncio.Event().wait()
    return act(_last_text(prompt))


class TestFunctionBackend(FaultContract):
    faults = OWN

    @pytest.fixture
    def backend(self) -> Backend:
        return FunctionBackend(answer)


class TestScriptOnAThread(FaultContract):
    faults: ClassVar[Mapping[str, Meets]] = {
        name: meets for name, meets in OWN.items() if name != HANGS
    }

    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(act)


class TestScriptThatIsAwaited(FaultContract):
    faults = OWN

    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(act_async)


class TestMappingAsScript(FaultContract):
    faults: ClassVar[Mapping[str, Meets]] = {
        "an error": RAISED["an error"][1],
        "no more items": Meets("transient", "empty"),
        "a number": RETURNED["a number"][1],
        "not in it": Meets("invalid", "no reply"),
    }

    @pytest.fixture
    def backend(self) -> Backend:
        replies = {name: what for name, (what, _) in STRANGE.items()}
        return ScriptedBackend({**replies, self.question: "Paris"})


def test_blocking_script_holds_up_no_other_turn() -> None:
    is_over = threading.Event()

    def script(prompt: str) -> str:
        if prompt == "wait":
            is_over.wait(30)
        return prompt

    async def scenario() -> list[str]:
        backend = ScriptedBackend(script)
        waiting, quick = [await backend.start(SessionOptions()) for _ in range(2)]
        turn = asyncio.ensure_future(_text(waiting, "wait"))
        first = await _text(quick, "go on")
        is_over.set()
        return [first, await turn]

    assert asyncio.run(scenario()) == ["go on", "wait"]


async def _text(session: Any, prompt: str) -> str:
    return "".join([getattr(event, "text", "") async for event in session.prompt(prompt)])


def test_function_that_says_what_may_be_retried_may_itself_be_wrong() -> None:
    def retryable(_: Exception) -> bool:
        raise LookupError("no idea")

    async def fail(prompt: Content, options: SessionOptions) -> str | Response:
        raise ValueError("as you wish")

    async def scenario() -> list[Any]:
        session = await FunctionBackend(fail, retryable=retryable).start(SessionOptions())
        return [event async for event in session.prompt("Hello?")]

    [error] = asyncio.run(scenario())
    assert error.verdict == "transient"
    assert "as you wish" in error.message
