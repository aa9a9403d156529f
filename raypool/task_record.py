"""A task that has not ended, as the dispatcher knows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raypool.ledger import NO_EXTRA
from raypool.messages import Assignment
from raypool.records import AcceptedTask, Death
from raypool.retries import Tries
from raypool.usage import Usage

if TYPE_CHECKING:
    from raypool.capacity.gate import Reservation
    from raypool.line import Line
    from raypool.shelf import Shelf


class TaskRecord:
    """A task that has not ended, as the dispatcher knows it.

    Attributes:
        task: what was accepted.
        number: the task's place in the order of acceptance.
        tries: the attempts behind it.
        usage: tokens spent on it so far.
        cost_usd: what they cost; `None` when some price is not known.
        kept: that of it which the ledger counts beside all endings until this task has one.
        session_turns: how many tasks its session has behind it.
        streams: somebody wants its text as it is generated.
        worker: the name of the worker it was given to; `None` while it waits for any.
        line: the line in which it waits, while it does.
        watchers: (client, ticket) of every future that waits for it.
        is_accepted: the ledger has committed it.
        is_cancelled: its cancellation was asked for.
        is_paused: its worker keeps what it has come to, until there is room for more of it.
        was_spared: it went back into line once as a probe, though it had failed for good.
        has_ended: its end has been decided.
        reserved: what its worker's gate has set aside for its next exchange; `None` when
            nothing limits it.
        deaths: of workers that had it, earlier runs included.
        original: the task that this is a copy of, to be run a second time beside it.
        copy: the copy of it that another worker has.
        loser: once it has ended, the name of the worker that runs it in vain.
        shelf: that of its lane, until it is sent to a worker for the first time.
    """

    __slots__ = (
        "copy",
        "cost_usd",
        "deaths",
        "has_ended",
        "is_accepted",
        "is_cancelled",
        "is_paused",
        "kept",
        "line",
        "loser",
        "number",
        "original",
        "reserved",
        "session_turns",
        "shelf",
        "streams",
        "task",
        "tries",
        "usage",
        "was_spared",
        "watchers",
        "worker",
    )

    def __init__(self, task: AcceptedTask) -> None:
        self.task = task
        self.number = task.number
        self.tries = Tries()
        self.usage = Usage()
        self.cost_usd: float | None = 0.0
        self.kept = NO_EXTRA
        self.session_turns = 0
        self.streams = False
        self.worker: str | None = None
        self.watchers: list[tuple[str, int]] = []
        self.line: Line | None = None
        self.is_accepted = False
        self.is_cancelled = False
        self.is_paused = False
        self.was_spared = False
        self.has_ended = False
        self.reserved: Reservation | None = None
        self.deaths: tuple[Death, ...] = ()
        self.original: TaskRecord | None = None
        self.copy: TaskRecord | None = None
        self.loser: str | None = None
        self.shelf: Shelf | None = None

    def outlive(self, deaths: Sequence[Death]) -> None:
        """Count workers that have died with it."""
        self.deaths += tuple(deaths)
        self.tries.deaths = len(self.deaths)

    @property
    def is_kept(self) -> bool:
        """Whether its worker may keep something of it between attempts."""
        return self.is_paused or self.tries.was_tried

    def assignment(self) -> Assignment:
        """The next attempt, as it is sent to a worker."""
        task = self.task
        return Assignment(
            self.number,
            task.id,
            task.prompt,
            self.tries.attempts + 1,
            task.role,
            task.metadata,
            task.timeout,
            task.session,
            self.session_turns,
            task.output_type,
            self.streams,
            self.tries.may_wait,
            None if self.reserved is None else 1,
            self.tries.may_miss,
        )

    def make_copy(self, worker: str) -> TaskRecord:
        """The same task, for that worker to run beside the one that has it."""
        copy = TaskRecord(self.task)
        copy.tries = dataclasses.replace(self.tries)
        copy.session_turns = self.session_turns
        copy.worker, copy.is_accepted = worker, True
        copy.original = self
        return copy

    def spend(self, usage: Usage, cost_usd: float | None) -> None:
        """Add what an attempt has consumed."""
        self.usage = self.usage + usage if self.usage.total_tokens else usage
        if cost_usd is None or self.cost_usd is None:
            self.cost_usd = None
        else:
            self.cost_usd += cost_usd
