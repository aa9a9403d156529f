"""Whose task is next: the more urgent first, and each tenant its share.

The sharing is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with a task as the
unit of service: among tasks of one priority, two tenants that both wait have been served the
same, by their weights, but for one task of each.
"""

from __future__ import annotations

from collections.abc import Mapping

from raypool.records import AcceptedTask

SWEEP_AT = 10_000


class Level:
    """The tasks of one priority.

    Attributes:
        urgency: the lower, the sooner.
        now: the virtual time: where the task began that was taken last, or, once none wait,
            where the last of them ended.
        end: where the last of the tasks that were taken ended.
        waiting: how many tasks wait.
    """

    __slots__ = ("end", "now", "urgency", "waiting")

    def __init__(self, urgency: int) -> None:
        self.urgency = urgency
        self.now = 0.0
        self.end = 0.0
        self.waiting = 0


class Account:
    """What one tenant has had of the tasks of one priority.

    Attributes:
        level: that priority.
        start: the virtual time at which its next task begins: of those that wait, the account
            with the lowest is served.
        waiting: how many of its tasks wait, wherever they do.
    """

    __slots__ = ("cost", "level", "start", "waiting")

    def __init__(self, level: Level, weight: float) -> None:
        self.level = level
        self.cost = 1 / weight
        self.start = level.now
        self.waiting = 0

    def enter(self) -> None:
        """One more task waits; what the tenant did not use while none did is not made up for."""
        if not self.waiting and self.start < self.level.now:
            self.start = self.level.now
        self.waiting += 1
        self.level.waiting += 1

    def leave(self) -> None:
        """One of its tasks waits no longer, and is not served."""
        self._wait_no_longer(1)

    def serve(self, count: int) -> None:
        """So many of its tasks are served."""
        level = self.level
        begun = self.start + self.cost * (count - 1)
        self.start = begun + self.cost
        level.now = max(level.now, begun)
        level.end = max(level.end, self.start)
        self._wait_no_longer(count)

    def _wait_no_longer(self, count: int) -> None:
        self.waiting -= count
        self.level.waiting -= count
        if not self.level.waiting:
            self.level.now = self.level.end


class Accounts:
    """The accounts of a pool's tenants; `weights` are shares by tenant, 1 for all others."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = weights or {}
        self._levels: dict[int, Level] = {}
        self._accounts: dict[tuple[int, str | None], Account] = {}
        self._sweep_at = SWEEP_AT

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, task: AcceptedTask) -> Account:
        """The account that a task is on."""
        account = self._accounts.get((task.priority, task.tenant))
        return account or self._open(task.priority, task.tenant)

    def _open(self, priority: int, tenant: str | None) -> Account:
        if len(self._accounts) >= self._sweep_at:
            self._sweep()
        level = self._levels.setdefault(priority, Level(-priority))
        weight = self._weights.get(tenant, 1.0) if tenant is not None else 1.0
        account = self._accounts[priority, tenant] = Account(level, weight)
        return account

    def _sweep(self) -> None:
        """Drop the accounts that are no different from new ones."""
        self._accounts = {
            key: one
            for key, one in self._accounts.items()
            if one.waiting or one.start > one.level.now
        }
        self._sweep_at = max(SWEEP_AT, 2 * len(self._accounts))
