"""When a second copy of a running task is started.

As in "The Tail at Scale" (Dean and Barroso, CACM 2013): a second request is sent once the first
one takes longer than most do, and so few are sent that the load hardly grows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from raypool.clock import Clock
from raypool.quantiles import RecentQuantiles
from raypool.roster import WorkerRecord
from raypool.task_record import TaskRecord

After: TypeAlias = float | str
"""A number of seconds, or a percentile of how long turns take, as `"p95"`."""

CREDIT_TURNS = 1_000
_ROUNDING = 1e-9


class Run:
    """A turn that a worker has, as far as the dispatcher can tell.

    Attributes:
        record: the task.
        worker: who has it.
        after: when a second copy of it is due; `None` for never.
        started: since when it runs, in monotonic seconds; 0 while it waits for a slot.
    """

    __slots__ = ("_group", "after", "record", "started", "worker")

    def __init__(self, record: TaskRecord, worker: WorkerRecord, after: After | None) -> None:
        self.record = record
        self.worker = worker
        self.after = after
        self.started = 0.0
        self._group: _Group | None = None

    def enter(self, group: _Group) -> None:
        """Be the last of a group, and in no other."""
        self.leave()
        group[self.record.number] = self
        self._group = group

    def leave(self) -> None:
        """Be in no group."""
        if self._group is not None:
            del self._group[self.record.number]
            self._group = None


_Group: TypeAlias = OrderedDict[int, Run]


class _Slots:
    """What a worker was sent: as many as it has slots run, the others follow in their order."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.running: _Group = OrderedDict()
        self.queued: _Group = OrderedDict()


