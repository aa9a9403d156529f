"""What a turn talks to: the contract between raypool and a model.

A backend is made by the user, travels to every worker, and opens sessions there.
`raypool.testing.BackendContract` checks that one keeps the promises below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from raypool.agent import SessionOptions
from raypool.events import Event
from raypool.task import Content
from raypool.usage import Usage


class Account(msgspec.Struct, frozen=True):
    """Whom a provider counts a backend's turns against.

    Attributes:
        provider: where they go, as the URL of a server, without any password.
        key: what tells its key from others, without telling the key itself.
    """

    provider: str
    key: str


class Session(ABC):
    """One conversation with a backend.

    A session remembers its turns: a second `prompt` continues the conversation, and one
    that is started with `options.messages` continues those. Its turns never overlap;
    sessions of one backend run side by side.

    Attributes:
        id: its name; `None` lets raypool give it one.
        messages: the conversation so far, as Messages-API messages, those that it was
            started with included; a turn puts a new list in its place. `None` when the session
            keeps none in that form; raypool then makes them of prompts and texts.
        usage_so_far: the tokens counted so far of the turn that runs, or ran last; they are what
            one that is cut off has used. `None` when nobody knows.
    """

    id: str | None = None
    messages: list[dict[str, Any]] | None = None
    usage_so_far: Usage | None = None

    @abstractmethod
    def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        """Run one turn.

        Yields any number of events, the last of which is one `result` or one
        `error`; nothing comes after it, and nothing is raised for what goes
        wrong with the provider. A turn that ended in an error, or that was
        cancelled, leaves the conversation as it was before it.

        An answer that asks for tools has a `tool_use` event for each, and a `result` with the
        stop reason `tool_use`; raypool runs them and prompts the session with a user
        message of `tool_result` blocks, one for each. Prompted with anything else, as after a
        turn that was interrupted in between, it goes on from before the question.
        """

    async def close(self) -> None:
        """Forget the conversation and free what it holds."""


class Backend(ABC):
    """A source of sessions. Instances must pickle; connections belong into `open`."""

    name: str = ""
    """The backend's short name, as status and errors show it."""

    model: str | None = None
    """The model that answers where the session's options name none; `None` when nobody knows."""

    is_free: bool = False
    """Whether its turns cost nothing."""

    def prepare(self) -> Backend:
        """The backend that travels to the workers; called once, where `Pool.start` runs.

        Raises:
            PoolStartError: it can be seen from here that no turn would succeed.
        """
        return self

    def account(self) -> Account | None:
        """Whom its turns are counted against; `None` when no provider limits them.

        All pools of a cluster whose backends name the same account share its limits. Called
        once in each worker, after `open`.
        """
        return None

    async def open(self) -> None:
        """Connect or load; called once in each worker's process, before the first session."""

    @abstractmethod
    async def start(self, options: SessionOptions) -> Session:
        """Open a session. Cheap: a pool may open one for every task.

        `options.tools` are offered to the model, and `options.output_type` is what its answers
        must be; `raypool.tools.tool_schema` and `raypool.output_type.output_schema` give
        the JSON of both. A backend that cannot do either yields a `fatal` error that says so.
        """

    async def close(self) -> None:
        """Free what `open` made; called once, as the worker stops."""
