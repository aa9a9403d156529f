"""Where accepted tasks and their endings are kept, whatever the database.

A ledger is plain and synchronous. One thread may write while another reads; a read sees what was
committed before it began. Every method raises `LedgerError`, and nothing else, when the database
fails: the message says what happened to which ledger and what to do. A write that raised has left
nothing behind, and may be tried again; one that raised `Unfit` would raise it again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from raypool.errors import LedgerError
from raypool.lane import Lane
from raypool.records import AcceptedTask, Death, Ending
from raypool.usage import Usage

POOL_NAME = "pool_name"
"""The `meta` key of the name of the pool that the ledger belongs to."""

WORKER_ROLES = "worker_roles"
"""The `meta` key of the roles that its workers have had, by number, as JSON."""


WORKERS = "workers"
"""The `meta` key of the names of the workers that there are now, as JSON."""

BUDGET = "budget"
"""The `meta` key of the budget that `Pool.set_budget` has set, as JSON."""

EPOCH = "epoch"
"""The `meta` key of how many dispatchers have worked with it."""


class Unfit(LedgerError):
    """Raised when the ledger works, and what was to be written can never be."""


class KnownTask(msgspec.Struct, frozen=True):
    """A task that the ledger holds.

    Attributes:
        task: as it was accepted.
        ending: how it ended; `None` when it is unfinished.
    """

    task: AcceptedTask
    ending: Ending | None = None


class EndedTask(msgspec.Struct, frozen=True):
    """A task that has ended, with its place in the order of completion.

    Attributes:
        position: grows from one recorded ending to the next, from 1, with gaps; never used again.
        task: as it was accepted.
        ending: how it ended.
    """

    position: int
    task: AcceptedTask
    ending: Ending


class SentTask(msgspec.Struct, frozen=True):
    """An unfinished task that a worker may have begun.

    Attributes:
        task: as it was accepted.
        worker: the number of the worker that it was sent to.
    """

    task: AcceptedTask
    worker: int


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent in vain, or is in no task's ending.

    Attributes:
        turns: turns whose answer was not needed.
        turns_usd: what is known of what those cost, in USD.
        usage: tokens that no ending has.
        usage_usd: what is known of what those cost, in USD.
        kept_usd: what a budget counts beside all that, for attempts that may have cost more
            than anybody was told.
        kept_tokens: likewise.
        maybe_billed: turns that were cut short by the death of their worker or of the pool.
    """

    turns: int = 0
    turns_usd: float = 0.0
    usage: Usage = Usage()
    usage_usd: float = 0.0
    kept_usd: float = 0.0
    kept_tokens: int = 0
    maybe_billed: int = 0

    def __add__(self, other: Extra) -> Extra:
        return Extra(
            turns=self.turns + other.turns,
            turns_usd=self.turns_usd + other.turns_usd,
            usage=self.usage + other.usage,
            usage_usd=self.usage_usd + other.usage_usd,
            kept_usd=self.kept_usd + other.kept_usd,
            kept_tokens=self.kept_tokens + other.kept_tokens,
            maybe_billed=self.maybe_billed + other.maybe_billed,
        )


NO_EXTRA = Extra()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What has happened to tasks that have not ended.

    Attributes:
        sent: by number, the number of the worker that may begin it from now on, so that its turn
            may be billed; `None`: it was not begun, or what that may have cost is counted.
        deaths: workers that have died with one.
    """

    sent: Mapping[int, int | None] = {}
    deaths: Sequence[Death] = ()


NO_PROGRESS = Progress()


def together(parts: Sequence[Progress]) -> Progress:
    """All of `parts`, in their order."""
    if not parts:
        return NO_PROGRESS
    sent: dict[int, int | None] = {}
    for part in parts:
        sent.update(part.sent)
    return Progress(sent=sent, deaths=[death for part in parts for death in part.deaths])


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What a ledger holds, in sums.

    Attributes:
        unfinished: accepted tasks without an ending.
        completed: tasks that ended `completed`.
        failed: tasks that ended `failed`.
        cancelled: tasks that ended `cancelled`.
        usage: tokens of every ending there ever was, and of what is in none.
        cost_usd: what is known of what they cost, in USD.
        unpriced: completed tasks without a cost.
        last_number: the highest number ever accepted; 0 when none.
        extra: what of it was spent in vain or is in no ending, and what is kept beside it.
    """

    unfinished: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    usage: Usage = Usage()
    cost_usd: float = 0.0
    unpriced: int = 0
    last_number: int = 0
    extra: Extra = NO_EXTRA


