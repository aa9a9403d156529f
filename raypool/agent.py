"""What a user's agent decides; raypool owns the mechanics of turns, the agent what they mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from raypool.errors import TaskFailed
from raypool.events import Event
from raypool.response import Response
from raypool.task import Content

if TYPE_CHECKING:
    from raypool.pool import Pool


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the agent's conversations are held.

    Attributes:
        system: the system prompt; `None` sends none.
        max_tokens: the longest answer, in tokens.
        model: the model; `None` means the backend's.
        tools: plain functions that the model may call, `def` or `async def`; their schemas
            come from type hints and docstrings. A method of the agent is called as its
            callbacks are, never two at once. Any other function may run beside them; a `def`
            is left to itself when its turn is interrupted.
        output_type: what every answer must be: a pydantic model, or another type that
            pydantic can validate; `None` means text. A task's own goes first.
        parse_attempts: how many answers in all a model may give before one fits
            `output_type`; `None` means the pool's.
        messages: the conversation so far, as Messages-API messages; raypool sets it when
            it opens a conversation again.
    """

    system: str | None = None
    max_tokens: int = 1024
    model: str | None = None
    tools: Sequence[Callable[..., Any]] = ()
    output_type: Any = None
    parse_attempts: int | None = None
    messages: Sequence[dict[str, Any]] = ()


