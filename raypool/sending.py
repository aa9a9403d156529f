"""Who is sent something now: those who may have room are looked at, and nobody else."""

from __future__ import annotations

from raypool.backlog import Backlog
from raypool.dealing import Dealing, Dealt
from raypool.line import Rank
from raypool.places import Places
from raypool.ready import Crowd, Ready
from raypool.roster import Roster, WorkerRecord
from raypool.task_record import TaskRecord

Envelopes = dict[str, list[TaskRecord]]


class Sending:
    """Has each worker hold what it is sent, in the order that priorities ask for."""

    def __init__(
        self, roster: Roster, backlog: Backlog, ready: Ready, dealing: Dealing, places: Places
    ) -> None:
        self._roster = roster
        self._backlog = backlog
        self._ready = ready
        self._dealing = dealing
        self._places = places

    def envelopes(self) -> list[tuple[WorkerRecord, list[TaskRecord]]]:
        """Every worker that is sent something now, with its tasks.

        Where capacity is short, the most urgent task has it, whichever worker's it is.
        """
        sent: Envelopes = {}
        passed = []
        while (worker := self._next_worker()) is not None:
            if not worker.gate.is_wide_open:
                self._queue_at_gate(worker, self._dealing.rank(worker))
                continue
            records = self.deal(worker).records
            if records:
                sent.setdefault(worker.name, []).extend(records)
                self._rest(worker)
            else:
                passed.append(worker)
        for worker in passed:
            self._rest(worker)
        for crowd in self._ready.crowds:
            self._pass(crowd, sent)
        return [(self._roster[name], records) for name, records in sent.items()]

    def deal(self, worker: WorkerRecord, most: int | None = None) -> Dealt:
        """Have `worker` hold what it is sent now, `most` tasks unless told otherwise."""
        dealt = self._dealing.deal(worker, most)
        for record in dealt.records:
            if record.worker is None:
                self._places.bind(record, worker)
            worker.held[record.number] = record
            record.is_paused = False
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

    def _pass(self, crowd: Crowd, sent: Envelopes) -> None:
        """Let those who wait at a gate pass one by one, until it has no more room."""
        passed = []
        while (first := crowd.pop()) is not None:
            worker, noted = first
            rank = self._dealing.rank(worker)
            if rank is None or rank > noted:
                self._queue_at_gate(worker, rank)
                continue
            dealt = self.deal(worker, most=1)
            if dealt.is_refused:
                crowd.add(worker, rank)
                break
            if dealt.records:
                sent.setdefault(worker.name, []).extend(dealt.records)
                self._queue_at_gate(worker, self._dealing.rank(worker))
            else:
                passed.append(worker)
        for worker in passed:
            self._rest(worker)

    def _queue_at_gate(self, worker: WorkerRecord, rank: Rank | None) -> None:
        if rank is not None:
            self._ready.crowd(worker.gate).add(worker, rank)
        else:
            self._rest(worker)

    def _rest(self, worker: WorkerRecord) -> None:
        if worker.has_slot:
            self._ready.rest(worker)
