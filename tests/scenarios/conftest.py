"""Pools that whole files, or all of them, share: to start one costs seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from raypool import Agent, AgentStart, Pool, RetryPolicy, SessionOptions
from raypool.backends import AnthropicBackend, LocalBackend, ScriptedBackend
from raypool.testing import Answer, Call, Fault, MessagesServer
from tests.programs import Program, StartProgram
from tests.scenarios.acting import seconds_of

ROLES = {"plain": 1, "toolsmith": 1}
QUICK = RetryPolicy(max_attempts=3, initial_seconds=0.02, max_seconds=0.05)


class Provider:
    """What the stand-in server of the shared pool does; each test begins anew."""

    def __init__(self) -> None:
        self.server = MessagesServer(
            self._answer,
            latency=self._seconds,
            faults=self._fault,
            least_cached_words=1,
            context_words=400,
        )
        self.begin()

    def begin(
        self,
        reply: Callable[[Call], str | Answer] = lambda call: call.prompt,
        *,
        faults: Sequence[Fault | None] = (),
        latency: Callable[[Call], float] = lambda call: 0.0,
    ) -> None:
        """Answer like this from now on; `faults` come one a request."""
        self._reply = reply
        self._latency = latency
        self._faults = list(faults)
        self._seen = len(self.server.calls)

    @property
    def calls(self) -> list[Call]:
        """The requests since the test began."""
        return self.server.calls[self._seen :]

    def wait_for_calls(self, count: int) -> None:
        """Wait until so many requests have come since the test began."""
        self.server.wait_for_calls(self._seen + count)

    def _answer(self, call: Call) -> str | Answer:
        return self._reply(call)

    def _seconds(self, call: Call) -> float:
        return self._latency(call)

    def _fault(self, call: Call) -> Fault | None:
        return self._faults.pop(0) if self._faults else None


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def price_of(item: str) -> str:
    """What something costs."""
    raise LookupError(f"{item} is not for sale")


class ByRole(Agent):
    """Its role says what its conversations are like: a `toolsmith` has tools."""

    def init_agent(self, start: AgentStart) -> SessionOptions:
        system = f"You are a {start.role}."
        if start.role == "toolsmith":
            return SessionOptions(system=system, tools=[add, price_of])
        return SessionOptions(system=system)


@pytest.fixture(scope="session")
def slow_pool(local_ray: None) -> Iterator[Pool]:
    """One worker, whose turn for `0.2 a question` takes 0.2 s; each test leaves it idle."""
    with Pool.start(1, backend=ScriptedBackend(latency=seconds_of)) as pool:
        yield pool


@pytest.fixture(scope="session")
def api_provider() -> Iterator[Provider]:
    provider = Provider()
    with provider.server:
        yield provider


@pytest.fixture(scope="session")
def api_pool(local_ray: None, api_provider: Provider) -> Iterator[Pool]:
    """A worker with tools and one without, over the Messages API; each test leaves it idle."""
    backend = AnthropicBackend(base_url=api_provider.server.url, api_key="test-key")
    with Pool.start(
        roles=ROLES,
        agent=ByRole,
        backend=backend,
        retry=QUICK,
        concurrency=4,
        max_turns_per_task=6,
    ) as pool:
        yield pool


@pytest.fixture(scope="session")
def local_pool(local_ray: None) -> Iterator[Pool]:
    """The same with the local model."""
    with Pool.start(roles=ROLES, agent=ByRole, backend=LocalBackend()) as pool:
        yield pool


@pytest.fixture
def provider(api_provider: Provider) -> Provider:
    """The server of `api_pool`, which echoes until the test says otherwise."""
    api_provider.begin()
    return api_provider


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartProgram]:
    """Starts programs in the test's directory, which are killed with the test if need be."""
    programs: list[Program] = []

    def start(source: str, *arguments: str, address: str | None = None) -> Program:
        programs.append(Program(source, tmp_path, *arguments, address=address))
        return programs[-1]

    yield start
    for program in programs:
        program.close()
