"""Where each task waits that was not sent: in a worker's line, in the backlog, or standing by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raypool.backlog import Backlog
from raypool.copies import Copies
from raypool.placing import Placing
from raypool.ready import Ready
from raypool.records import StoredCause
from raypool.roster import Roster, WorkerRecord
from raypool.sessions import Sessions
from raypool.task_record import TaskRecord


class Unplaced(NamedTuple):
    """A task that nobody can have, and why."""

    record: TaskRecord
    cause: StoredCause


class Places:
    """Puts tasks where they wait, and moves them when workers come and go.

    Attributes:
        standing_by: tasks that wait for another attempt or their session's turn, which no worker
            has, by number.
    """

    def __init__(
        self,
        roster: Roster,
        sessions: Sessions,
        placing: Placing,
        backlog: Backlog,
        *,
        ready: Ready,
        copies: Copies,
    ) -> None:
        self._roster = roster
        self._sessions = sessions
        self._placing = placing
        self._backlog = backlog
        self._ready = ready
        self._copies = copies
        self.standing_by: dict[int, TaskRecord] = {}

    def bind(self, record: TaskRecord, worker: WorkerRecord | None) -> None:
        """Note that a task is `worker`'s, or nobody's, from now on."""
        if record.worker is not None:
            before = self._roster.get(record.worker)
            if before is not None:
                before.unfinished -= 1
        record.worker = None if worker is None else worker.name
        if worker is not None:
            worker.unfinished += 1
            if record.task.session is not None:
                self._sessions.move(record, worker.name)

    def place(self, record: TaskRecord) -> Unplaced | None:
        """Put a task into a line; why not, when nobody can have it."""
        self._stop_waiting(record, self._roster.get(record.worker))
        worker = self._placing.choose(record)
        if isinstance(worker, StoredCause):
            return Unplaced(record, worker)
        self.bind(record, worker)
        if worker is None:
            self._backlog.add(record)
        else:
            self.line_up(worker, record)
        return None

    def line_up(self, worker: WorkerRecord, record: TaskRecord) -> None:
        """Put a task that is `worker`'s into its line."""
        if worker.waiting:
            worker.waiting.pop(record.number, None)
        worker.line.add(record)
        if worker.window.room(len(worker.held)):
            self._ready.mark(worker)

    def stand_by(self, record: TaskRecord) -> Unplaced | None:
        """Have a task wait for its session's turn, where the session is."""
        owner = self._roster.get(self._sessions.worker_of(record))
        worker = owner or self._placing.choose(record)
        if isinstance(worker, StoredCause):
            return Unplaced(record, worker)
        self.bind(record, worker)
        waiting = self.standing_by if worker is None else worker.waiting
        waiting[record.number] = record
        return None

    def leave(self, record: TaskRecord) -> WorkerRecord | None:
        """Take a task that has ended from where it waits; the worker whose it was."""
        worker = self._roster.get(record.worker)
        if record.line is not None:
            record.line.discard(record)
            if worker is not None:
                self._ready.mark(worker)
        self._stop_waiting(record, worker)
        if worker is not None:
            worker.unfinished -= 1
        return worker

    def abandon(self, worker: WorkerRecord) -> None:
        """Have what waits for a time to come, and is `worker`'s, be nobody's meanwhile."""
        for number, record in worker.waiting.items():
            self.bind(record, None)
            self.standing_by[number] = record
        worker.waiting.clear()

    def redistribute(self, workers: Iterable[WorkerRecord]) -> list[Unplaced]:
        """Give what waits in the lines of these workers to whoever may have it now.

        So is what waits for roles that will have no workers any more.
        """
        self._roster.sort()
        waiting = [record for worker in workers for record in self._clear(worker)]
        for role, line in self._backlog:
            if not self._roster.choice(role) and not self._roster.may_come(role):
                waiting += line.clear()
        waiting.sort(key=lambda record: record.number)
        return [unplaced for record in waiting if (unplaced := self.place(record)) is not None]

    def share_with(self, worker: WorkerRecord) -> list[Unplaced]:
        """Give a new worker an even part of what others have in line, the last of it.

        A policy of the user's is asked again about each of those tasks.
        """
        peers = [one for one in self._roster.choice(worker.role) if one is not worker]
        unplaced = []
        for peer in peers:
            for record in peer.line.take_last(1 / (len(peers) + 1)):
                if not _may_move(record, worker):
                    peer.line.add(record)
                elif self._placing.is_even(record.task.role):
                    self.bind(record, worker)
                    self.line_up(worker, record)
                else:
                    unplaced.append(self.place(record))
                self._ready.mark(peer)
        return [one for one in unplaced if one is not None]

    def _clear(self, worker: WorkerRecord) -> list[TaskRecord]:
        """What `worker` has in line and another must do; one that leaves ends what it began."""
        cleared = []
        for record in worker.line.clear():
            if worker.is_leaving and worker.takes_tasks and record.is_kept:
                self.line_up(worker, record)
            elif record.original is not None:
                self._copies.drop(record)
            elif not self._copies.take_over(record):
                record.is_paused = False
                cleared.append(record)
        return cleared

    def _stop_waiting(self, record: TaskRecord, worker: WorkerRecord | None) -> None:
        waiting = self.standing_by if worker is None else worker.waiting
        if waiting:
            waiting.pop(record.number, None)


def _may_move(record: TaskRecord, worker: WorkerRecord) -> bool:
    task = record.task
    is_bound = task.worker or task.session or task.race or record.is_kept
    return not is_bound and task.role in (None, worker.role)
