"""What a backend makes of a provider that misbehaves, as tests for any backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import pytest

from raypool.agent import SessionOptions
from raypool.backends.base import Backend, Session
from raypool.events import ErrorEvent, Event, ResultEvent, Verdict
from raypool.testing.turns import count_of_ends, turn_of, with_open_backend

IN_A_ROW = 3
STEPS_BEFORE_CANCELLING = 20
SECONDS_BEFORE_CANCELLING = 0.05
SETTLING_SECONDS = 5.0


class Meets(NamedTuple):
    """How a turn ends that meets with a fault.

    Attributes:
        verdict: of its error; `None` for a turn that ends only when it is cancelled, so that
            the pool's `turn_timeout` has to end it.
        words: what the error's message has in it.
    """

    verdict: Verdict | None
    words: str = ""


class FaultContract:
    """A test class for the faults that your backend's provider can have: subclass it, write the
    `backend` fixture, and say what comes of each.

        class TestFaultsOfMyBackend(FaultContract):
            faults = {"crash, please": Meets("transient", "connection reset")}

            @pytest.fixture
            def backend(self):
                return MyBackend()

    Whatever the fault, a turn ends in one error that says why, or can be cancelled; the
    conversation goes on as if it had not been; and nothing of it is left running.

    Attributes:
        faults: by the prompt that provokes a fault, how its turn ends; `provoke` may do more.
        question: a prompt that gets an answer.
        options: how each session is opened.
        timeout: the longest that one test may take, in seconds.
    """

    faults: ClassVar[Mapping[str, Meets]] = {}
    question: ClassVar[str] = "What is the capital of France?"
    options: ClassVar[SessionOptions] = SessionOptions(system="Be brief.", max_tokens=50)
    timeout: ClassVar[float] = 60.0

    @contextmanager
    def provoke(self, fault: str) -> Iterator[None]:
        """While the block runs, a turn with that prompt meets with its fault."""
        yield

    def check_released(self) -> None:
        """Fail when the provider still has something of turns that have ended."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test with each fault."""
        if "fault" in metafunc.fixturenames:
            metafunc.parametrize("fault", list(self.faults))

    @with_open_backend
    async def test_turn_ends_in_an_error_that_says_why(self, backend: Backend, fault: str) -> None:
        verdict, words = self.faults[fault]
        session = await backend.start(self.options)

        events = await self._meet(session, fault)

        if verdict is None:
            assert count_of_ends(events) == 0, f"{fault!r} ends by itself: {events}"
            return
        assert count_of_ends(events) == 1, f"a turn must end once: {events}"
        end = events[-1]
        assert isinstance(end, ErrorEvent), f"{fault!r} must fail: {events}"
        assert end.verdict == verdict, f"{fault!r} is {end.verdict}: {end.message}"
        assert words in end.message, f"{end.message!r} does not say {words!r}"
        assert end.message.strip(), "an error must say what happened"

    @with_open_backend
    async def test_conversation_goes_on_after_it(self, backend: Backend, fault: str) -> None:
        session = await backend.start(self.options)
        await self._check_answers(session)
        before = session.messages

        for _ in range(IN_A_ROW):
            await self._meet(session, fault)

        assert session.messages == before, "a turn without a result is remembered"
        await self._check_answers(session)

    @with_open_backend
    async def test_other_conversations_go_on_beside_it(self, backend: Backend, fault: str) -> None:
        session, other = [await backend.start(self.options) for _ in range(2)]
        meeting = asyncio.ensure_future(self._meet(session, fault))
        await meeting

        await self._check_answers(other)

    @with_open_backend
    async def test_turn_that_meets_with_it_can_be_cancelled(
        self, backend: Backend, fault: str
    ) -> None:
        session = await backend.start(self.options)

        with self.provoke(fault):
            turn = asyncio.ensure_future(turn_of(session, fault))
            for _ in range(STEPS_BEFORE_CANCELLING):
                await asyncio.sleep(0)
            turn.cancel()
            await asyncio.wait([turn])

        await self._check_answers(session)

    @with_open_backend
    async def test_nothing_of_it_is_left(self, backend: Backend, fault: str) -> None:
        session = await backend.start(self.options)
        await self._check_answers(session)
        before = asyncio.all_tasks()

        for _ in range(IN_A_ROW):
            await self._meet(session, fault)
        await session.close()

        left = {task for task in asyncio.all_tasks() - before if not task.done()}
        if left:
            _, left = await asyncio.wait(left, timeout=SETTLING_SECONDS)
        assert not left, f"tasks run on after their turns: {left}"
        await asyncio.to_thread(self.check_released)

    async def _meet(self, session: Session, fault: str) -> list[Event]:
        """The events of a turn that meets with the fault, up to where it ends or hangs."""
        events: list[Event] = []

        async def turn() -> None:
            async for event in session.prompt(fault):
                events.append(event)  # noqa: PERF401 - it may never end

        with self.provoke(fault):
            if self.faults[fault].verdict is not None:
                await turn()
                return events
            hanging = asyncio.ensure_future(turn())
            await asyncio.wait([hanging], timeout=SECONDS_BEFORE_CANCELLING)
            hanging.cancel()
            await asyncio.wait([hanging])
        return events

    async def _check_answers(self, session: Session) -> None:
        events = await turn_of(session, self.question)
        assert isinstance(events[-1], ResultEvent), f"the session gives no answer: {events}"
