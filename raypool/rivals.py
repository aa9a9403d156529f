"""Tasks of one race run on different workers."""

from __future__ import annotations

from collections.abc import Sequence

from raypool.roster import WorkerRecord
from raypool.task_record import TaskRecord


class Rivals:
    """The races that have tasks: which those are, until all of them are recorded."""

    def __init__(self) -> None:
        self._members: dict[str, list[TaskRecord]] = {}
        self._unrecorded: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether there is a race."""
        return bool(self._members)

    def enter(self, record: TaskRecord) -> None:
        """Know of a task of a race."""
        race = record.task.race
        if race is not None:
            self._members.setdefault(race, []).append(record)
            self._unrecorded[race] = self._unrecorded.get(race, 0) + 1

    def leave(self, record: TaskRecord) -> None:
        """A task is recorded; the last of its race to be so takes the race with it."""
        race = record.task.race
        if race is None or race not in self._unrecorded:
            return
        self._unrecorded[race] -= 1
        if not self._unrecorded[race]:
            del self._unrecorded[race], self._members[race]

    def apart(self, record: TaskRecord, workers: Sequence[WorkerRecord]) -> Sequence[WorkerRecord]:
        """Those of `workers` that no other task of the race was given to; all when none is left."""
        if record.task.race is None:
            return workers
        taken = {
            one.worker
            for one in self._members.get(record.task.race, ())
            if one is not record and one.worker is not None
        }
        return [worker for worker in workers if worker.name not in taken] or workers
