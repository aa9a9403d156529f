"""The promises of `raypool.backends.base`, as tests that any backend can be put through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import cloudpickle
import pytest
from msgspec import structs

from raypool.agent import SessionOptions
from raypool.backends.base import Backend, Session
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.testing.turns import count_of_ends, opened, turn_of, with_open_backend

CANCELLED_AFTER_STEPS = (1, 10, 100)


ATTEMPTS = 4

TEST_OF_MESSAGES = "test_what_a_session_says_of_its_conversation_opens_another"
TESTS_OF_MEMORY = {
    "test_a_second_prompt_continues_the_conversation",
    "test_a_session_continues_the_messages_that_it_is_opened_with",
    "test_sessions_know_nothing_of_each_other",
}
TESTS_OF_ERRORS = {
    "test_what_goes_wrong_is_yielded_and_not_raised",
    "test_a_failed_turn_leaves_the_session_usable",
    "test_no_error_shows_a_secret",
}


class BackendContract:
    """A test class for a backend of your own: subclass it and write the `backend` fixture.

        class TestMyBackend(BackendContract):
            @pytest.fixture
            def backend(self):
                return MyBackend()

    The attributes say what to ask. A backend whose answers do not depend on the
    conversation sets `remembered = None`, and the class then has no tests of memory.

    Attributes:
        question: a prompt that gets an answer.
        fact: a prompt with something to remember.
        recall: a prompt that asks for what `fact` said.
        remembered: what the answer to `recall` has in it after `fact`, and only then; in
            capitals or not.
        failing: a prompt whose turn ends in an error; `None` leaves out the tests of errors.
        keeps_messages: its sessions have `messages`; raypool makes them for those that have not.
        secrets: texts that no `repr` and no error may show.
        sessions_side_by_side: how many sessions are run at a time.
        options: how each session is opened.
        timeout: the longest that one test may take, in seconds.
    """

    question: ClassVar[str] = "What is the capital of France?"
    fact: ClassVar[str] = "The password is cobalt."
    recall: ClassVar[str] = "What is the password?"
    remembered: ClassVar[str | None] = "cobalt"
    failing: ClassVar[str | None] = None
    keeps_messages: ClassVar[bool] = True
    secrets: ClassVar[tuple[str, ...]] = ()
    sessions_side_by_side: ClassVar[int] = 50
    options: ClassVar[SessionOptions] = SessionOptions(system="Be brief.", max_tokens=50)
    timeout: ClassVar[float] = 60.0

    def __init_subclass__(cls, **options: object) -> None:
        """Leave out the tests that say nothing of this backend."""
        super().__init_subclass__(**options)
        left_out = set() if cls.keeps_messages else {TEST_OF_MESSAGES}
        left_out |= TESTS_OF_MEMORY if cls.remembered is None else set()
        left_out |= TESTS_OF_ERRORS if cls.failing is None else set()
        for name in left_out:
            setattr(cls, name, None)

    @with_open_backend
    async def test_a_turn_ends_in_one_result_and_nothing_after(self, backend: Backend) -> None:
        events = await turn_of(await backend.start(self.options), self.question)

        assert isinstance(events[-1], ResultEvent), f"the question got no answer: {events}"
        assert count_of_ends(events) == 1, f"a turn must end once: {events}"

    @with_open_backend
    async def test_text_events_hold_the_answer(self, backend: Backend) -> None:
        events = await turn_of(await backend.start(self.options), self.question)

        assert _text(events).strip(), f"the text events have no text: {events}"

    @with_open_backend
    async def test_a_prompt_may_be_a_list_of_messages(self, backend: Backend) -> None:
        content = [{"type": "text", "text": self.question}]
        session = await backend.start(self.options)

        events = await turn_of(session, [{"role": "user", "content": content}])

        assert isinstance(events[-1], ResultEvent), f"messages got no answer: {events}"

    @with_open_backend
    async def test_a_second_prompt_continues_the_conversation(self, backend: Backend) -> None:
        remembered = self._what_is_remembered()
        session = await backend.start(self.options)

        await _answer(session, self.fact)
        answer = await _answer(session, self.recall)

        assert _mentions(answer, remembered), f"the first turn is forgotten: {answer!r}"

    @with_open_backend
    async def test_a_session_continues_the_messages_that_it_is_opened_with(
        self, backend: Backend
    ) -> None:
        remembered = self._what_is_remembered()
        earlier = [_said("user", self.fact), _said("assistant", "I will keep it in mind.")]
        session = await backend.start(structs.replace(self.options, messages=earlier))

        answer = await _answer(session, self.recall)

        assert _mentions(answer, remembered), f"the messages are forgotten: {answer!r}"

    @with_open_backend
    async def test_what_a_session_says_of_its_conversation_opens_another(
        self, backend: Backend
    ) -> None:
        session = await backend.start(self.options)
        before = session.messages
        for prompt in (self.question, self.fact):
            assert await _answer(session, prompt), f"{prompt!r} got no answer"
        messages = session.messages

        assert messages is not None, "a session without messages: set keeps_messages = False"
        assert not before, "messages must be a new list after a turn, or none before the first"
        assert [one["role"] for one in messages] == ["user", "assistant"] * 2
        assert self.fact in str(messages[2]), f"the third message is not the prompt: {messages}"
        again = await backend.start(structs.replace(self.options, messages=messages))
        answer = await _answer(again, self.recall)
        assert answer, "a session that was opened with these messages gives no answer"
        if self.remembered is not None:
            assert _mentions(answer, self.remembered), f"the messages are forgotten: {answer!r}"

    @with_open_backend
    async def test_sessions_know_nothing_of_each_other(self, backend: Backend) -> None:
        remembered = self._what_is_remembered()
        first, second = await backend.start(self.options), await backend.start(self.options)

        await _answer(first, self.fact)
        answer = await _answer(second, self.recall)

        assert not _mentions(answer, remembered), f"one session heard the other: {answer!r}"

    @with_open_backend
    async def test_many_sessions_run_side_by_side(self, backend: Backend) -> None:
        async def ask() -> list[Event]:
            return await turn_of(await backend.start(self.options), self.question)

        turns = await asyncio.gather(*(ask() for _ in range(self.sessions_side_by_side)))

        failures = [events[-1] for events in turns if not isinstance(events[-1], ResultEvent)]
        assert not failures, f"{len(failures)} of {len(turns)} failed: {failures[0]}"

    @pytest.mark.parametrize("steps", CANCELLED_AFTER_STEPS)
    @with_open_backend
    async def test_a_cancelled_turn_leaves_the_conversation_as_it_was(
        self, backend: Backend, steps: int
    ) -> None:
        session = await backend.start(self.options)
        turn = asyncio.create_task(turn_of(session, self.fact))
        for _ in range(steps):
            await asyncio.sleep(0)

        turn.cancel()
        await asyncio.wait([turn])

        await self._check_goes_on(session, must_forget=turn.cancelled())

    @with_open_backend
    async def test_a_turn_left_in_the_middle_leaves_the_conversation_as_it_was(
        self, backend: Backend
    ) -> None:
        session = await backend.start(self.options)
        events = session.prompt(self.fact)

        first = await anext(events)
        if isinstance(events, AsyncGenerator):
            await events.aclose()

        await self._check_goes_on(session, must_forget=not isinstance(first, ResultEvent))

    @with_open_backend
    async def test_what_goes_wrong_is_yielded_and_not_raised(self, backend: Backend) -> None:
        events = await turn_of(await backend.start(self.options), self._what_fails())

        assert isinstance(events[-1], ErrorEvent), f"{self.failing!r} must fail: {events}"
        assert count_of_ends(events) == 1, f"a turn must end once: {events}"
        assert events[-1].message, "an error must say what happened"

    @with_open_backend
    async def test_a_failed_turn_leaves_the_session_usable(self, backend: Backend) -> None:
        session = await backend.start(self.options)

        await turn_of(session, self._what_fails())
        events = await turn_of(session, self.question)

        assert isinstance(events[-1], ResultEvent), f"no answer after an error: {events}"

    @with_open_backend
    async def test_closing_twice_does_no_harm(self, backend: Backend) -> None:
        session = await backend.start(self.options)
        await turn_of(session, self.question)

        for _ in range(2):
            await session.close()
        for _ in range(2):
            await backend.close()

    @with_open_backend
    async def test_it_pickles_also_while_it_is_open(self, backend: Backend) -> None:
        session = await backend.start(self.options)
        await turn_of(session, self.question)

        async with opened(cloudpickle.loads(cloudpickle.dumps(backend))) as copy:
            events = await turn_of(await copy.start(self.options), self.question)

        assert isinstance(events[-1], ResultEvent), f"the unpickled copy fails: {events}"

    @with_open_backend
    async def test_no_repr_shows_a_secret(self, backend: Backend) -> None:
        session = await backend.start(self.options)

        self._check_hides_secrets(f"{backend!r} {backend} {session!r}")

    @with_open_backend
    async def test_no_account_shows_a_secret(self, backend: Backend) -> None:
        account = getattr(backend, "account", None)

        self._check_hides_secrets(repr(account() if account else None))

    @with_open_backend
    async def test_no_error_shows_a_secret(self, backend: Backend) -> None:
        events = await turn_of(await backend.start(self.options), self._what_fails())

        self._check_hides_secrets(repr(events))
        self._check_hides_secrets(str(cloudpickle.dumps(events)))

    async def _check_goes_on(self, session: Session, *, must_forget: bool) -> None:
        events = await turn_of(session, self.recall)

        assert isinstance(events[-1], ResultEvent), f"the session is broken: {events}"
        if must_forget and self.remembered is not None:
            is_known = _mentions(_text(events), self.remembered)
            assert not is_known, "a turn without a result is remembered"

    def _check_hides_secrets(self, text: str) -> None:
        for secret in self.secrets:
            assert secret not in text, "a secret can be read"

    def _what_is_remembered(self) -> str:
        assert self.remembered is not None
        return self.remembered

    def _what_fails(self) -> str:
        assert self.failing is not None
        return self.failing


def _mentions(answer: str, words: str) -> bool:
    return words.casefold() in answer.casefold()


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


async def _answer(session: Session, prompt: Content) -> str:
    """The text of one turn; one that ends in a transient error is tried again, as pools do."""
    for _ in range(ATTEMPTS):
        events = await turn_of(session, prompt)
        last = events[-1]
        if not (isinstance(last, ErrorEvent) and last.verdict == "transient"):
            break
    return _text(events)


def _text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextEvent))
