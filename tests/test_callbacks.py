"""How an agent's callbacks are called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raypool.agent import Agent, AgentStart, Prompt, RoleAgent, SessionOptions, Turn, TurnTask
from raypool.callbacks import Callbacks
from raypool.response import Response

pytestmark = pytest.mark.asyncio

START = AgentStart(worker="crew-1", role="chemist", options={})
TURN = Turn(task=TurnTask(id="a"))
RESPONSE = Response(text="42")


@asynccontextmanager
async def callbacks_of(agent: Agent) -> AsyncIterator[Callbacks]:
    callbacks = Callbacks(agent)
    yield callbacks
    callbacks.close()


class Recorder(Agent):
    """Notes which thread each callback ran on."""

    def __init__(self) -> None:
        self.threads: dict[str, threading.Thread] = {}

    def init_agent(self, start: AgentStart) -> SessionOptions:
        self.threads["def"] = threading.current_thread()
        return SessionOptions(system=start.role)

    async def handle_response(self, turn: Turn, response: Response) -> None:
        self.threads["async"] = threading.current_thread()


async def test_def_callback_runs_on_the_agents_thread_and_an_async_one_on_the_loop() -> None:
    agent = Recorder()
    async with callbacks_of(agent) as callbacks:
        options = await callbacks.call("init_agent", START)
        await callbacks.call("handle_response", TURN, RESPONSE)

    assert options == SessionOptions(system="chemist")
    assert agent.threads["def"].name.startswith("raypool-callbacks")
    assert agent.threads["async"] is threading.current_thread()


async def test_def_callbacks_all_run_on_one_thread() -> None:
    class Many(Agent):
        threads: set[int] = set()  # noqa: RUF012 - one agent

        def handle_response(self, turn: Turn, response: Response) -> None:
            self.threads.add(threading.get_ident())

    async with callbacks_of(Many()) as callbacks:
        await asyncio.gather(
            *(callbacks.call("handle_response", TURN, RESPONSE) for _ in range(20))
        )

    assert len(Many.threads) == 1


class Overlap(Agent):
    """Counts how many of its callbacks run at the same time."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    def enter(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def init_agent(self, start: AgentStart) -> None:
        self.enter()
        threading.Event().wait(0.001)
        self.running -= 1

    async def handle_response(self, turn: Turn, response: Response) -> None:
        self.enter()
        for _ in range(3):
            await asyncio.sleep(0)
        self.running -= 1


async def test_no_two_callbacks_of_an_agent_run_at_the_same_time() -> None:
    agent = Overlap()
    async with callbacks_of(agent) as callbacks:
        await asyncio.gather(
            *(callbacks.call("handle_response", TURN, RESPONSE) for _ in range(5)),
            *(callbacks.call("init_agent", START) for _ in range(5)),
        )

    assert agent.most == 1


async def test_loop_goes_on_while_a_def_callback_blocks() -> None:
    go_on = threading.Event()

    class Blocking(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            go_on.wait()

    async with callbacks_of(Blocking()) as callbacks:
        call = asyncio.create_task(callbacks.call("handle_response", TURN, RESPONSE))
        for _ in range(100):
            await asyncio.sleep(0)

        assert not call.done()
        go_on.set()
        await call


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), StopIteration("empty")])
async def test_what_a_def_callback_raises_reaches_the_caller(error: BaseException) -> None:
    class Raising(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            raise error

    async with callbacks_of(Raising()) as callbacks:
        with pytest.raises((ValueError, SystemExit, RuntimeError)) as raised:
            async with asyncio.timeout(10):
                await callbacks.call("handle_response", TURN, RESPONSE)

    assert error in (raised.value, raised.value.__cause__)


async def test_callback_may_be_called_after_one_that_raised() -> None:
    class Moody(Agent):
        calls = 0

        async def handle_response(self, turn: Turn, response: Response) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ValueError("no")

    agent = Moody()
    async with callbacks_of(agent) as callbacks:
        with pytest.raises(ValueError, match="no"):
            await callbacks.call("handle_response", TURN, RESPONSE)
        await callbacks.call("handle_response", TURN, RESPONSE)

    assert agent.calls == 2


async def test_def_callback_that_returns_a_coroutine_is_awaited() -> None:
    class Wrapped(Agent):
        """Its callback is async in fact, behind a decorator that hides it."""

        def handle_response(self, turn: Turn, response: Response) -> Any:
            return self._decide(response)

        async def _decide(self, response: Response) -> Prompt:
            await asyncio.sleep(0)
            return Prompt(response.text)

    async with callbacks_of(Wrapped()) as callbacks:
        assert await callbacks.call("handle_response", TURN, RESPONSE) == Prompt("42")


@pytest.mark.parametrize(
    ("agent", "overrides"), [(Agent(), False), (RoleAgent(), True), (Recorder(), True)]
)
async def test_only_a_callback_of_its_own_is_overridden(agent: Agent, overrides: bool) -> None:
    async with callbacks_of(agent) as callbacks:
        assert callbacks.is_overridden("init_agent") is overrides


async def test_callback_set_on_the_instance_is_overridden() -> None:
    agent = Agent()
    agent.handle_response = lambda turn, response: None  # type: ignore[method-assign]

    async with callbacks_of(agent) as callbacks:
        assert callbacks.is_overridden("handle_response")
