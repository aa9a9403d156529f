"""What `Pool.status` returns."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

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
        workers: one entry per worker, in the order of their numbers.
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

    @property
    def busy(self) -> int:
        """How many workers run a turn now."""
        return sum(worker.running > 0 for worker in self.workers)
