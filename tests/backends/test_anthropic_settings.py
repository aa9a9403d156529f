"""How an `AnthropicBackend` is made, prepared, carried to a worker, opened and interrupted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import cloudpickle
import pytest

from raypool.agent import SessionOptions
from raypool.backends import AnthropicBackend
from raypool.backends.anthropic import PLACEHOLDER_KEY
from raypool.errors import PoolStartError
from raypool.events import Event, TextEvent
from raypool.testing import Fault, MessagesServer, ServerLimits

KEY = "sk-ant-a-secret"
VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "RAYPOOL_MODEL")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer(reply="Hello.", limits=ServerLimits(tells=False)) as server:
        yield server


async def ask(backend: AnthropicBackend, prompt: str = "Hello?") -> list[Event]:
    session = await backend.start(SessionOptions())
    return [event async for event in session.prompt(prompt)]


async def ask_once(backend: AnthropicBackend) -> list[Event]:
    await backend.open()
    try:
        return await ask(backend)
    finally:
        await backend.close()


class TestPrepare:
    def test_without_key_and_url_it_says_how_to_go_on(self) -> None:
        with pytest.raises(PoolStartError) as error:
            AnthropicBackend().prepare()

        assert "ANTHROPIC_API_KEY" in str(error.value)
        assert "from raypool.backends import LocalBackend" in str(error.value)

    def test_what_the_environment_says_is_fixed_inside(
        self, monkeypatch: pytest.MonkeyPatch, server: MessagesServer
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("RAYPOOL_MODEL", "claude-opus-5-5")
        ready = AnthropicBackend().prepare()
        for name in VARIABLES:
            monkeypatch.setenv(name, "http://somewhere-else.invalid")

        asyncio.run(ask_once(ready))

        [call] = server.calls
        assert call.headers["authorization"] == f"Bearer {KEY}"
        assert call.body["model"] == "claude-opus-5-5"

    def test_what_was_given_wins_over_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in VARIABLES:
            monkeypatch.setenv(name, "http://somewhere-else.invalid")

        ready = AnthropicBackend("claude-haiku-5-5", KEY, "http://here").prepare()

        assert (ready.model, ready.api_key, ready.base_url) == (
            "claude-haiku-5-5",
            KEY,
            "http://here",
        )
        assert ready.auth_token is None

    def test_a_token_is_taken_where_there_is_no_key(
        self, monkeypatch: pytest.MonkeyPatch, server: MessagesServer
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "a-token")

        asyncio.run(ask_once(AnthropicBackend(base_url=server.url).prepare()))

        assert server.calls[0].headers["authorization"] == "Bearer a-token"

    def test_a_server_without_a_key_never_sees_the_workers_one(
        self, monkeypatch: pytest.MonkeyPatch, server: MessagesServer
    ) -> None:
        ready = AnthropicBackend(base_url=server.url).prepare()
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

        asyncio.run(ask_once(ready))

        assert server.calls[0].headers["authorization"] == f"Bearer {PLACEHOLDER_KEY}"

    def test_it_leaves_the_backend_that_it_was_called_on_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        backend = AnthropicBackend()

        backend.prepare()

        assert backend.api_key is None
        assert backend.base_url is None

    def test_the_default_model_is_the_small_one(self) -> None:
        assert AnthropicBackend(api_key=KEY).prepare().model == "claude-haiku-5-5"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("ANTHROPIC_API_KEY", f"{KEY}\n"),
            ("ANTHROPIC_AUTH_TOKEN", "tökén"),
            ("ANTHROPIC_BASE_URL", "localhost:8000"),
        ],
    )
    def test_a_variable_that_cannot_be_used_is_named(
        self, monkeypatch: pytest.MonkeyPatch, name: str, text: str
    ) -> None:
        monkeypatch.setenv(name, text)

        with pytest.raises(PoolStartError, match=name) as error:
            AnthropicBackend().prepare()

        assert KEY not in str(error.value)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"model": ""}, "model must be a model's name, got ''"),
            ({"api_key": "two words"}, "api_key is empty, or has a space"),
            ({"base_url": "example.com"}, "base_url must start with http:// or https://"),
            ({"idle_timeout": 0}, "idle_timeout must be a number above 0, got 0"),
            ({"connect_timeout": "5"}, "connect_timeout must be a number above 0, got '5'"),
            ({"max_connections": -1}, "max_connections must be a number above 0, got -1"),
            ({"extra_headers": {"X-Pass": "a\nb"}}, "extra_headers['X-Pass'] must be a line"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_bad_one_is_named(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=r"must|empty") as error:
            AnthropicBackend(**options)

        assert words in str(error.value)

    def test_no_form_of_it_shows_the_key(self) -> None:
        backend = AnthropicBackend(
            api_key=KEY,
            base_url="https://ada:lovelace@proxy.example/api",
            extra_headers={"X-Pass": "hush"},
        )

        assert repr(backend) == str(backend)
        assert repr(backend) == (
            "AnthropicBackend('claude-haiku-5-5', api_key=***, "
            "base_url='https://proxy.example/api')"
        )


class TestPickling:
    def test_an_open_backend_travels_without_its_client(self, server: MessagesServer) -> None:
        async def scenario() -> tuple[list[Event], list[Event]]:
            backend = AnthropicBackend(api_key=KEY, base_url=server.url)
            await backend.open()
            copy = cloudpickle.loads(cloudpickle.dumps(backend))
            try:
                return await ask(backend), await ask_once(copy)
            finally:
                await backend.close()

        here, there = asyncio.run(scenario())

        assert here == there
        assert isinstance(here[0], TextEvent)

    def test_a_backend_that_is_not_open_says_so(self) -> None:
        with pytest.raises(RuntimeError, match=r"await open\(\)"):
            asyncio.run(AnthropicBackend(api_key=KEY).start(SessionOptions()))


class TestSharing:
    def test_equal_backends_share_one_client(self, server: MessagesServer) -> None:
        async def scenario() -> None:
            backends = [AnthropicBackend(api_key=KEY, base_url=server.url) for _ in range(3)]
            await asyncio.gather(*(backend.open() for backend in backends))
            for backend in backends:
                await ask(backend)
                await backend.close()

        asyncio.run(scenario())

        assert server.connections == 1

    def test_backends_with_different_keys_share_nothing(self, server: MessagesServer) -> None:
        async def scenario() -> None:
            for key in ("one-key", "other-key"):
                await ask_once(AnthropicBackend(api_key=key, base_url=server.url))

        asyncio.run(scenario())

        assert [call.headers["authorization"] for call in server.calls] == [
            "Bearer one-key",
            "Bearer other-key",
        ]

    def test_the_last_to_close_closes_the_client(self, server: MessagesServer) -> None:
        async def scenario() -> list[Event]:
            first, second = (AnthropicBackend(api_key=KEY, base_url=server.url) for _ in range(2))
            await first.open()
            await second.open()
            await first.close()
            events = await ask(second)
            session = await second.start(SessionOptions())
            await second.close()
            return [*events, *[event async for event in session.prompt("Still there?")]]

        events = asyncio.run(scenario())

        assert [event.type for event in events] == ["text", "result", "error"]

    def test_each_event_loop_has_a_client_of_its_own(self, server: MessagesServer) -> None:
        backend = AnthropicBackend(api_key=KEY, base_url=server.url)

        answers = [asyncio.run(ask_once(backend)) for _ in range(2)]

        assert answers[0] == answers[1]

    def test_turns_beyond_max_connections_wait_for_one(self) -> None:
        async def scenario(url: str) -> list[list[Event]]:
            backend = AnthropicBackend(
                api_key=KEY, base_url=url, max_connections=2, idle_timeout=0.2
            )
            await backend.open()
            try:
                return await asyncio.gather(*(ask(backend) for _ in range(10)))
            finally:
                await backend.close()

        with MessagesServer(latency=0.1) as server:
            turns = asyncio.run(scenario(server.url))

            assert server.peak_in_flight == 2
        assert {events[-1].type for events in turns} == {"result"}


class TestCancelling:
    @pytest.mark.parametrize("fault", [Fault.hang(), Fault.stall()], ids=repr)
    def test_a_cancelled_turn_closes_its_request_at_once(self, fault: Fault) -> None:
        async def scenario(server: MessagesServer) -> list[Event]:
            backend = AnthropicBackend(api_key=KEY, base_url=server.url)
            await backend.open()
            turn = asyncio.create_task(ask(backend))
            await asyncio.to_thread(server.wait_for_calls, 1)

            turn.cancel()
            await asyncio.wait([turn])
            await asyncio.to_thread(server.wait_until_idle)

            assert turn.cancelled()
            events = await ask(backend)
            await backend.close()
            return events

        with MessagesServer(reply="one two three", faults=[fault]) as server:
            assert asyncio.run(scenario(server))[-1].type == "result"

    def test_a_turn_that_is_left_closes_its_request_at_once(self) -> None:
        async def scenario(server: MessagesServer) -> None:
            backend = AnthropicBackend(api_key=KEY, base_url=server.url)
            await backend.open()
            session = await backend.start(SessionOptions())
            async with aclosing(session.prompt("Hello?")) as events:  # type: ignore[type-var]
                assert await anext(events) == TextEvent("one")
            await asyncio.to_thread(server.wait_until_idle)
            await backend.close()

        with MessagesServer(reply="one two three", faults=[Fault.stall()]) as server:
            asyncio.run(scenario(server))


def test_importing_leaves_what_is_slow_or_only_for_tests_for_later() -> None:
    heavy = {"anthropic", "httpx2", "genai_prices", "pytest"}
    program = f"import sys, raypool.backends, raypool.testing; print({heavy} & set(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
