"""The turn engine: one agent, its backend, and what may be asked of the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec
import uuid_utils

from raypool.agent import Agent, AgentStart, Halt, Prompt, SessionOptions
from raypool.asking import Asking
from raypool.attempts import Attempts
from raypool.backends.base import Backend
from raypool.callbacks import Callbacks
from raypool.chain_run import ChainRuns, TurnRules
from raypool.clock import Clock
from raypool.conversations import Conversations, close_quietly, settled
from raypool.halting import Halting
from raypool.limits import Limits
from raypool.messages import Asked, Assignment, Notice, Outcome, Terms
from raypool.output_type import OutputType
from raypool.session_options import checked_options
from raypool.snapshots import restored, snapshot_json
from raypool.telemetry import EventLog
from raypool.terms import terms_of
from raypool.tools import ToolBox
from raypool.watchdog import Watchdog

FAREWELL = -1
FAREWELL_SECONDS = 5.0


class Library(Protocol):
    """What a worker looks up elsewhere when it needs it."""

    async def conversation(self, session: str) -> list[dict[str, Any]]:
        """The messages of a named session, as the ledger has them."""

    async def output_type(self, digest: str) -> OutputType:
        """The type of that digest."""


class TurnEngine:
    """Runs the turns of one agent, and its callbacks around them.

    It belongs to one event loop. With `memory="task"` each task has a conversation of its
    own; with `memory="worker"` all tasks share one, and the caller runs them one at a time.

    Attributes:
        halting: whether the agent takes tasks.
        limits: what runs, and for how long it may.
        log: where telemetry goes.
        hear_waiting: has the notices that wait heard, after each turn.
        put_text: is given the text of tasks that stream, by number, as it comes.
        terms: what its turns are limited and priced by, once it has begun.
    """

    def __init__(
        self,
        agent: Agent,
        backend: Backend,
        rules: TurnRules,
        *,
        library: Library,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._agent = agent
        self._callbacks = Callbacks(agent)
        self._backend = backend
        self._rules = rules
        self._library = library
        self._clock = clock
        self._watchdog = Watchdog()
        self._conversations = Conversations(backend, rules.memory, library.conversation, clock, log)
        self._options = SessionOptions()
        self._options_by_type: dict[str, SessionOptions] = {}
        self._runs: ChainRuns | None = None
        self.halting = Halting()
        self.limits = Limits()
        self.log = log
        self.hear_waiting: Callable[[], Awaitable[None] | None] | None = None
        self.put_text: Callable[[int, str], None] = _drop_text
        self.terms = Terms()

    async def begin(self, start: AgentStart, snapshot: str | None = None) -> None:
        """Connect the backend and initialise the agent; raises what either raises.

        `snapshot` is the state that the agent of this worker had when it ended.
        """
        self._agent.worker = start.worker
        opened = getattr(self._backend, "open", None)
        await settled(opened() if opened else None)
        self._use(checked_options(await self._callbacks.call("init_agent", start)))
        if snapshot is not None and self._callbacks.is_overridden("restore"):
            await self._callbacks.call("restore", restored(self._agent.restore, snapshot))
        await self._callbacks.call("pre_run")
        if self._callbacks.is_overridden("snapshot"):
            snapshot_json(await self._callbacks.call("snapshot"))

    async def end(self, reason: str = "the pool has stopped") -> None:
        """Let the agent say farewell, and close its conversations and the backend."""
        if self._runs is not None:
            await self._runs.call_within(FAREWELL_SECONDS, FAREWELL, "terminate_agent", reason)
            await self._runs.close()
        await self._conversations.close()
        await close_quietly(self._backend, self._watchdog)
        self._callbacks.close()

    def run(self, work: Assignment, asked: Asked | None = None) -> Coroutine[Any, Any, Outcome]:
        """A task's turns, up to its outcome; raises only cancellation."""
        assert self._runs is not None, "the engine has not begun"
        return self._runs.run(work, asked)

    async def ask(self, notice: Notice, prompt: Prompt, role: str) -> Outcome:
        """The turns that the agent asked for when it heard a notice: a task of its own.

        It pauses, as any other, once it has had the exchanges that the notice allows.
        """
        asked = Asked(str(uuid_utils.uuid7()), prompt.text)
        work = Assignment(
            notice.number, asked.id, asked.prompt, role=role, exchanges=notice.exchanges
        )
        return await self.run(work, asked)

    async def hear(self, notice: Notice) -> Prompt | Outcome:
        """Have the agent handle an event: what it wants to ask, or that it is dealt with."""
        assert self._runs is not None, "the engine has not begun"
        decision = await self._runs.call_within(
            self._rules.turn_timeout, notice.number, "handle_event", notice.event
        )
        if isinstance(decision, Prompt):
            return decision
        if isinstance(decision, Halt) and self.halting.halt(decision.reason):
            self.log.emit("halted", reason=decision.reason)
            await self._runs.finish(notice.number)
        snapshot = await self._runs.snapshot(notice.number)
        return self._runs.reported(Outcome(notice.number, snapshot=snapshot))

    def cancel(self, number: int) -> None:
        """Interrupt a task whose answer nobody wants any more."""
        assert self._runs is not None, "the engine has not begun"
        self._runs.cancel(number)

    async def forget(self, number: int) -> None:
        """Drop what is kept of a task that waits."""
        assert self._runs is not None, "the engine has not begun"
        await self._runs.forget(number)

    @property
    def kept(self) -> list[Assignment]:
        """The tasks that wait in the middle, as they were last sent."""
        return [] if self._runs is None else self._runs.kept

    def lost(self, number: int) -> Outcome:
        """What is reported of a task that could not be interrupted; from any thread."""
        assert self._runs is not None, "the engine has not begun"
        return self._runs.lost(number)

    def resume(self) -> bool:
        """Take tasks again after a halt; whether an outcome has told of that halt."""
        was_halted, was_reported = self.halting.is_halted, self.halting.is_reported
        if was_halted:
            self.halting.resume()
            self.log.emit("resumed")
        return was_halted and was_reported

    def _use(self, options: SessionOptions) -> None:
        tools = ToolBox(options.tools)
        if options.output_type is not None:
            OutputType.of(options.output_type)
        self._options = msgspec.structs.replace(options, tools=tools.tools)
        self.terms = terms_of(self._backend, self._options, self._rules.prices or {})
        asking = Asking(
            self._callbacks,
            tools,
            self._conversations,
            max_exchanges=self._rules.max_turns_per_task,
            parse_attempts=options.parse_attempts or self._rules.parse_attempts,
            prices=self._rules.prices or {},
            model=self.terms.model,
            log=self.log,
            put_text=self.put_text,
        )
        attempts = Attempts(
            self._callbacks,
            asking,
            self._conversations,
            options=self._options,
            options_for=self._options_for,
            turn_timeout=self._rules.turn_timeout,
            limits=self.limits,
            clock=self._clock,
            log=self.log,
        )
        self._runs = ChainRuns(
            self._callbacks,
            attempts,
            self._conversations,
            self._rules,
            limits=self.limits,
            halting=self.halting,
            log=self.log,
        )
        self._runs.hear_waiting = self.hear_waiting

    async def _options_for(self, work: Assignment) -> SessionOptions:
        digest = work.output_type
        if digest is None:
            return self._options
        if digest not in self._options_by_type:
            output_type = await self._library.output_type(digest)
            options = msgspec.structs.replace(self._options, output_type=output_type)
            if output_type.holder is None:  # a client may bring the type itself later
                return options
            self._options_by_type[digest] = options
        return self._options_by_type[digest]


def _drop_text(number: int, text: str) -> None:
    """Takes the place of an outbox where there is none."""