class AgentStart(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is told as its worker starts.

    Attributes:
        worker: the worker's name.
        role: the worker's role.
        options: `agent_options` of the pool.
    """

    worker: str
    role: str
    options: Mapping[str, Any]


class TurnTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn's agent sees of the task.

    Attributes:
        id: the task's id.
        role: the role that was asked for.
        session: the conversation that was named.
        metadata: what the task carries.
    """

    id: str
    role: str | None = None
    session: str | None = None
    metadata: Any = None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn, as its callbacks see it.

    Attributes:
        task: the task that the turn works on; for a turn that `handle_event` asked for,
            one of its own.
        number: its place in the task's chain, from 1.
        attempt: which attempt this is, from 1.
        session_id: the conversation that the turn belongs to.
        prompt: what the turn asks, as it was before `pre_turn`.
    """

    task: TurnTask
    number: int = 1
    attempt: int = 1
    session_id: str | None = None
    prompt: Content = ""


class Prompt(msgspec.Struct, frozen=True):
    """Decides that another turn follows in the same conversation, before anything else.

    Attributes:
        text: what is asked: a text, or Messages-API messages that end with the user's.
    """

    text: Content


class Halt(msgspec.Struct, frozen=True):
    """Decides that the agent takes no more tasks until `Pool.resume`.

    Attributes:
        reason: why, as status and telemetry show it.
    """

    reason: str = ""


class Skip(msgspec.Struct, frozen=True):
    """Decides, before a turn, that its task ends `cancelled`.

    Attributes:
        reason: why, as the task's future and its result show it.
    """

    reason: str = ""


Decision: TypeAlias = Prompt | Halt | None
"""What a callback after a turn may decide; `None` leaves the agent idle for its next task."""

BeforeTurn: TypeAlias = Content | Skip | Halt | None
"""What `pre_turn` may decide; a prompt replaces the turn's, `None` leaves it as it is."""


class Agent:
    """An agent: one instance lives in each worker and holds its own state.

    Every callback may be `def` or `async def`, and no two of one agent run at
    the same time. A `def` callback runs on the agent's callback thread, an
    `async` one on the agent's event loop. One that still blocks 5 seconds after it was
    interrupted, by a time-out, `Pool.interrupt` or `cancel`, costs the worker its process.
    What runs after and between turns may take as long as a turn.

    To return what a callback may not is to raise an error that says what it may.

    A callback must not wait for a task that its own worker may be given.

    Attributes:
        worker: the name of the agent's worker; set before `init_agent`.
        pool: the pool that the agent works in: submit, notify its peers, ask for status.
    """

    worker: str
    pool: Pool

    def init_agent(
        self, start: AgentStart
    ) -> SessionOptions | Awaitable[SessionOptions | None] | None:
        """Runs once, as the worker starts; `None` means the default `SessionOptions`.

        Raising means that the worker failed to start, and with it the pool.
        """
        return None

    def pre_run(self) -> Awaitable[None] | None:
        """Runs once, before the first turn: the place for slow set-up; returns nothing.

        Raising means that the worker failed to start, and with it the pool.
        """

    def pre_turn(self, turn: Turn, prompt: Content) -> BeforeTurn | Awaitable[BeforeTurn]:
        """Runs before each turn, and before each new attempt at it, with what it is to ask.

        `None` asks it as it is, a prompt replaces it, `Skip` ends the task `cancelled`, and
        `Halt` puts the task back at the head of the line and takes no more; a chain goes on
        there if it comes back, and begins anew on another worker. Raising fails the turn, as
        a backend's error does, and it is not tried again.
        """
        return None

    def handle_stream_event(self, turn: Turn, event: Event) -> Awaitable[None] | None:
        """Runs for each event of a turn, as it arrives; returns nothing.

        The turn waits for it. Raising is logged and changes nothing.
        """

    def handle_response(self, turn: Turn, response: Response) -> Decision | Awaitable[Decision]:
        """Runs when a turn has finished, before its task ends.

        `None` ends the task with this response, `Prompt` asks another turn in the same
        conversation, and `Halt` ends the task and takes no more. Raising fails the task; it
        is not tried again.
        """
        return None

    def handle_error(self, turn: Turn, error: TaskFailed) -> Decision | Awaitable[Decision]:
        """Runs when a turn has failed for good, not when `handle_response` has failed its task.

        `error` is a `BackendError`, `TurnTimeout`, `Interrupted`, or else what `pre_turn` raised.
        `None` fails the task with the error, `Prompt` asks another turn in the same
        conversation, which is then the task's, and `Halt` fails the task and takes no more.
        Raising is logged, and the task fails with the first error.
        """
        return None

    def handle_event(self, event: Any) -> Decision | Awaitable[Decision]:
        """Runs for each `Pool.notify`, in the order of arrival, never during a turn's callbacks.

        While the worker runs turns it waits for the end of one. `Prompt` asks a turn of its
        own, which becomes a task of the pool with a result; `Halt` takes no more tasks.
        Raising is logged and changes nothing.
        """
        return None

    def post_turn(self, turn: Turn, outcome: Response | TaskFailed) -> Awaitable[None] | None:
        """Runs after the decision on a turn, with its response or its error; returns nothing.

        Raising is logged and changes nothing.
        """

    def post_run(self) -> Awaitable[None] | None:
        """Runs once the agent has halted and no turn of it runs; returns nothing.

        Raising is logged and changes nothing.
        """

    def terminate_agent(self, reason: str) -> Awaitable[None] | None:
        """Runs once, as the worker stops, with why; returns nothing. Not after a crash.

        Raising is logged and changes nothing.
        """

    def snapshot(self) -> Any:
        """Runs as the worker starts and after each task: the state that must outlive the process.

        Returns what JSON can hold, or a pydantic model. It is kept with the task's end, in
        one transaction. One that JSON cannot hold fails the worker's start; later ones are
        logged, and the one before stays.
        """
        return None

    def restore(self, snapshot: Any) -> Awaitable[None] | None:
        """Runs after `init_agent` where the ledger has a snapshot of this worker; returns nothing.

        `snapshot` is what JSON made of it, or the pydantic model that the parameter is
        annotated with. Raising means that the worker failed to start.
        """


class RoleAgent(Agent):
    """The default agent: answers as its role in one or two sentences and keeps nothing."""

    max_tokens = 150

    def init_agent(self, start: AgentStart) -> SessionOptions:
        """Says the role; `agent_options={"max_tokens": …}` allows longer answers."""
        return SessionOptions(
            system=(
                f"You are a {start.role}. "
                "Answer each question concisely in one or two sentences, without preamble."
            ),
            max_tokens=start.options.get("max_tokens", self.max_tokens),
        )
