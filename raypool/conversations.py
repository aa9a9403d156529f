"""The conversations that a worker has open, and how they are kept short enough."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any, Literal

import msgspec
import uuid_utils

from raypool import records
from raypool.agent import SessionOptions
from raypool.backends.base import Backend, Session
from raypool.backends.dialogue import as_messages, has_tool_results
from raypool.callbacks import USER_ERRORS, raise_if_cancelled
from raypool.clock import Clock
from raypool.messages import Assignment
from raypool.task import Content
from raypool.telemetry import EventLog
from raypool.watchdog import Watchdog

logger = logging.getLogger(__name__)

Memory = Literal["task", "worker"]
Messages = list[dict[str, Any]]

CLOSE_SECONDS = 5.0
MOST_RESTING = 512
REST_SECONDS = 300.0
NOTHING_TO_CLOSE = (Session.close, Backend.close)


class Conversation:
    """One conversation with the backend.

    Attributes:
        session: the backend's.
        options: what it was opened with.
        id: its id.
        name: the session's name; `None` for one that ends with its task or its worker.
        turns: how many tasks a named one has behind it.
        rests_since: when its last task ended, on the monotonic clock.
        turn_begins_at: how many messages were there before the turn.
        is_shortened: older turns were dropped in this task.
        is_rewritten: its messages are others than the session's, which must be opened again.
        keeps_own_record: the session keeps no messages.
        must_close: its session has something to close.
        is_tasks_own: it ends with its task.
    """

    __slots__ = (
        "_begins_at",
        "_own_record",
        "id",
        "is_rewritten",
        "is_shortened",
        "is_tasks_own",
        "keeps_own_record",
        "must_close",
        "name",
        "options",
        "rests_since",
        "session",
        "turn_begins_at",
        "turns",
    )

    def __init__(self, session: Session, options: SessionOptions, name: str | None) -> None:
        self.name = name
        self.id = name or getattr(session, "id", None) or str(uuid_utils.uuid7())
        self.turns = 0
        self.rests_since = 0.0
        self.turn_begins_at = self._begins_at = len(options.messages)
        self.is_shortened = False
        self.is_tasks_own = False
        self.go_on_in(session, options)

    @property
    def ends_by_itself(self) -> bool:
        """Whether nothing needs to be done when its task ends."""
        return self.is_tasks_own and not self.must_close

    @property
    def messages(self) -> Messages:
        """All messages so far."""
        if self.keeps_own_record or self.is_rewritten:
            return self._own_record
        kept: Messages = self.session.messages or []
        return kept

    def remember(self, prompt: Content, text: str) -> None:
        """Note an exchange, for a session that keeps no messages."""
        self._own_record += as_messages(prompt)
        self._own_record.append({"role": "assistant", "content": text})

    def begin_task(self) -> None:
        """What is said from now on is a new task's."""
        self.turn_begins_at = self._begins_at = len(self.messages)
        self.is_shortened = False

    def begin_turn(self) -> None:
        """What is said from now on is a new turn's."""
        self.turn_begins_at = len(self.messages)

    @property
    def has_grown(self) -> bool:
        """Whether the task has added anything."""
        return self.is_shortened or len(self.messages) > self._begins_at

    def added(self) -> records.Conversation:
        """What the task has added to the named session."""
        assert self.name is not None
        messages = self.messages if self.is_shortened else self.messages[self._begins_at :]
        return records.Conversation(self.name, list(messages), self.is_shortened)

    def rewind(self) -> None:
        """Forget what the turn has said so far."""
        if len(self.messages) > self.turn_begins_at:
            self._rewrite(self.messages[: self.turn_begins_at])

    def set_aside(self) -> Messages:
        """Forget what the turn has said so far, and return it."""
        said = self.messages[self.turn_begins_at :]
        self.rewind()
        return said

    def bring_back(self, said: Messages) -> None:
        """Go on with what a turn had said before it was set aside."""
        self.turn_begins_at = len(self.messages)
        self._rewrite([*self.messages, *said])

    def shorten(self) -> int:
        """Drop the older half of what was said before the turn; how many messages.

        What the turn itself has said stays, as the results of tools need their calls.
        """
        older, current = self.messages[: self.turn_begins_at], self.messages[self.turn_begins_at :]
        kept = shortened(older)
        dropped = len(older) - len(kept)
        if dropped:
            self._rewrite([*kept, *current])
            self.turn_begins_at = len(kept)
            self.is_shortened = True
        return dropped

    def go_on_in(self, session: Session, options: SessionOptions) -> None:
        """Go on in another session, with the messages that it was started with."""
        self.session = session
        self.options = options
        self._own_record: Messages = list(options.messages)
        self.keeps_own_record = getattr(session, "messages", None) is None
        self.must_close = _must_close(session)
        self.is_rewritten = False

    def _rewrite(self, messages: Messages) -> None:
        self._own_record = messages
        self.is_rewritten = True