class Hedging:
    """Tells which turns are late, so that a second copy is due, and if there may be one more.

    A turn begins as it is sent to a worker with a slot free, else as it moves up into one. For a
    percentile, as `"p95"`, the role's last 1,000 turns count; while there are fewer than 20 of
    them, none is late. A turn that lost to its copy counts with the time that it ran.

    At every moment there have been no more copies than `share` of the turns, and one. What is
    not used of that is kept for 1,000 turns and no longer: when all turns become slow at once, a
    copy of each would make it worse.

    Not hedged are tasks in a session, of a race or for a certain worker, those that stream, and
    those that a worker has died with.

    Args:
        clock: where the time is read.
        after: when a copy is due, unless the task says; `None` for never.
        share: how many turns may be copies, as a share of all; with 0 nothing is followed.
    """

    def __init__(self, clock: Clock, *, after: After | None = None, share: float = 0.05) -> None:
        self._clock = clock
        self._after = after
        self._share = share
        self._credit = 1.0
        self._most_credit = max(1.0, share * CREDIT_TURNS)
        self._is_allowed = share > 0
        self._is_on = self._is_allowed and after is not None
        self._slots: dict[str, _Slots] = {}
        self._durations: dict[str, RecentQuantiles] = {}
        self._in_time: dict[tuple[str, After], _Group] = {}
        self._late: dict[str, _Group] = {}

    @property
    def may_copy(self) -> bool:
        """Whether there may be one more copy."""
        return self._credit >= 1 - _ROUNDING

    def sent(self, worker: WorkerRecord, records: Sequence[TaskRecord]) -> None:
        """A worker was sent tasks, the last that it holds; in the order in which it runs them."""
        if not self._is_on and not self._begins_with(records):
            return
        slots = self._slots_of(worker, before=len(worker.held) - len(records))
        for record in records:
            self._credit = min(self._credit + self._share, self._most_credit)
            slots.queued[record.number] = Run(record, worker, self._after_of(record))
        self._move_up(slots)

    def copied(self, run: Run, worker: WorkerRecord) -> None:
        """A worker that had a slot free was sent a second copy of a task."""
        self._credit -= 1
        run.leave()
        slots = self._slots_of(worker, before=len(worker.held) - 1)
        slots.queued[run.record.number] = Run(run.record, worker, None)
        self._move_up(slots)

    def left(self, worker: WorkerRecord, number: int, *, has_run: bool) -> float | None:
        """A worker has a task no more; for how many seconds it ran, `None` when that is not known.

        `has_run` when its turn was answered, or lost to its copy.
        """
        slots = self._slots.get(worker.name)
        if slots is None or slots.queued.pop(number, None) is not None:
            return None
        run = slots.running.pop(number, None)
        if run is None:
            return None
        run.leave()
        seconds = self._clock.monotonic() - run.started
        if has_run:
            self._durations.setdefault(worker.role, RecentQuantiles()).add(seconds)
        self._move_up(slots)
        return seconds

    def lost(self, worker: WorkerRecord) -> None:
        """A worker has died, or was removed, with all that it had."""
        slots = self._slots.pop(worker.name, None)
        for run in slots.running.values() if slots else ():
            run.leave()

    def late(self, role: str) -> list[Run]:
        """The turns on workers of a role that are late and have no copy, the first first."""
        late = self._late.get(role)
        return list(late.values()) if late else []

    def matches(self, workers: Iterable[WorkerRecord]) -> Iterator[tuple[Run, WorkerRecord]]:
        """Late turns, each with one of these workers that has its role and is free for a copy.

        Free is who has a slot for it now, with nothing else to do. Each is to be told as
        `copied`, if it is, before the next is asked for.
        """
        for worker in workers if any(self._late.values()) else ():
            if not self.may_copy:
                return
            if _is_free(worker):
                late = self.late(worker.role)
                run = next((run for run in late if run.worker is not worker), None)
                if run is not None:
                    yield run, worker

    def look(self) -> float | None:
        """Find out which turns are late now; the seconds until others will be.

        `None` when nothing but time will make none late.
        """
        if not self._in_time:
            return None
        now = self._clock.monotonic()
        due = [self._find_late(*key, now) for key in list(self._in_time)]
        return min((at - now for at in due if at is not None), default=None)

    def _begins_with(self, records: Sequence[TaskRecord]) -> bool:
        """Whether there is something to be done from now on: turns are followed."""
        self._is_on = self._is_allowed and any(one.task.hedge_after is not None for one in records)
        return self._is_on

    def _find_late(self, role: str, after: After, now: float) -> float | None:
        """Move what is late out of a group; when the first of the others will be."""
        group = self._in_time[role, after]
        limit = self._limit(role, after)
        while limit is not None and group:
            first = next(iter(group.values()))
            if now < first.started + limit - _ROUNDING:
                return first.started + limit
            first.enter(self._late.setdefault(role, OrderedDict()))
        if not group:
            del self._in_time[role, after]
        return None

    def _limit(self, role: str, after: After) -> float | None:
        """Seconds that a turn may take before it is late; `None` while nobody knows."""
        if not isinstance(after, str):
            return after
        durations = self._durations.get(role)
        return durations.quantile(int(after[1:]) / 100) if durations else None

    def _after_of(self, record: TaskRecord) -> After | None:
        task = record.task
        is_bound = task.session is not None or task.race is not None or task.worker is not None
        has_copy = record.copy is not None or record.original is not None
        if is_bound or has_copy or record.streams or record.tries.deaths:
            return None
        return self._after if task.hedge_after is None else task.hedge_after

    def _slots_of(self, worker: WorkerRecord, before: int) -> _Slots:
        """A worker's slots; of one that was not known yet, with the first that it holds."""
        slots = self._slots.get(worker.name)
        if slots is None:
            slots = self._slots[worker.name] = _Slots(worker.concurrency)
            for record in list(worker.held.values())[:before]:
                slots.queued[record.number] = Run(record, worker, None)
            self._move_up(slots)
        return slots

    def _move_up(self, slots: _Slots) -> None:
        """Have queued turns begin, as many as there are slots for."""
        while slots.queued and len(slots.running) < slots.count:
            number, run = slots.queued.popitem(last=False)
            run.started = self._clock.monotonic()
            slots.running[number] = run
            if run.after is not None:
                key = (run.worker.role, run.after)
                run.enter(self._in_time.setdefault(key, OrderedDict()))


def _is_free(worker: WorkerRecord) -> bool:
    takes_tasks = worker.takes_tasks and not worker.is_leaving
    has_slot = len(worker.held) < worker.concurrency
    return takes_tasks and has_slot and not worker.line and worker.next_notice is None
