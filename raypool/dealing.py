"""What a worker is sent next: of its own line, and of what any worker may have."""

from __future__ import annotations

import math
from typing import NamedTuple

from raypool.backlog import Backlog
from raypool.line import Line, Rank
from raypool.ready import Ready
from raypool.retries import Retries
from raypool.rivals import Rivals
from raypool.roster import Roster, WorkerRecord
from raypool.task_record import TaskRecord


class Dealt(NamedTuple):
    """What a worker is sent.

    Attributes:
        records: the tasks, in order; they are in no line any more.
        is_refused: it would be sent more if its gate had room.
    """

    records: list[TaskRecord]
    is_refused: bool = False


NOTHING = Dealt([])


class Dealing:
    """Deals out what waits to the workers that have room.

    Attributes:
        outlived: the numbers of the unfinished tasks that a worker has died with.
    """

    def __init__(
        self, roster: Roster, backlog: Backlog, rivals: Rivals, ready: Ready, retries: Retries
    ) -> None:
        self._roster = roster
        self._backlog = backlog
        self._rivals = rivals
        self._ready = ready
        self._retries = retries
        self.outlived: set[int] = set()

    def deal(self, worker: WorkerRecord, most: int | None = None) -> Dealt:
        """Take what `worker` is sent now out of the lines, `most` tasks unless told otherwise."""
        if not _hears_tasks(worker):
            return NOTHING
        is_open = worker.gate.is_wide_open
        room = worker.window.room(len(worker.held), prefetches=is_open)
        late = self._late_lines(worker)
        late_room = self._late_room(worker, late, prefetches=is_open) if late else 0
        if most is not None:
            room, late_room = min(room, most), min(late_room, most)
        if is_open and not self.outlived and not late:
            return Dealt(worker.line.take(room)) if worker.line else NOTHING
        if is_open and len(late) == 1 and not worker.line and not self._rivals:
            is_alone = late_room == 1 and not worker.held
            if is_alone or not self.outlived:
                return Dealt(late[0].take(late_room))
        return self._deal_singly(worker, room, late, late_room)

    def has_slot(self, worker: WorkerRecord) -> bool:
        """Whether a task that no worker has died with may run there now, beside what it has."""
        has_slot = worker.has_slot and _hears_tasks(worker)
        return has_slot and len(worker.held) < self._company_of_held(worker)

    def _late_lines(self, worker: WorkerRecord) -> list[Line]:
        return [] if worker.is_leaving else self._backlog.lines_for(worker.role)

    def _late_room(self, worker: WorkerRecord, late: list[Line], *, prefetches: bool) -> int:
        """How many tasks that others may have too: one at a time while others are free."""
        prefetch = 0
        if prefetches:
            workers = max(1, len(self._roster.choice(worker.role)))
            prefetch = worker.window.late_prefetch(sum(map(len, late)), workers)
        room = worker.concurrency + prefetch - len(worker.held)
        if room * 2 < prefetch:
            return 0
        return min(room, 1) if self._ready.has_free(worker.role) else room

    def _deal_singly(
        self, worker: WorkerRecord, room: int, late: list[Line], late_room: int
    ) -> Dealt:
        """Tasks such that each may have its company, is not beside its race, and has capacity."""
        taken: list[TaskRecord] = []
        aside: list[TaskRecord] = []
        is_open, is_refused = worker.gate.is_wide_open, False
        company = self._company_of_held(worker)
        while True:
            lines = late if len(taken) < late_room else []
            lines = [worker.line, *lines] if len(taken) < room else lines
            line = self._most_urgent(worker, lines, aside)
            record = None if line is None else line.first()
            if line is None or record is None:
                break
            company = min(company, self._company(worker, record))
            if len(worker.held) + len(taken) >= company:
                break
            if not is_open and not worker.gate.reserve(record):
                is_refused = True
                break
            taken += line.take(1)
        self._put_back(aside)
        return Dealt(taken, is_refused)

    def _most_urgent(
        self, worker: WorkerRecord, lines: list[Line], aside: list[TaskRecord]
    ) -> Line | None:
        """The line with the first task, after those that must run elsewhere are set aside."""
        for line in lines:
            if line is not worker.line:
                while (first := line.first()) is not None and self._is_beside_its_race(
                    first, worker
                ):
                    aside.append(first)
                    line.set_aside()
        ranked = [(rank, line) for line in lines if (rank := line.rank()) is not None]
        return min(ranked, key=_by_rank)[1] if ranked else None

    def _put_back(self, aside: list[TaskRecord]) -> None:
        for record in aside:
            self._backlog.add(record)

    def _is_beside_its_race(self, record: TaskRecord, worker: WorkerRecord) -> bool:
        if record.task.race is None:
            return False
        workers = self._roster.choice(record.task.role)
        return worker not in self._rivals.apart(record, workers)

    def _company_of_held(self, worker: WorkerRecord) -> float:
        """How many tasks the worker may have at once while it has those that it holds."""
        return min((self._company(worker, one) for one in worker.held.values()), default=math.inf)

    def _company(self, worker: WorkerRecord, record: TaskRecord) -> float:
        return self._retries.company(record.tries, worker.concurrency)


def _hears_tasks(worker: WorkerRecord) -> bool:
    """Whether it can be sent tasks: what it may have died of is heard by itself."""
    if not worker.takes_tasks:
        return False
    notice = worker.next_notice if worker.notices else None
    return notice is None or not notice.tries.deaths


def _by_rank(ranked: tuple[Rank, Line]) -> Rank:
    return ranked[0]
