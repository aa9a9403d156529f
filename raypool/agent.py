"""What a user's agent decides; raypool owns the mechanics of turns, the agent what they mean."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec

from raypool.response import Response


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the agent's conversations are held.

    Attributes:
        system: the system prompt; `None` sends none.
        max_tokens: the longest answer, in tokens.
        model: the model; `None` means the backend's.
    """

    system: str | None = None
    max_tokens: int = 1024
    model: str | None = None


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
        task: the task that the turn works on.
        number: its place in the task's chain, from 1.
        attempt: which attempt this is, from 1.
        session_id: the conversation that the turn belongs to.
    """

    task: TurnTask
    number: int = 1
    attempt: int = 1
    session_id: str | None = None


class Agent:
    """An agent: one instance lives in each worker and holds its own state.

    Every callback may be `def` or `async def`, and no two of one agent run at
    the same time. A `def` callback runs on the agent's callback thread, an
    `async` one on the agent's event loop.
    """

    def init_agent(
        self, start: AgentStart
    ) -> SessionOptions | Awaitable[SessionOptions | None] | None:
        """Runs once, as the worker starts; `None` means the default `SessionOptions`.

        Raising means that the worker failed to start, and with it the pool.
        """
        return None

    def handle_response(self, turn: Turn, response: Response) -> Awaitable[None] | None:
        """Runs when a turn has finished, before its task ends.

        Raising fails the task; it is not tried again.
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
