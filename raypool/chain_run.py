"""From a task to its outcome: its turns, and the callbacks around each."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from raypool import records
from raypool.agent import Halt, Prompt, Skip
from raypool.attempts import Attempts, Result, Turned
from raypool.callbacks import USER_ERRORS, Callbacks, raise_if_cancelled
from raypool.chain import PAUSE, Chain, Pause
from raypool.config import Price
from raypool.conversations import Conversations, Memory
from raypool.errors import TaskFailed
from raypool.halting import Halting
from raypool.limits import Limits
from raypool.messages import Answer, Asked, Assignment, Failure, Outcome
from raypool.outcomes import (
    error_of,
    failure_of_interrupt,
    failure_of_timeout,
    failure_of_too_many_turns,
    response_of,
    sendable,
)
from raypool.response import Response
from raypool.snapshots import snapshot_json
from raypool.telemetry import EventLog

logger = logging.getLogger(__name__)

MOST_PAUSED = 10_000

TOLD = (Answer, Failure)


class TurnRules(NamedTuple):
    """What a pool says of its turns.

    Attributes:
        memory: whether a conversation is a task's or the worker's.
        turn_timeout: the longest that an attempt at a turn may run, in seconds; the time for
            which it pauses does not count.
        max_attempts: how many attempts a turn gets.
        max_turns_per_task: the most turns of one task, exchanges for tools included.
        parse_attempts: how many answers in all may be asked for to fit an output type.
        prices: what models cost, in the place of what a backend says; `None` names none.
    """

    memory: Memory = "task"
    turn_timeout: float = 600.0
    max_attempts: int = 4
    max_turns_per_task: int = 50
    parse_attempts: int = 3
    prices: Mapping[str, Price] | None = None


class ChainRuns:
    """Runs chains: several at once, when the worker has as many slots.

    Attributes:
        hear_waiting: has the notices that wait heard, after each turn.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        attempts: Attempts,
        conversations: Conversations,
        rules: TurnRules,
        *,
        limits: Limits,
        halting: Halting,
        log: EventLog,
    ) -> None:
        self._callbacks = callbacks
        self._attempts = attempts
        self._conversations = conversations
        self._rules = rules
        self._limits = limits
        self._halting = halting
        self._log = log
        self._handles_errors = callbacks.is_overridden("handle_error")
        self._looks_back = callbacks.is_overridden("post_turn")
        self._has_snapshots = callbacks.is_overridden("snapshot")
        self._running: dict[int, Chain] = {}
        self._paused: OrderedDict[int, Chain] = OrderedDict()
        self.hear_waiting: Callable[[], Awaitable[None] | None] | None = None

    async def run(self, work: Assignment, asked: Asked | None = None) -> Outcome:
        """A task's turns, up to what is reported of them; raises only cancellation.

        A transient failure that may be followed by another attempt is an outcome too, and so
        is a halt before a turn, and a pause before an exchange for which no capacity is
        reserved; the chain goes on where it was when the task comes back.
        """
        chain = self._paused.pop(work.number, None)
        if chain is None:
            chain = Chain(work, asked)
        else:
            chain.take_up(work)
        self._running[work.number] = chain
        try:
            return self.reported(await self._run(chain))
        except asyncio.CancelledError:
            await self._leave(chain, is_recorded=False)
            raise
        finally:
            del self._running[work.number]

    def reported(self, outcome: Outcome) -> Outcome:
        """An outcome as it is sent; it tells of a halt as late as can be, which may be over."""
        if self._halting.is_halted and (reason := self._halting.take_report()) is not None:
            outcome = msgspec.structs.replace(outcome, halt=reason)
        return sendable(outcome)

    def cancel(self, number: int) -> None:
        """Interrupt a task whose answer nobody wants any more."""
        if number in self._running:
            self._running[number].is_cancelled = True
            self._limits.interrupt(number)

    async def forget(self, number: int) -> None:
        """Drop what is kept of a task that waits."""
        chain = self._paused.pop(number, None)
        if chain is not None:
            await self._leave(chain, is_recorded=False)

    async def close(self) -> None:
        """Forget every task that waits."""
        for number in list(self._paused):
            await self.forget(number)

    @property
    def kept(self) -> list[Assignment]:
        """The tasks that wait in the middle, as they were last sent."""
        return [chain.work for chain in self._paused.values()]

    def lost(self, number: int) -> Outcome:
        """What is reported of a task that could not be interrupted; from any thread."""
        chain = self._running.get(number)
        if chain is None or chain.is_cancelled:
            return Outcome(number)
        if chain.outcome is not None:
            return chain.outcome
        if chain.concluded is not None:
            return _outcome(chain, chain.concluded)
        if self._limits.is_interrupted(number):
            return _outcome(chain, failure_of_interrupt(chain, 0.0))
        seconds = chain.work.timeout or self._rules.turn_timeout
        return _outcome(chain, failure_of_timeout(chain, seconds, 0.0))

    async def _run(self, chain: Chain) -> Outcome:
        while True:
            turned = Turned(PAUSE) if chain.left == 0 else await self._attempts.make(chain)
            result = turned.result
            if isinstance(result, Failure | Pause) and self._may_follow(chain, result):
                return await self._pause(chain, result)
            decision = turned.decision
            if isinstance(result, TOLD):
                self._note(chain, result, decision)
                if self._looks_back or (self._handles_errors and isinstance(result, Failure)):
                    decision = await self._consult(chain, turned)
            if isinstance(decision, Halt) and self._halting.halt(decision.reason):
                self._log.emit("halted", reason=decision.reason)
            if self.hear_waiting is not None and (hearing := self.hear_waiting()) is not None:
                await hearing
            if chain.is_cancelled:
                result = decision = None
            if isinstance(decision, Prompt):
                result = self._go_on(chain, result, decision)
            if not isinstance(decision, Prompt) or isinstance(result, Failure):
                outcome = self._outcome_of(chain, result)
                return outcome if self._is_over(chain) else await self._end(chain, result, outcome)

    def _go_on(self, chain: Chain, result: Result, decision: Prompt) -> Failure | None:
        """Begin the turn that the agent asks for; the task's failure when it may take no more."""
        most = self._rules.max_turns_per_task
        if max(chain.exchanges, chain.number) >= most:
            return failure_of_too_many_turns(chain, most)
        if isinstance(result, Failure) and chain.conversation is not None:
            chain.conversation.rewind()
        chain.go_on(decision.text)
        return None

    def _note(self, chain: Chain, result: Answer | Failure, decision: Prompt | Halt | None) -> None:
        """The turn has ended for good, and its task with it unless the agent asks on."""
        chain.concluded = None if isinstance(decision, Prompt) else result
        if self._log.is_watched:
            self._tell(chain, result)

    async def _consult(self, chain: Chain, turned: Turned) -> Prompt | Halt | None:
        """Have the agent decide on a failure, and look back on the turn; raises cancellation."""
        decision, result, worker = turned.decision, turned.result, self._callbacks.agent.worker
        asks = isinstance(result, Failure) and not turned.is_decided
        seen: Response | TaskFailed
        if isinstance(result, Failure):
            seen = error_of(chain, result, turned.exception, worker)
        else:
            assert isinstance(result, Answer)
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

    def _outcome_of(self, chain: Chain, result: Result) -> Outcome:
        """What is reported of a task that has ended."""
        conversation, added = chain.conversation, None
        if conversation is not None and conversation.name is not None:
            added = conversation.added() if isinstance(result, Answer) else None
        chain.outcome = _outcome(chain, result, added)
        return chain.outcome

    def _is_over(self, chain: Chain) -> bool:
        """Whether nothing is left to do once the task has ended."""
        conversation = chain.conversation
        has_conversation = conversation is not None and not conversation.ends_by_itself
        return not (has_conversation or self._has_snapshots or self._halting.is_halted)

    async def _end(self, chain: Chain, result: Result, outcome: Outcome) -> Outcome:
        if isinstance(result, Halt) and chain.has_begun:
            chain.wait()
            await self._keep(chain)
        else:
            await self._leave(chain, is_recorded=isinstance(result, Answer))
        if self._halting.is_halted:
            await self.finish(chain.work.number)
        snapshot = await self.snapshot(chain.work.number)
        return outcome if snapshot is None else msgspec.structs.replace(outcome, snapshot=snapshot)

    async def _leave(self, chain: Chain, *, is_recorded: bool) -> None:
        conversation, chain.conversation = chain.conversation, None
        if conversation is not None:
            await self._conversations.leave(conversation, is_recorded=is_recorded)

    async def snapshot(self, number: int) -> str | None:
        """The agent's state as JSON, where it gives one; a bad one is logged.

        `number` is that of the task or the notice after which it is taken.
        """
        if not self._has_snapshots:
            return None
        try:
            with self._limits.callbacks(number, self._rules.turn_timeout):
                return snapshot_json(await self._callbacks.call("snapshot"))
        except USER_ERRORS:
            raise_if_cancelled()
            worker = self._callbacks.agent.worker
            logger.exception("worker %r keeps its older snapshot: the new one failed", worker)
            return None

    async def finish(self, number: int) -> None:
        """Have the agent do what it does once it has halted and no turn of it runs.

        `number` is that of the task or the notice that was the last.
        """
        runs = any(chain.outcome is None for chain in self._running.values())
        if not runs and self._halting.take_post_run():
            await self.call_within(self._rules.turn_timeout, number, "post_run")

    async def call_within(self, seconds: float, number: int, name: str, *args: Any) -> Any:
        """What a callback returns in time; what it raises is logged and changes nothing.

        `number` is that of the task or the notice that it runs for.
        """
        try:
            with self._limits.callbacks(number, seconds):
                return await self._callbacks.call_quietly(name, *args)
        except TimeoutError:
            worker = self._callbacks.agent.worker
            logger.exception("%s of worker %r did not end within %g s", name, worker, seconds)
            return None

    def _may_follow(self, chain: Chain, result: Failure | Pause) -> bool:
        """Whether the turn goes on later, or has another attempt by the pool's rules."""
        if chain.is_cancelled or isinstance(result, Pause):
            return not chain.is_cancelled
        if result.verdict == "refused":
            return chain.work.may_wait
        if result.verdict == "unreachable":
            return chain.work.may_miss
        return result.verdict == "transient" and chain.attempt < self._rules.max_attempts

    async def _pause(self, chain: Chain, result: Failure | Pause) -> Outcome:
        """Report a failure or a pause, and keep what the chain goes on with."""
        conversation, waits = chain.conversation, isinstance(result, Pause)
        if isinstance(result, Pause):
            chain.wait()
        elif self._log.is_watched:
            self._tell(chain, result)
        if waits or chain.has_begun or (conversation is not None and conversation.name):
            await self._keep(chain)
        else:
            await self._leave(chain, is_recorded=False)
        chain.outcome = _outcome(chain, result)
        if self._halting.is_halted:
            await self.finish(chain.work.number)
        return chain.outcome

    async def _keep(self, chain: Chain) -> None:
        """Keep a chain until its task comes back; the worker's conversation goes on without it."""
        conversation = chain.conversation
        if conversation is not None and self._conversations.is_shared(conversation):
            chain.leave_conversation()
        self._paused[chain.work.number] = chain
        if len(self._paused) > MOST_PAUSED:
            await self.forget(next(iter(self._paused)))

    def _tell(self, chain: Chain, result: Answer | Failure) -> None:
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
        usage, cost_usd = chain.turn_consumption()
        self._log.emit(
            "prompt.stop",
            model=result.model,
            stop_reason=result.stop_reason,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=cost_usd,
            **about,
        )


def _outcome(
    chain: Chain, result: Result, conversation: records.Conversation | None = None
) -> Outcome:
    number, turns, asked = chain.work.number, chain.exchanges, chain.asked
    usage, cost_usd = chain.take_consumption()
    requests, limits = chain.take_requests(), chain.take_limits()
    if isinstance(result, Answer):
        # By position: by name it takes three times as long.
        return Outcome(
            number,
            result,
            None,
            usage,
            cost_usd,
            turns,
            False,
            None,
            None,
            conversation,
            None,
            asked,
            requests,
            False,
            limits,
        )
    return Outcome(
        number,
        failure=result if isinstance(result, Failure) else None,
        usage=usage,
        cost_usd=cost_usd,
        turns=turns,
        is_returned=isinstance(result, Halt),
        skipped=result.reason if isinstance(result, Skip) else None,
        asked=asked,
        requests=requests,
        is_paused=isinstance(result, Pause),
        limits=limits,
    )
