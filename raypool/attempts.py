"""One attempt at a turn: the question, its answer, and what the agent says to both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from raypool.agent import Halt, Prompt, SessionOptions, Skip
from raypool.asking import Asking
from raypool.callbacks import USER_ERRORS, Callbacks, errors_only, raise_if_cancelled
from raypool.chain import PAUSE, Chain, Pause
from raypool.clock import Clock
from raypool.conversations import Conversations
from raypool.events import ErrorEvent
from raypool.limits import Limits
from raypool.messages import Answer, Assignment, Failure
from raypool.outcomes import (
    answer_of,
    event_of_raised,
    failure_of_callback,
    failure_of_event,
    failure_of_interrupt,
    failure_of_timeout,
    response_of,
)
from raypool.telemetry import EventLog

Result: TypeAlias = Answer | Failure | Skip | Halt | Pause | None
"""What came of a turn; `None` for a task that was cancelled."""


class Turned(msgspec.Struct, frozen=True):
    """A turn that has ended.

    Attributes:
        result: what came of it.
        decision: what `pre_turn` or `handle_response` decided.
        is_decided: the agent has had its say: `handle_error` is not asked.
        exception: what was raised, where the result is a failure.
    """

    result: Result
    decision: Prompt | Halt | None = None
    is_decided: bool = False
    exception: BaseException | None = None


class Attempts:
    """Makes attempts at turns, each under its limit.

    Args:
        callbacks: the agent's.
        asking: asks the backend.
        conversations: where a task's is opened.
        options: how a conversation is held whose task asks for no type.
        options_for: how one is held whose task asks for a type.
        turn_timeout: the longest that an attempt may take, in seconds, unless its task says;
            the time for which it pauses does not count.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        asking: Asking,
        conversations: Conversations,
        *,
        options: SessionOptions,
        options_for: Callable[[Assignment], Awaitable[SessionOptions]],
        turn_timeout: float,
        limits: Limits,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._callbacks = callbacks
        self._asking = asking
        self._conversations = conversations
        self._options = options
        self._options_for = options_for
        self._turn_timeout = turn_timeout
        self._limits = limits
        self._clock = clock
        self._log = log
        self._looks_before = callbacks.is_overridden("pre_turn")
        self._responds = callbacks.is_overridden("handle_response")

    async def make(self, chain: Chain) -> Turned:
        """One attempt at the chain's turn, and what the agent says to it; raises cancellation.

        An attempt that pauses goes on here when its task comes back.
        """
        started = self._clock.monotonic() - chain.seconds
        timeout = chain.work.timeout
        seconds = self._turn_timeout if timeout is None else timeout
        try:
            with (
                self._limits.turn(chain.work.number, seconds - chain.seconds) as limit,
                errors_only(),
            ):
                turned = await self._attempt(chain, started)
        except USER_ERRORS as error:
            raise_if_cancelled()
            turned = self._failed(chain, event_of_raised(error), started)
        if limit.is_interrupted:
            return Turned(failure_of_interrupt(chain, self._since(started)))
        if limit.has_expired:
            return Turned(failure_of_timeout(chain, seconds, self._since(started)))
        if isinstance(turned.result, Pause):
            chain.seconds = self._clock.monotonic() - started
        return turned

    async def _attempt(self, chain: Chain, started: float) -> Turned:
        work = chain.work
        if chain.conversation is None:
            is_plain = work.output_type is None
            options = self._options if is_plain else await self._options_for(work)
            chain.join_conversation(await self._conversations.open(work, options))
            assert chain.conversation is not None
        if chain.pending is None:
            if self._looks_before:
                stop = await self._look_before(chain)
                if stop is not None:
                    return stop
            else:
                chain.pending = chain.prompt
        if not chain.is_under_way:
            chain.is_under_way = True
            self._tell_of_start(chain)
        stopped = await self._asking.ask(chain)
        if isinstance(stopped, Pause):
            return Turned(PAUSE)
        if stopped is not None:
            return self._failed(chain, stopped, started)
        answer = answer_of(chain, self._since(started))
        return await self._respond(chain, answer) if self._responds else Turned(answer)

    def _tell_of_start(self, chain: Chain) -> None:
        if self._log.is_watched:
            self._log.emit(
                "prompt.start",
                task=chain.work.id,
                turn=chain.number,
                attempt=chain.attempt,
                session=chain.work.session,
            )

    async def _look_before(self, chain: Chain) -> Turned | None:
        """Have the agent see what is about to be asked; what stops it."""
        try:
            decided = await self._callbacks.call("pre_turn", chain.turn(), chain.prompt)
        except USER_ERRORS as error:
            raise_if_cancelled()
            return Turned(failure_of_callback(chain, error, 0.0), exception=error)
        if isinstance(decided, Skip):
            return Turned(decided)
        if isinstance(decided, Halt):
            return Turned(decided, decided)
        chain.pending = chain.prompt if decided is None else decided
        return None

    async def _respond(self, chain: Chain, answer: Answer) -> Turned:
        try:
            response = response_of(chain, answer)
            decision = await self._callbacks.call("handle_response", chain.turn(), response)
        except USER_ERRORS as error:
            raise_if_cancelled()
            failure = failure_of_callback(chain, error, answer.duration_ms)
            return Turned(failure, is_decided=True, exception=error)
        return Turned(answer, decision, is_decided=True)

    def _failed(self, chain: Chain, event: ErrorEvent, started: float) -> Turned:
        failure = failure_of_event(chain, event, self._since(started))
        return Turned(failure, exception=event.exception)

    def _since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)
