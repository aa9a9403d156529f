"""Who is sent something now: those who may have room are looked at, and nobody else."""

from __future__ import annotations

from raypool.backlog import Backlog
from raypool.capacity.gate import Gate
from raypool.dealing import Dealing, Dealt
from raypool.places import Places
from raypool.ready import Crowd, Ready
from raypool.roster import Roster, WorkerRecord
from raypool.shelves import Shelves
from raypool.task_record import TaskRecord

Envelopes = dict[str, list[TaskRecord]]


class Sending:
    """Has each worker hold what it is sent, in the order that priorities ask for."""

    def __init__(
        self,
        roster: Roster,
        backlog: Backlog,
        ready: Ready,
        dealing: Dealing,
        places: Places,
        *,
        shelves: Shelves,
    ) -> None:
        self._roster = roster
        self._shelves = shelves
        self._backlog = backlog
        self._ready = ready
        self._dealing = dealing
        self._places = places

    def envelopes(self) -> list[tuple[WorkerRecord, list[TaskRecord]]]:
        """Every worker that is sent something now, with its tasks.

        Where capacity is short, the most urgent task has it, whichever worker's it is.
        """
        sent: Envelopes = {}
        passed: list[WorkerRecord] = []
        is_over = False
        while not is_over:
            self._send_to_marked(sent, passed)
            went_apart = [self._pass(*crowd, sent, passed) for crowd in self._ready.crowds]
            is_over = not any(went_apart)
        for worker in passed:
            self._rest(worker)
        return [(self._roster[name], records) for name, records in sent.items()]

    def deal(self, worker: WorkerRecord, most: int | None = None) -> Dealt:
        """Have `worker` hold what it is sent now, `most` tasks unless told otherwise."""
        dealt = self._dealing.deal(worker, most)
        for record in dealt.records:
            if record.worker is None:
                self._places.bind(record, worker)
            worker.held[record.number] = record
            record.is_paused = False
            self._shelves.leave(record)
        worker.sent += len(dealt.records)
        return dealt

    def _next_worker(self) -> WorkerRecord | None:
        """A worker that may be sent something: one that is marked, or is free for the backlog."""
        worker = self._ready.next_marked()
        if worker is None:
            for role, _ in self._backlog:
                worker = self._ready.next_free(role)
                if worker is not None:
                    return worker
        return worker

    def _send_to_marked(self, sent: Envelopes, passed: list[WorkerRecord]) -> None:
        """Look at every worker that may be sent something, but at a gate that limits it."""
        while (worker := self._next_worker()) is not None:
            if not worker.gate.is_wide_open:
                if worker.has_slot:
                    self._ready.crowd(worker.gate).add(worker)
                continue
            records = self.deal(worker).records
            if records:
                sent.setdefault(worker.name, []).extend(records)
                self._rest(worker)
                if _had_to_go_apart(records):
                    self._look_again_at(passed)
            else:
                passed.append(worker)

    def _pass(self, gate: Gate, crowd: Crowd, sent: Envelopes, passed: list[WorkerRecord]) -> bool:
        """Let those who wait at a gate pass one by one, until it has no more room.

        Returns whether some that were `passed` over are to be looked at again.
        """
        went_apart = False
        while (worker := crowd.first(self._backlog)) is not None:
            dealt = self.deal(worker, most=1)
            if dealt.is_refused:
                break
            crowd.forget(worker)
            if not dealt.records:
                passed.append(worker)
                continue
            sent.setdefault(worker.name, []).extend(dealt.records)
            if worker.has_slot:
                crowd.add(worker)
            if _had_to_go_apart(dealt.records):
                went_apart = True
                self._look_again_at(passed)
        if gate.is_wide_open:
            passed += crowd.clear()
        return went_apart

    def _look_again_at(self, passed: list[WorkerRecord]) -> None:
        """What they were passed over for is out of their way."""
        for worker in passed:
            if worker.gate.is_wide_open:
                self._ready.mark(worker)
            else:
                self._ready.crowd(worker.gate).add(worker)
        passed.clear()

    def _rest(self, worker: WorkerRecord) -> None:
        if worker.has_slot and not worker.is_leaving:
            self._ready.rest(worker)


def _had_to_go_apart(records: list[TaskRecord]) -> bool:
    """Whether workers with tasks may have been passed over, since one of these came first."""
    return any(record.tries.deaths for record in records)
