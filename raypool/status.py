"""What `Pool.status` returns."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

UNITS = {
    "requests_per_minute": "rpm",
    "input_tokens_per_minute": "input tpm",
    "output_tokens_per_minute": "output tpm",
    "tokens_per_minute": "tpm",
}

WorkerState: TypeAlias = Literal["starting", "idle", "processing", "halted", "dead"]


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, at one moment.

    Attributes:
        worker: its name.
        role: its role.
        node: the id of the Ray node it runs on; empty while it has none.
        state: `starting`, `idle`, `processing`, `halted` or `dead`.
        queued: tasks given to it whose turn has not started, wherever they wait.
        running: turns that run now.
        completed: tasks it completed since the pool started.
        failed: tasks that failed on it since the pool started.
        restarts: how often its process was replaced.
        halted: why it takes no tasks; `None` while it does.
    """

    worker: str
    role: str
    node: str
    state: WorkerState
    queued: int
    running: int
    completed: int
    failed: int
    restarts: int = 0
    halted: str | None = None


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool's budget, at one moment.

    Attributes:
        usd: the most that may be spent, in USD; `None` for no limit.
        tokens: likewise in tokens, input and output together.
        spent_usd: what is spent, earlier runs on the same ledger included; a turn that ended
            without telling what it used counts as all that was set aside for it.
        spent_tokens: likewise in tokens.
        reserved_usd: what is set aside for the turns that run, in USD.
        reserved_tokens: likewise in tokens.
        is_spent: nothing is sent, since not even one turn fits into what is left.
    """

    usd: float | None
    tokens: int | None
    spent_usd: float
    spent_tokens: int
    reserved_usd: float
    reserved_tokens: int
    is_spent: bool


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider lets through, for one key and model, at one moment.

    The limits are those that hold now, whether they were configured, told by the provider or
    found; `None` where nothing limits.

    Attributes:
        provider: where turns go; empty where no provider counts them.
        model: the model that answers.
        requests_per_minute: requests of all pools that share the key.
        input_tokens_per_minute: tokens read.
        output_tokens_per_minute: tokens written.
        tokens_per_minute: both together.
        used: which part of the tightest limit this pool has used in the last minute, 1 for all
            of it; `None` where nothing limits.
        tightest: the name of that limit.
        refused: how often the provider has refused a turn (429, 529) of this pool.
    """

    provider: str
    model: str | None
    requests_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    tokens_per_minute: float | None = None
    used: float | None = None
    tightest: str | None = None
    refused: int = 0

    def __str__(self) -> str:
        """`96 % of 600 rpm`; nothing where nothing limits."""
        if self.used is None or self.tightest is None:
            return ""
        return (
            f"{100 * self.used:.0f} % of {getattr(self, self.tightest):,.0f} {UNITS[self.tightest]}"
        )


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool, at one moment.

    Attributes:
        name: the pool's name.
        queued: tasks accepted whose turn has not started.
        running: turns that run now.
        completed: tasks completed, earlier runs on the same ledger included.
        failed: tasks that failed for good, likewise.
        cancelled: tasks that were cancelled, likewise.
        input_tokens: input tokens of all ended tasks, cached ones included.
        output_tokens: output tokens of all ended tasks.
        cost_usd: what the priced turns cost, in USD.
        unpriced: completed tasks whose price is not known; `cost_usd` leaves them out.
        extra_turns: turns whose answer was not needed: of tasks that were cancelled as their race
            was decided, and of those that a second copy, or the first, has answered sooner.
        extra_cost_usd: what is known of what those cost; part of `cost_usd`.
        maybe_billed: turns that were cut short, since their worker or the pool has died: what they
            may have cost is in no result. They ran again. Earlier runs on the same ledger included.
        workers: one entry per worker, in the order of their numbers.
        scaling: what keeps the pool from having the workers it should have; `None` when nothing
            does.
        blocked: why nothing is sent, and what to do; `None` while something is.
        unrecorded: tasks that have ended and whose end is kept in memory, since the ledger cannot
            be written; they count as nothing else meanwhile.
        budget: what is spent of the budget; `None` when there is none.
        limits: one entry per provider, key and model.
    """

    name: str
    queued: int
    running: int
    completed: int
    failed: int
    cancelled: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    unpriced: int
    workers: list[WorkerStatus]
    extra_turns: int = 0
    extra_cost_usd: float = 0.0
    maybe_billed: int = 0
    blocked: str | None = None
    unrecorded: int = 0
    budget: BudgetStatus | None = None
    limits: list[LimitStatus] = msgspec.field(default_factory=list)
    scaling: str | None = None

    @property
    def busy(self) -> int:
        """How many workers run a turn now."""
        return sum(worker.running > 0 for worker in self.workers)
