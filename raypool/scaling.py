"""How many workers a pool has: set by hand, or kept to what waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any

from raypool.autoscaling import Autoscaler, Load
from raypool.capacity.feed import ShareFeed
from raypool.capacity.gate import Gate
from raypool.capacity.limit_gate import LimitGate
from raypool.clock import Clock
from raypool.config import PoolConfig
from raypool.crew import asked_of_ray
from raypool.errors import LedgerError, PoolStartError
from raypool.joining import Joining
from raypool.leaving import Leaving
from raypool.link import WorkerGone
from raypool.naming import number_of
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.telemetry import Broadcast, EventName

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.25
LATE_SECONDS = 10.0
AGAIN_SECONDS = 10.0
BY_HAND = "Pool.scale"


class Scaler:
    """Grows and shrinks the roles of a pool.

    What grows by itself asks Ray for workers in the ordinary way and waits for their places,
    however long that takes; what shrinks lets go of those that are idle. A worker that has died
    and could not be replaced makes room for another.
    """

    def __init__(
        self,
        config: PoolConfig,
        *,
        scheduler: Scheduler,
        joining: Joining,
        leaving: Leaving,
        broadcast: Broadcast,
        clock: Clock,
        tick: float = TICK_SECONDS,
    ) -> None:
        self._config = config
        self._scheduler = scheduler
        self._joining = joining
        self._leaving = leaving
        self._broadcast = broadcast
        self._clock = clock
        self._tick = tick
        self._autoscalers = {
            role: Autoscaler(settings.autoscale, clock)
            for role, settings in config.by_role.items()
            if settings.autoscale is not None
        }
        self._coming: dict[str, dict[asyncio.Task[None], float]] = {
            role: {} for role in config.by_role
        }
        self._gates: dict[str, Gate] = {}
        self._held_back: dict[str, str] = {}
        self._problems: dict[str, tuple[float, str]] = {}
        self._failed_ticks: dict[str, str] = {}
        self._empty: set[str] = set()
        self._by_hand = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._note_empty({})

    def begin(self) -> None:
        """Keep the roles that have `autoscale` to what waits for them."""
        if self._autoscalers:
            self._do(self._keep())

    def close(self) -> None:
        """Change no size any more."""
        for task in self._tasks:
            task.cancel()

    async def scale(self, sizes: Mapping[str, int]) -> None:
        """Return when each of these roles has so many workers.

        Those that are too many and busy are then still there, but take no more tasks. Where there
        is autoscaling, it goes on from here.

        Raises:
            PoolStartError: new workers cannot come; no size has changed.
            LedgerError: likewise.
        """
        async with self._by_hand:
            for role in sizes:
                await self._clear_up(role)
            missing = Counter({role: size - self.size(role) for role, size in sizes.items()})
            await self._add(+missing)
            self._note_empty(sizes)
            surplus = [one for role, count in (-missing).items() for one in self._last(role, count)]
            await self._dismiss(surplus)
            for role in sizes.keys() & self._autoscalers.keys():
                self._autoscalers[role].begin()

    def size(self, role: str) -> int:
        """How many workers a role has that do not leave; those that are coming too."""
        return len(self._present(role)) + len(self._coming[role])

    @property
    def why(self) -> str | None:
        """What keeps the pool from its size, for a person; `None` when nothing does."""
        parts = []
        for role in self._config.by_role:
            whose = f"role {role!r}: " if len(self._config.by_role) > 1 else ""
            parts += [whose + part for part in self._why(role)]
        return "; ".join(parts) or None

    def _why(self, role: str) -> list[str]:
        parts = [self._held_back[role]] if role in self._held_back else []
        waited = [self._clock.monotonic() - since for since in self._coming[role].values()]
        late = [seconds for seconds in waited if seconds > LATE_SECONDS]
        if late:
            workers = "1 worker has" if len(late) == 1 else f"{len(late)} workers have"
            parts.append(
                f"{workers} been awaited for {max(late):.0f} s: {asked_of_ray(self._config)}"
            )
        if role in self._problems:
            parts.append(f"a worker did not come: {self._problems[role][1]}")
        if role in self._failed_ticks:
            parts.append(f"autoscaling fails, and is tried again: {self._failed_ticks[role]}")
        return parts

    # By hand

    async def _clear_up(self, role: str) -> None:
        """Forget the dead, and what autoscaling has under way."""
        self._call_off(role, len(self._coming[role]))
        await self._bury(self._lost(role))
        self._problems.pop(role, None)
        self._held_back.pop(role, None)

    async def _add(self, missing: Counter[str]) -> None:
        roles = list(missing.elements())
        if not roles:
            return
        bringing = asyncio.ensure_future(self._joining.bring(roles))
        self._tasks.add(bringing)
        bringing.add_done_callback(self._tasks.discard)
        await bringing
        for role, count in missing.items():
            self._tell("scale.up", role, added=count, reason=BY_HAND)

    def _note_empty(self, sizes: Mapping[str, int]) -> None:
        """Have tasks of a role wait, not fail, that has no workers because somebody says so."""
        self._empty = {role for role in self._empty if sizes.get(role, 0) == 0}
        self._empty |= {role for role, size in sizes.items() if size == 0}
        self._scheduler.roster.may_grow = frozenset(self._autoscalers.keys() | self._empty)

    def _last(self, role: str, count: int) -> list[WorkerRecord]:
        """Whom a role can spare best: the idle, then those with least to do, the newest first."""
        newest = self._newest_first(role)
        return sorted(newest, key=lambda one: (one.halted is not None, one.unfinished))[:count]

    async def _dismiss(self, workers: list[WorkerRecord]) -> None:
        idle = [worker for worker in workers if worker.is_empty]
        self._leaving.dismiss(workers)
        leaving = {worker.name: self._do(self._leaving.see_off(worker)) for worker in workers}
        for role, count in Counter(worker.role for worker in workers).items():
            self._tell("scale.down", role, removed=count, reason=BY_HAND)
        if idle:
            await asyncio.wait([leaving[worker.name] for worker in idle])

    # By itself

    async def _keep(self) -> None:
        while True:
            if not self._by_hand.locked():
                for role in self._autoscalers:
                    self._try_to_adapt(role)
            await asyncio.sleep(self._tick)

    def _try_to_adapt(self, role: str) -> None:
        try:
            self._adapt(role)
        except Exception as error:  # whatever it is, the next tick may do without it
            why = repr(error)
            if self._failed_ticks.get(role) != why:  # once, not at every tick
                logger.exception("the size of role %r was not adapted", role)
            self._failed_ticks[role] = why
        else:
            self._failed_ticks.pop(role, None)

    def _adapt(self, role: str) -> None:
        load = self._load(role)
        gate = self._gates.get(role)
        feed = ShareFeed(gate.share) if isinstance(gate, LimitGate) else None
        wanted = self._autoscalers[role].wanted(load, feed)
        self._note_held_back(role, load, wanted.held_back)
        if wanted.size > load.size:
            self._grow(role, wanted.size - load.size, load)
        elif wanted.size < load.size:
            self._shrink(role, load.size - wanted.size)

    def _load(self, role: str) -> Load:
        present = self._present(role)
        if present:
            self._gates[role] = present[0].gate
        gate = self._gates.get(role)
        anybodys = -(-self._scheduler.waiting_for(None) // len(self._config.by_role))
        begun = sum(len(worker.line) + len(worker.held) for worker in present)
        return Load(
            size=self.size(role),
            tasks=begun + self._scheduler.waiting_for(role) + anybodys,
            concurrency=self._config.by_role[role].concurrency,
            blocked=gate.why if gate is not None else None,
        )

    def _grow(self, role: str, count: int, load: Load) -> None:
        failed_at, _ = self._problems.get(role, (None, ""))
        if failed_at is not None and self._clock.monotonic() - failed_at < AGAIN_SECONDS:
            return
        lost = self._lost(role)
        if lost:
            self._do(self._bury(lost))
        if lost or self._buries(role):  # so that their names are free, and found by who comes
            return
        for _ in range(count):
            coming = self._do(self._bring(role))
            self._coming[role][coming] = self._clock.monotonic()
            coming.add_done_callback(lambda ended: self._coming[role].pop(ended, None))
        tasks = "1 task" if load.tasks == 1 else f"{load.tasks} tasks"
        self._tell("scale.up", role, added=count, reason=f"{tasks} run or wait")

    async def _bury(self, lost: list[WorkerRecord]) -> None:
        for worker in lost:
            worker.is_leaving = True  # all of them at once, so that nobody else buries one
        for worker in lost:
            await self._leaving.bury(worker)

    async def _bring(self, role: str) -> None:
        try:
            await self._joining.bring([role], waits_for_place=True)
        except (PoolStartError, LedgerError, WorkerGone, ValueError) as error:
            self._note_problem(role, error)
        except Exception as error:  # whatever it is, the others must not be waited for in vain
            logger.exception("a worker of role %r did not come", role)
            self._problems[role] = (self._clock.monotonic(), repr(error))
        else:
            self._problems.pop(role, None)

    def _shrink(self, role: str, count: int) -> None:
        called_off = self._call_off(role, count)
        idle = [one for one in self._newest_first(role) if one.is_empty and one.halted is None]
        leaving = idle[: count - called_off]
        self._leaving.dismiss(leaving)
        for worker in leaving:
            self._do(self._leaving.see_off(worker))
        removed = called_off + len(leaving)
        if removed:
            self._tell("scale.down", role, removed=removed, reason="too little to do")

    def _call_off(self, role: str, most: int) -> int:
        """Wait no longer for at most so many workers, the last ones first; for how many."""
        coming = list(self._coming[role])[::-1][:most]
        for one in coming:
            del self._coming[role][one]
            one.cancel()
        return len(coming)

    def _note_held_back(self, role: str, load: Load, why: str | None) -> None:
        was_held_back = role in self._held_back
        if why is None:
            self._held_back.pop(role, None)
            return
        self._held_back[role] = why
        if not was_held_back:  # what blocks may quote an error, which events must not
            reason = "the rate limit" if load.blocked is None else "nothing is sent"
            self._tell("scale.held", role, reason=reason)
            logger.info("role %r does not grow: %s", role, reason)

    def _note_problem(self, role: str, error: Exception) -> None:
        logger.warning("a worker of role %r did not come: %s", role, error)
        self._problems[role] = (self._clock.monotonic(), str(error))

    # Workers

    def _present(self, role: str) -> list[WorkerRecord]:
        return [
            worker
            for worker in self._scheduler.roster
            if worker.role == role and worker.may_take_tasks and not worker.is_leaving
        ]

    def _lost(self, role: str) -> list[WorkerRecord]:
        """Workers that have died and could not be replaced."""
        return [
            worker
            for worker in self._scheduler.roster
            if worker.role == role and not worker.may_take_tasks and not worker.is_leaving
        ]

    def _buries(self, role: str) -> bool:
        """Whether some that are dead still have their names."""
        return any(
            worker.role == role and worker.is_leaving and not worker.may_take_tasks
            for worker in self._scheduler.roster
        )

    def _newest_first(self, role: str) -> list[WorkerRecord]:
        return sorted(self._present(role), key=lambda one: number_of(one.name), reverse=True)

    def _tell(self, name: EventName, role: str, **fields: Any) -> None:
        self._broadcast.emit(name, role=role, workers=self.size(role), **fields)

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("raypool's dispatcher met a defect of its own", exc_info=error)
