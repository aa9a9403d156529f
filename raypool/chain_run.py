"""From a task to its outcome: its turns, and the callbacks around each."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from raypool.agent import Halt, Prompt, SessionOptions, Skip
from raypool.asking import Asking
from raypool.callbacks import USER_ERRORS, Callbacks, raise_if_cancelled
from raypool.chain import Chain
from raypool.clock import Clock
from raypool.conversations import Conversations, Memory
from raypool.halting import Halting
from raypool.limits import Limits
from raypool.messages import Answer, Asked, Assignment, Failure, Outcome
from raypool.outcomes import (
    answer_of,
    error_of,
    failure_of_callback,
    failure_of_event,
    failure_of_interrupt,
    failure_of_raised,
    failure_of_timeout,
    failure_of_too_many_turns,
    response_of,
)
from raypool.snapshots import snapshot_json
from raypool.telemetry import EventLog

logger = logging.getLogger(__name__)

MOST_PAUSED = 10_000

Result: TypeAlias = Answer | Failure | Skip | Halt | None
"""What came of a turn; `None` for a task that was cancelled."""


class TurnRules(NamedTuple):
    """What a pool says of its turns.

    Attributes:
        memory: whether a conversation is a task's or the worker's.
        turn_timeout: the longest that a turn may run, in seconds.
        max_attempts: how many attempts a turn gets.
        max_turns_per_task: the most turns of one task, exchanges for tools included.
        parse_attempts: how many answers in all may be asked for to fit an output type.
    """

    memory: Memory = "task"
    turn_timeout: float = 600.0
    max_attempts: int = 4
    max_turns_per_task: int = 50
    parse_attempts: int = 3


class Turned(NamedTuple):
    """A turn that has ended.

    Attributes:
        result: what came of it.
        decision: what `handle_response` decided.
        is_decided: the agent has had its say: `handle_error` is not asked.
    """

    result: Result
    decision: Prompt | Halt | None = None
    is_decided: bool = False


class ChainRuns:
    """Runs chains: several at once, when the worker has as many slots.

    Attributes:
        hear_waiting: awaited between the turns of a chain: notices are heard there.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        asking: Asking,
        conversations: Conversations,
        options_for: Callable[[Assignment], Awaitable[SessionOptions]],
        rules: TurnRules,
        *,
        limits: Limits,
        halting: Halting,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._callbacks = callbacks
        self._asking = asking
        self._conversations = conversations
        self._options_for = options_for
        self._rules = rules
        self._limits = limits
        self._halting = halting
        self._clock = clock
        self._log = log
        self._running: dict[int, Chain] = {}
        self._paused: OrderedDict[int, Chain] = OrderedDict()
        self.hear_waiting: Callable[[], Awaitable[None]] | None = None

    def __len__(self) -> int:
        """How many run now."""
        return len(self._running)

    async def run(self, work: Assignment, asked: Asked | None = None) -> Outcome:
        """A task's turns, up to its outcome; raises only cancellation.

        A transient failure that may be followed by another attempt is an outcome too; the
        chain goes on where it was when the task comes back.
        """
        chain = self._paused.pop(work.number, None)
        if chain is None:
            chain = Chain(work, asked)
        else:
            chain.take_up(work)
        self._running[work.number] = chain
        try:
            return await self._run(chain)
        finally:
            del self._running[work.number]

    def cancel(self, number: int) -> None:
        """Interrupt a task whose answer nobody wants any more."""
        if number in self._running:
            self._running[number].is_cancelled = True
            self._limits.interrupt(number)

    def is_paused(self, number: int) -> bool:
        """Whether something is kept of a task that waits for another attempt."""
        return number in self._paused

    async def forget(self, number: int) -> None:
        """Drop what is kept of a task that waits for another attempt."""
        chain = self._paused.pop(number, None)
        if chain is not None and chain.conversation is not None:
            await self._conversations.leave(chain.conversation, is_recorded=False)

    async def close(self) -> None:
        """Forget every task that waits."""
        for number in list(self._paused):
            await self.forget(number)

    def lost(self, number: int) -> Outcome:
        """What is reported of a task that could not be interrupted; from any thread."""
        chain = self._running.get(number)
        if chain is None or chain.is_cancelled:
            return Outcome(number)
        if chain.concluded is not None:
            return _outcome(chain, chain.concluded)
        if self._limits.is_interrupted(number):
            return _outcome(chain, failure_of_interrupt(chain, 0.0))
        return _outcome(chain, failure_of_timeout(chain, self._limit_of(chain), 0.0))

    async def _run(self, chain: Chain) -> Outcome:
        while True:
            turned = await self._turn(chain)
            if isinstance(turned.result, Failure) and self._may_follow(chain, turned.result):
                return await self._pause(chain, turned.result)
            decision = await self._conclude(chain, turned)
            if isinstance(decision, Halt) and self._halting.halt(decision.reason):
                self._log.emit("halted", reason=decision.reason)
            if self.hear_waiting is not None:
                await self.hear_waiting()
            result = None if chain.is_cancelled else turned.result
            if result is None or self._halting.is_halted or not isinstance(decision, Prompt):
                return await self._end(chain, result)
            most = self._rules.max_turns_per_task
            if chain.exchanges >= most:
                return await self._end(chain, failure_of_too_many_turns(chain, most))
            if isinstance(result, Failure) and chain.conversation is not None:
                await self._conversations.rewind(chain.conversation)
            chain.go_on(decision.text)

    async def _turn(self, chain: Chain) -> Turned:
        """One attempt at a turn, and what `handle_response` makes of it."""
        started = self._clock.monotonic()
        seconds = self._limit_of(chain)
        try:
            with self._limits.turn(chain.work.number, seconds) as limit:
                if chain.is_cancelled:
                    limit.interrupt()
                turned = await self._attempt(chain, started)
        except USER_ERRORS as error:
            raise_if_cancelled()
            turned = Turned(failure_of_raised(chain, error, self._since(started)))
        if limit.is_interrupted:
            return Turned(failure_of_interrupt(chain, self._since(started)))
        if limit.has_expired:
            return Turned(failure_of_timeout(chain, seconds, self._since(started)))
        return turned

    async def _attempt(self, chain: Chain, started: float) -> Turned:
        work = chain.work
        if chain.conversation is None:
            options = await self._options_for(work)
            chain.conversation = await self._conversations.open(work, options)
        if chain.pending is None:
            chain.conversation.begin_turn()
            stop = await self._look_before(chain)
            if stop is not None:
                return Turned(stop)
        self._log.emit(
            "prompt.start",
            task=work.id,
            turn=chain.number,
            attempt=chain.attempt,
            session=work.session,
        )
        error = await self._asking.ask(chain)
        if error is not None:
            return Turned(failure_of_event(chain, error, self._since(started)))
        return await self._respond(chain, answer_of(chain, self._since(started)))

    async def _look_before(self, chain: Chain) -> Failure | Skip | Halt | None:
        """Have the agent see what is about to be asked; what stops it."""
        decided = None
        if self._callbacks.is_overridden("pre_turn"):
            try:
                decided = await self._callbacks.call("pre_turn", chain.turn(), chain.prompt)
            except USER_ERRORS as error:
                raise_if_cancelled()
                return failure_of_callback(chain, error, 0.0)
        if isinstance(decided, Skip | Halt):
            return decided
        chain.pending = chain.prompt if decided is None else decided
        return None

    async def _respond(self, chain: Chain, answer: Answer) -> Turned:
        if not self._callbacks.is_overridden("handle_response"):
            return Turned(answer)
        try:
            response = response_of(chain, answer)
            decision = await self._callbacks.call("handle_response", chain.turn(), response)
        except USER_ERRORS as error:
            raise_if_cancelled()
            failure = failure_of_callback(chain, error, answer.duration_ms)
            return Turned(failure, is_decided=True)
        return Turned(answer, decision, is_decided=True)

    async def _conclude(self, chain: Chain, turned: Turned) -> Prompt | Halt | None:
        """What follows a turn that has ended for good; raises only cancellation."""
        result = turned.result
        if isinstance(result, Halt):
            return result
        if not isinstance(result, Answer | Failure):
            return None
        chain.concluded = result
        self._tell(chain, result)
        asks = isinstance(result, Failure) and not turned.is_decided
        asks = asks and self._callbacks.is_overridden("handle_error")
        decision = turned.decision
        if not asks and not self._callbacks.is_overridden("post_turn"):
            return decision
        worker = self._callbacks.agent.worker
        seen: Any
        if isinstance(result, Failure):
            seen = error_of(chain, result, worker)
        else:
            seen = response_of(chain, result)
        seconds = self._rules.turn_timeout
        try:
            with self._limits.callbacks(chain.work.number, seconds):
                if asks:
                    decision = await self._callbacks.call_quietly(
                        "handle_error", chain.turn(), seen
                    )
                await self._callbacks.call_quietly("post_turn", chain.turn(), seen)
        except TimeoutError:
            logger.exception(
                "handle_error or post_turn of worker %r did not end within %g s", worker, seconds
            )
        return decision

    async def _end(self, chain: Chain, result: Result) -> Outcome:
        conversation = chain.conversation
        is_completed = isinstance(result, Answer)
        added = None
        if conversation is not None:
            if is_completed and conversation.name is not None:
                added = conversation.added()
            await self._conversations.leave(conversation, is_recorded=is_completed)
        return _outcome(
            chain,
            result,
            conversation=added,
            snapshot=await self.snapshot(),
        )

    async def snapshot(self) -> str | None:
        """The agent's state as JSON, where it gives one; a bad one is logged."""
        if not self._callbacks.is_overridden("snapshot"):
            return None
        try:
            return snapshot_json(await self._callbacks.call("snapshot"))
        except USER_ERRORS:
            raise_if_cancelled()
            worker = self._callbacks.agent.worker
            logger.exception("worker %r keeps its older snapshot: the new one failed", worker)
            return None

    def _may_follow(self, chain: Chain, failure: Failure) -> bool:
        """Whether another attempt at the turn follows, by the pool's rules."""
        if chain.is_cancelled:
            return False
        if failure.verdict == "refused":
            return chain.work.may_wait
        return failure.verdict == "transient" and chain.attempt < self._rules.max_attempts

    async def _pause(self, chain: Chain, failure: Failure) -> Outcome:
        """Report a failure, and keep what another attempt goes on with."""
        self._tell(chain, failure)
        conversation = chain.conversation
        if conversation is not None and self._conversations.is_shared(conversation):
            await self._conversations.rewind(conversation)
            chain.begin_again()
        if chain.has_begun or (conversation is not None and conversation.name):
            self._paused[chain.work.number] = chain
            if len(self._paused) > MOST_PAUSED:
                await self.forget(next(iter(self._paused)))
        elif conversation is not None:
            await self._conversations.leave(conversation, is_recorded=False)
        return _outcome(chain, failure)

    def _tell(self, chain: Chain, result: Answer | Failure) -> None:
        if not self._log.is_watched:
            return
        about: dict[str, Any] = {
            "task": chain.work.id,
            "turn": chain.number,
            "attempt": chain.attempt,
            "session": chain.work.session,
            "duration_ms": result.duration_ms,
        }
        if isinstance(result, Failure):
            self._log.emit(
                "prompt.error",
                kind=result.kind,
                verdict=result.verdict,
                error_type=result.type,
                **about,
            )
            return
        self._log.emit(
            "prompt.stop",
            model=result.model,
            stop_reason=result.stop_reason,
            input_tokens=chain.turn_usage.input_tokens,
            output_tokens=chain.turn_usage.output_tokens,
            cost_usd=chain.turn_cost_usd,
            **about,
        )

    def _limit_of(self, chain: Chain) -> float:
        timeout = chain.work.timeout
        return self._rules.turn_timeout if timeout is None else timeout

    def _since(self, started: float) -> float:
        return round((self._clock.monotonic() - started) * 1000, 3)


def _outcome(chain: Chain, result: Result, **others: Any) -> Outcome:
    usage, cost_usd = chain.take_consumption()
    return Outcome(
        chain.work.number,
        answer=result if isinstance(result, Answer) else None,
        failure=result if isinstance(result, Failure) else None,
        usage=usage,
        cost_usd=cost_usd,
        turns=chain.exchanges,
        is_returned=isinstance(result, Halt),
        skipped=result.reason if isinstance(result, Skip) else None,
        asked=chain.asked,
        **others,
    )