class Ledger(Protocol):
    """The tasks of one pool and how they ended; open for one pool at a time."""

    @abstractmethod
    def write(
        self,
        tasks: Sequence[AcceptedTask],
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
        progress: Progress = NO_PROGRESS,
    ) -> dict[int, KnownTask]:
        """Accept `tasks`, record `endings`, keep `snapshots`: in one transaction, all or nothing.

        `extra` is added to that of the totals. `progress` is written after the tasks and before
        the endings.
        `snapshots` has JSON by worker; a worker's last one is kept. Endings and snapshots are
        written whatever their texts hold: what is not Unicode in them becomes U+FFFD.

        A task whose id is known already, from before or from earlier in `tasks`, is left out;
        what is stored under that id when the transaction commits is returned by the number that
        the task came with. Of a task's endings the first is kept and later ones are ignored.

        The conversation of an ending that is kept goes to its session when the ending is
        `completed`; any other is ignored. It does not come back with the ending.

        Raises:
            LedgerError: also when a new task has a number that was used before, or an ending is
                of a task that was never accepted.
        """

    def accept(self, tasks: Sequence[AcceptedTask]) -> dict[int, KnownTask]:
        """Accept `tasks` in one transaction; see `write`."""
        return self.write(tasks, ())

    def record(
        self,
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
    ) -> None:
        """Record `endings` and `extra`, keep `snapshots`, in one transaction; see `write`."""
        self.write((), endings, snapshots, extra)

    @abstractmethod
    def find(self, task_id: str) -> KnownTask | None:
        """The task of that id, `None` when the ledger has none."""

    @abstractmethod
    def find_all(self, task_ids: Sequence[str]) -> dict[str, KnownTask]:
        """The tasks of those ids, by id; those that the ledger does not have are left out."""

    @abstractmethod
    def unfinished(self, after: int, limit: int) -> list[AcceptedTask]:
        """At most `limit` tasks without an ending, by number, from the first above `after`.

        Fewer come when they are long; none when there are no more.
        """

    @abstractmethod
    def unfinished_in(self, lane: Lane | None, after: int, limit: int) -> list[AcceptedTask]:
        """The same of the tasks of one lane alone; of those that are in none for `None`.

        Takes a short time, however many tasks the lane has.
        """

    @abstractmethod
    def lanes(self) -> dict[Lane, int]:
        """How many unfinished tasks each lane has that has any; see `raypool.lane`.

        Takes a second or so for 10 million tasks: it is read once, as a pool starts.
        """

    @abstractmethod
    def ended(self, after: int, limit: int) -> list[EndedTask]:
        """At most `limit` ended tasks, by position, from the first above `after`.

        Fewer come when they are long; none when there are no more.
        """

    @abstractmethod
    def totals(self) -> Totals:
        """What the ledger holds, in sums; takes the same short time however much that is."""

    @abstractmethod
    def requeue_failed(self) -> int:
        """Forget the endings of failed tasks, so that they are unfinished again; how many.

        What they have cost stays in the totals; the deaths that they have seen are forgotten.
        """

    @abstractmethod
    def sent(self) -> list[SentTask]:
        """The unfinished tasks that a worker may have begun, by number.

        Takes as long as there are many of these, however many tasks there are.
        """

    @abstractmethod
    def deaths(self, number: int | None = None) -> list[Death]:
        """The deaths that were recorded of unfinished tasks, or of one task, in their order."""

    @abstractmethod
    def restate(self, fingerprints: Mapping[int, bytes]) -> None:
        """Keep other fingerprints, by number, of tasks that are asked of another model now.

        Those that have ended keep theirs.
        """

    @abstractmethod
    def session_turns(self, sessions: Sequence[str]) -> dict[str, int]:
        """How many tasks each of `sessions` has behind it; those without any are left out.

        Takes a short time for each, however many tasks it has behind it.
        """

    @abstractmethod
    def conversation(self, session: str) -> list[dict[str, Any]]:
        """The Messages-API messages that a session has now, in order; none when it is unknown.

        They are those of its tasks in the order of their endings, from the last one on whose
        conversation was whole.
        """

    @abstractmethod
    def snapshot(self, worker: str) -> str | None:
        """The last snapshot of that worker's agent, as JSON; `None` when there is none."""

    @abstractmethod
    def output_type(self, digest: str) -> str | None:
        """The JSON schema that `keep_output_type` kept under `digest`; `None` when none was."""

    @abstractmethod
    def keep_output_type(self, digest: str, schema_json: str) -> None:
        """Keep a JSON schema under its digest; one that is kept already stays."""

    @abstractmethod
    def meta(self, key: str) -> str | None:
        """What `set_meta` last kept under `key`, `None` when nothing was."""

    @abstractmethod
    def set_meta(self, key: str, value: str) -> None:
        """Keep `value` under `key`: the pool's name, the settings of a run."""

    @abstractmethod
    def close(self) -> None:
        """Let another pool open the ledger; a second call does nothing."""