class Conversations:
    """Opens a task's conversation, and keeps those that go on: the worker's, and named ones.

    A named one that rests for `rest_seconds`, or longer than `most_resting` others, is
    closed; its next task opens it again with the messages that `load` gives.
    """

    def __init__(
        self,
        backend: Backend,
        memory: Memory,
        load: Callable[[str], Awaitable[Messages]],
        clock: Clock,
        log: EventLog,
        *,
        most_resting: int = MOST_RESTING,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self._backend = backend
        self._memory = memory
        self._load = load
        self._clock = clock
        self._log = log
        self._most_resting = most_resting
        self._rest_seconds = rest_seconds
        self._watchdog = Watchdog()
        self._shared: Conversation | None = None
        self._resting: OrderedDict[str, Conversation] = OrderedDict()

    async def open(self, work: Assignment, options: SessionOptions) -> Conversation:
        """The conversation of a task; raises what the backend or `load` raises."""
        if work.session is not None:
            return await self._open_named(work, work.session, options)
        if self._memory == "task":
            started: Any = self._backend.start(options)
            session = await started if hasattr(started, "__await__") else started
            conversation = Conversation(session, options, None)
            conversation.is_tasks_own = True
            return conversation
        self._shared = await self._fitting(self._shared, options)
        self._shared.begin_task()
        return self._shared

    def is_shared(self, conversation: Conversation) -> bool:
        """Whether it is the worker's, which its other tasks continue."""
        return conversation is self._shared

    async def leave(self, conversation: Conversation, *, is_recorded: bool) -> None:
        """The task has ended; what it added to a named session is recorded, or is to be undone."""
        if conversation is self._shared:
            if not is_recorded:
                conversation.rewind()
        elif conversation.name is None:
            await self._close(conversation)
        elif is_recorded or not conversation.has_grown:
            conversation.turns += is_recorded
            conversation.rests_since = self._clock.monotonic()
            self._resting[conversation.name] = conversation
            await self.close_rested()
        else:
            await self._close(conversation)

    def shorten(self, conversation: Conversation) -> bool:
        """Drop the older half of a conversation, turn by turn; false when it has nothing older."""
        dropped = conversation.shorten()
        if dropped:
            kept = len(conversation.messages)
            self._log.emit(
                "conversation.shortened", session=conversation.name, dropped=dropped, kept=kept
            )
            logger.warning(
                "conversation %r was longer than the model's context: its %d oldest messages "
                "were dropped, %d are kept",
                conversation.id,
                dropped,
                kept,
            )
        return dropped > 0

    async def open_again(self, conversation: Conversation) -> None:
        """Have the backend know a conversation as it was rewritten; raises what it raises."""
        options = msgspec.structs.replace(
            conversation.options, messages=list(conversation.messages)
        )
        session = await self._start(options)
        await self._close(conversation)
        conversation.go_on_in(session, options)

    async def close_rested(self) -> None:
        """Close the named conversations that have rested too long, or are too many."""
        long_ago = self._clock.monotonic() - self._rest_seconds
        while self._resting:
            oldest = next(iter(self._resting.values()))
            if len(self._resting) <= self._most_resting and oldest.rests_since > long_ago:
                return
            await self._close(self._resting.popitem(last=False)[1])

    async def close(self) -> None:
        """Close every conversation that rests, and the worker's."""
        if self._shared is not None:
            await self._close(self._shared)
        while self._resting:
            await self._close(self._resting.popitem()[1])

    async def _open_named(
        self, work: Assignment, name: str, options: SessionOptions
    ) -> Conversation:
        resting = self._resting.pop(name, None)
        if resting is not None and resting.turns == work.session_turns:
            conversation = await self._fitting(resting, options)
        else:
            if resting is not None:
                await self._close(resting)
            messages = await self._load(name) if work.session_turns else []
            options = msgspec.structs.replace(options, messages=messages)
            conversation = Conversation(await self._start(options), options, name)
        conversation.turns = work.session_turns
        conversation.begin_task()
        return conversation

    async def _fitting(
        self, conversation: Conversation | None, options: SessionOptions
    ) -> Conversation:
        """`conversation` itself, or opened again when its answers must be of another type."""
        if conversation is None:
            return Conversation(await self._start(options), options, None)
        if conversation.options.output_type is options.output_type:
            return conversation
        options = msgspec.structs.replace(options, messages=list(conversation.messages))
        again = Conversation(await self._start(options), options, conversation.name)
        await self._close(conversation)
        return again

    async def _start(self, options: SessionOptions) -> Session:
        session: Session = await settled(self._backend.start(options))
        return session

    async def _close(self, conversation: Conversation) -> None:
        await close_quietly(conversation.session, self._watchdog)


async def close_quietly(opened: Session | Backend, watchdog: Watchdog) -> None:
    """Close what the backend opened; that it cannot be closed changes no outcome."""
    if not _must_close(opened):
        return
    try:
        with watchdog.limit(CLOSE_SECONDS):
            await settled(opened.close())
    except USER_ERRORS:
        raise_if_cancelled()
        logger.exception("%s could not be closed", type(opened).__name__)


def _must_close(opened: Session | Backend) -> bool:
    close = getattr(opened, "close", None)
    does_nothing = close is None or getattr(close, "__func__", None) in NOTHING_TO_CLOSE
    return not does_nothing


async def settled(value: Any) -> Any:
    """A user's backend may write `def` where the contract has `async def`."""
    return await value if hasattr(value, "__await__") else value


def shortened(messages: Messages) -> Messages:
    """The newer half of a conversation by length, from the first message of a turn on.

    A turn begins with a message of the user's that is not the result of a tool; the last
    turn is never dropped in part. Empty when the whole is one turn.
    """
    sizes = [len(msgspec.json.encode(message)) for message in messages]
    half = sum(sizes) / 2
    starts = [
        place
        for place, message in enumerate(messages)
        if place and message["role"] == "user" and not has_tool_results(message)
    ]
    dropped = list(accumulate(sizes, initial=0))
    enough = [start for start in starts if dropped[start] >= half]
    kept_from = enough[0] if enough else max(starts, default=len(messages))
    return messages[kept_from:]
