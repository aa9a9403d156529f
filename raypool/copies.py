"""A task that two workers run, of whom the first to answer ends it."""

from __future__ import annotations

from raypool.roster import Roster, WorkerRecord
from raypool.task_record import TaskRecord


class Copies:
    """Keeps a task and its copy: a task that fails on one worker is left to the other."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def start(self, record: TaskRecord, worker: WorkerRecord) -> TaskRecord | None:
        """A copy of the task, held by `worker`; `None` when its gate has no room."""
        copy = record.make_copy(worker.name)
        if not worker.gate.is_wide_open and not worker.gate.reserve(copy):
            return None
        record.copy = copy
        worker.held[copy.number] = copy
        worker.unfinished += 1
        worker.sent += 1
        return copy

    def drop(self, copy: TaskRecord) -> None:
        """The copy is given up; the task goes on where it is."""
        assert copy.original is not None
        copy.original.copy = None
        self._end(copy)

    def take_over(self, record: TaskRecord) -> bool:
        """Leave the task to the worker that has its copy; false when there is none."""
        copy = record.copy
        if copy is None or copy.worker is None:
            return False
        other, line = self._roster[copy.worker], copy.line
        self._give_up_place(record)
        self.drop(copy)
        record.worker, record.reserved = other.name, copy.reserved
        record.is_paused = copy.is_paused
        other.unfinished += 1
        if line is None:
            other.held[record.number] = record
        else:
            line.add(record)
        return True

    def win(self, copy: TaskRecord) -> TaskRecord:
        """The copy has answered first: the task, now of the copy's worker."""
        record = copy.original
        assert record is not None
        record.loser = record.worker
        self._give_up_place(record)
        self.drop(copy)
        assert copy.worker is not None
        record.worker = copy.worker
        self._roster[copy.worker].unfinished += 1
        return record

    def lose(self, record: TaskRecord) -> None:
        """The task has ended: its copy, if it has one, runs in vain."""
        if record.copy is not None:
            record.loser = record.copy.worker
            self.drop(record.copy)

    def _give_up_place(self, record: TaskRecord) -> None:
        worker = self._roster.get(record.worker)
        if worker is not None:
            worker.unfinished -= 1

    def _end(self, copy: TaskRecord) -> None:
        copy.has_ended = True
        if copy.line is not None:
            copy.line.discard(copy)
        self._give_up_place(copy)
