"""Taking tasks in: who knows the id already, what is refused, and the commit."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from raypool.desk import Desks
from raypool.errors import InvalidTask, LedgerError
from raypool.fingerprints import Fingerprints
from raypool.group_commit import GroupCommit
from raypool.kept_types import KeptTypes
from raypool.ledger import KnownTask
from raypool.messages import Delivery, HeldTask, Outcome, Receipt, Refusal, Submission
from raypool.recorder import Ended
from raypool.records import AcceptedTask, Death, Ending
from raypool.roster import WorkerRecord
from raypool.scheduler import Scheduler
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast

logger = logging.getLogger(__name__)


class Intake:
    """Accepts tasks: a task is accepted when the ledger has committed it.

    Attributes:
        types: the output types that tasks ask for.
        last_number: the last task or notice that has a number.
        last_assigned: the last one that is accepted.
    """

    def __init__(
        self,
        ledger: GroupCommit,
        scheduler: Scheduler,
        desks: Desks,
        broadcast: Broadcast,
        *,
        last_number: int,
        fingerprints: Fingerprints,
        deaths: Iterable[Death] = (),
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._desks = desks
        self._broadcast = broadcast
        self.types = KeptTypes(ledger)
        self.last_number = last_number
        self.last_assigned = last_number
        self._last_inherited = last_number
        self._fingerprints = fingerprints
        fingerprints.on_change = self._restate_all
        self._deaths: defaultdict[int, list[Death]] = defaultdict(list)
        for death in deaths:
            self._deaths[death.number].append(death)

    async def accept(
        self, client: str, submissions: list[Submission], types: Mapping[str, bytes] = {}
    ) -> tuple[Receipt, list[Ended]]:
        """Accept a batch, in its order; `types` are output types, packed, by digest.

        Returns the receipt for the client, and the tasks that ended at once because no
        worker is left for them.
        """
        receipt = Receipt([], [])
        try:
            await self.types.keep(types)
            turns = await self._session_turns(submissions)
        except LedgerError as error:
            receipt.refusals.extend(_refuse_unwritable(one, str(error)) for one in submissions)
            return receipt, []
        fresh: list[tuple[Submission, TaskRecord]] = []
        for submission in submissions:
            record = self._scheduler.get(submission.id)
            if record is not None and record.is_accepted:
                self._join(client, submission, record, receipt)
            else:
                fresh.append((submission, self._reserve(client, submission)))
        try:
            known = await self._ledger.accept([record.task for _, record in fresh])
            others = [one.task for one in known.values() if self._is_nowhere(one)]
            turns |= await self._session_turns(others)
        except LedgerError as error:
            self._give_up(fresh, str(error), receipt)
            return receipt, []
        return receipt, self._enter(fresh, known, turns, receipt)

    def count_from(self, number: int) -> None:
        """That number, and those before it, are taken."""
        self.last_number = max(self.last_number, number)
        self.last_assigned = max(self.last_assigned, number)

    def take_number(self) -> int:
        """A place in the order of acceptance, for what is no task of a client's."""
        self.last_number += 1
        self.last_assigned = self.last_number
        return self.last_number

    async def adopt(self, worker: WorkerRecord, outcome: Outcome) -> Ended | None:
        """Accept the task that an agent has asked for and run by itself.

        It is kept, and this waits, while the ledger cannot be written. One that is paused goes
        into line for its agent, who runs it once there is capacity.
        Returns it when it ended at once, because the agent is gone.

        Raises:
            LedgerError: it was not committed up to the end; its outcome is lost.
        """
        asked = outcome.asked
        assert asked is not None
        only = worker.name if outcome.is_paused else None
        task = AcceptedTask(outcome.number, asked.id, asked.prompt, worker.role, worker=only)
        task = msgspec.structs.replace(task, fingerprint=self._fingerprints.of(task))
        record = TaskRecord(task)
        self._scheduler.reserve(record)
        try:
            await self._ledger.accept([task], is_kept=True)
        except LedgerError:
            self._scheduler.forget(record)
            raise
        if not outcome.is_paused:
            self._scheduler.adopt(worker, record)
            return None
        record.is_paused = True
        ending = self._assign(record, {})
        return None if ending is None else Ended(record, ending)

    async def resume(self, tasks: list[AcceptedTask]) -> list[Ended]:
        """Go on with tasks that the ledger has and that have not ended, and are not under way.

        Raises:
            LedgerError: it cannot be read.
        """
        return self._resume(tasks, await self._session_turns(tasks))

    async def take_over(
        self, worker: WorkerRecord, begun: list[HeldTask], kept: list[HeldTask]
    ) -> tuple[list[int], list[int]]:
        """Go on with what `worker` has begun, or keeps, for an earlier dispatcher.

        Returns the numbers of the begun tasks that are taken over, and of the tasks that are to
        be dropped there: those that have ended, or run elsewhere, too.

        Raises:
            LedgerError: it cannot be read.
        """
        ids = [one.id for one in (*begun, *kept)]
        known = await self._ledger.read(lambda ledger: ledger.find_all(ids))
        tasks = {
            one.number: known[one.id].task
            for one in (*begun, *kept)
            if one.id in known and known[one.id].ending is None
        }
        turns = await self._session_turns(tasks.values())
        taken, dropped = [], []
        for one, is_kept in (*((it, False) for it in begun), *((it, True) for it in kept)):
            task = tasks.get(one.number)
            if task is None or task.number != one.number or self._scheduler.get(one.id):
                dropped.append(one.number)
                continue
            record = TaskRecord(task)
            self._scheduler.shelves.take(record)
            record.tries.attempts = one.attempt - 1
            record.outlive(self._deaths.pop(task.number, ()))
            if task.session is not None:
                self._scheduler.sessions.add(task.session, turns[task.session])
            self._scheduler.take_over(worker, record, is_kept=is_kept)
            if not is_kept:
                taken.append(one.number)
        return taken, dropped

    def unshelve(self, tasks: list[AcceptedTask], *, cancels: bool = False) -> list[Ended]:
        """Go on with those of `tasks` that are shelved still, or cancel them.

        Returns those that ended at once.
        """
        shelved = []
        for task in tasks:
            if self._is_live(task) or not self._scheduler.shelves.holds(task):
                continue
            other = self._scheduler.get(task.id)
            if other is not None:  # it is being accepted, and will find that its id is taken
                self._scheduler.forget(other)
            shelved.append(task)
        return self._resume(shelved, {}, cancels=cancels)

    def _resume(
        self, tasks: list[AcceptedTask], turns: dict[str, int], *, cancels: bool = False
    ) -> list[Ended]:
        ended = []
        records = [TaskRecord(one) for one in tasks if self._scheduler.get(one.id) is None]
        self._restate(records)
        for record in records:
            record.outlive(self._deaths.pop(record.number, ()))
            record.is_cancelled = cancels
            self._scheduler.shelves.take(record)
            self._scheduler.reserve(record)
            ending = self._assign(record, turns, is_new=record.number <= self._last_inherited)
            if ending is not None:
                ended.append(Ended(record, ending))
        return ended

    def _join(
        self, client: str, submission: Submission, record: TaskRecord, receipt: Receipt
    ) -> None:
        differing = self._fingerprints.differences(record.task, submission, has_ended=False)
        if differing:
            receipt.refusals.append(_refuse_other_question(submission, differing))
            return
        record.watchers.append((client, submission.ticket))
        record.streams = record.streams or submission.stream
        receipt.workers.append((submission.ticket, record.worker))

    def _is_nowhere(self, known: KnownTask) -> bool:
        """Whether a task has not ended, and is neither under way nor shelved."""
        is_here = self._is_live(known.task) or self._scheduler.shelves.holds(known.task)
        return known.ending is None and not is_here

    def _is_live(self, task: AcceptedTask) -> bool:
        """Whether a task is under way; what is being accepted under its id is another one."""
        live = self._scheduler.get(task.id)
        return live is not None and live.number == task.number

    def _assign(
        self, record: TaskRecord, turns: dict[str, int], *, is_new: bool = True
    ) -> Ending | None:
        self.last_assigned = max(self.last_assigned, record.number)
        if record.task.session is not None:
            self._scheduler.sessions.add(record.task.session, turns[record.task.session])
        ending = self._scheduler.assign(record)
        if self._broadcast.is_watched:
            if is_new:
                self._tell_accepted(record.task)
            self._tell_queued(record)
        return ending

    def _shelve(self, record: TaskRecord) -> bool:
        """Leave a committed task to the ledger, if there is no room for it in memory."""
        if not self._scheduler.shelves.put(record):
            return False
        self._release(record)
        self.last_assigned = max(self.last_assigned, record.number)
        if self._broadcast.is_watched:
            self._tell_accepted(record.task)
        return True

    def _tell_accepted(self, task: AcceptedTask) -> None:
        self._broadcast.emit("task.accepted", task=task.id, role=task.role, session=task.session)

    def _tell_queued(self, record: TaskRecord) -> None:
        task = record.task
        if record.worker is not None and not record.has_ended:
            worker = self._scheduler.roster[record.worker]
            if worker.unfinished > 1:
                self._broadcast.emit(
                    "mailbox.queued",
                    worker=worker.name,
                    role=worker.role,
                    task=task.id,
                    queued=worker.unfinished,
                )

    async def _session_turns(self, tasks: Iterable[Submission | AcceptedTask]) -> dict[str, int]:
        """How many tasks each of their sessions has behind it; raises `LedgerError`."""
        sessions = self._scheduler.sessions
        names = {task.session for task in tasks if task.session is not None}
        turns = {name: sessions.turns_of(name) for name in names}
        unknown = [name for name in names if turns[name] is None]
        if unknown:
            turns |= await self._ledger.read(lambda ledger: ledger.session_turns(unknown))
        return {name: known or 0 for name, known in turns.items()}

    def _reserve(self, client: str, submission: Submission) -> TaskRecord:
        """A task to be committed; of those under one id the first has it until then."""
        self.last_number += 1
        task = AcceptedTask(
            self.last_number,
            submission.id,
            submission.prompt,
            submission.role,
            submission.metadata,
            submission.timeout,
            submission.session,
            submission.worker,
            submission.output_type,
            submission.priority,
            submission.tenant,
            submission.hedge_after,
            submission.race,
            self._fingerprints.of(submission),
        )
        record = TaskRecord(task)
        record.streams = submission.stream
        record.watchers.append((client, submission.ticket))
        if self._scheduler.get(task.id) is None:
            self._scheduler.reserve(record)
        return record

    def _enter(
        self,
        fresh: list[tuple[Submission, TaskRecord]],
        known: dict[int, KnownTask],
        turns: dict[str, int],
        receipt: Receipt,
    ) -> list[Ended]:
        ended = []
        for submission, record in fresh:
            found = known.get(record.number)
            if found is not None:
                ended += self._leave_to(found, submission, record, turns, receipt)
                continue
            if self._shelve(record):
                receipt.workers.append((submission.ticket, None))
                continue
            self._scheduler.reserve(record)
            ending = self._assign(record, turns)
            receipt.workers.append((submission.ticket, record.worker))
            if ending is not None:
                ended.append(Ended(record, ending))
        return ended

    def _leave_to(
        self,
        found: KnownTask,
        submission: Submission,
        record: TaskRecord,
        turns: dict[str, int],
        receipt: Receipt,
    ) -> list[Ended]:
        """Leave an id to the task that the ledger has under it, with all who wait for it."""
        self._release(record)
        has_ended = found.ending is not None
        differing = self._fingerprints.differences(found.task, submission, has_ended=has_ended)
        watchers = record.watchers[1:] if differing else record.watchers
        worker, ended = self._hand_over(watchers, found, turns)
        if differing:
            receipt.refusals.append(_refuse_other_question(submission, differing))
        else:
            receipt.workers.append((submission.ticket, worker))
        return ended

    def _hand_over(
        self, watchers: list[tuple[str, int]], found: KnownTask, turns: dict[str, int]
    ) -> tuple[str | None, list[Ended]]:
        """Have `watchers` wait for a task that the ledger has; the worker that has it."""
        if found.ending is not None:
            for client, ticket in watchers:
                delivery = Delivery(ticket, found.ending, output_type=found.task.output_type)
                self._desks.put(client, delivery)
            return found.ending.worker, []
        is_live = self._scheduler.get(found.task.id) is not None
        shelves = self._scheduler.shelves
        if not is_live and shelves.holds(found.task):
            for watcher in watchers:
                shelves.watch(found.task, watcher)
            return None, []
        ended = [] if is_live else self._resume([found.task], turns)
        record = self._scheduler.get(found.task.id)
        assert record is not None
        record.watchers += watchers
        return record.worker, ended

    def _restate_all(self) -> None:
        """What answers has become known, and tasks may have come before that."""
        self._restate(self._scheduler.records())

    def _restate(self, records: Iterable[TaskRecord]) -> None:
        """Have tasks that have not ended asked of the models that there are now."""
        restated: dict[int, bytes] = {}
        for record in records:
            fingerprint = self._fingerprints.of(record.task)
            if fingerprint and fingerprint != record.task.fingerprint:
                record.task = msgspec.structs.replace(record.task, fingerprint=fingerprint)
                restated[record.number] = fingerprint
        if restated:
            with suppress(LedgerError):
                kept = self._ledger.write(lambda ledger: ledger.restate(restated))
                kept.add_done_callback(_log_failure)

    def _release(self, record: TaskRecord) -> None:
        if self._scheduler.get(record.task.id) is record:
            self._scheduler.forget(record)

    def _give_up(
        self, fresh: list[tuple[Submission, TaskRecord]], why: str, receipt: Receipt
    ) -> None:
        for submission, record in fresh:
            self._release(record)
            self._scheduler.shelves.give_up(record)
            receipt.refusals.append(_refuse_unwritable(submission, why))
            for client, ticket in record.watchers[1:]:
                self._desks.put(client, Delivery(ticket, None, ledger_error=why))


def _log_failure(kept: asyncio.Future[Any]) -> None:
    if not kept.cancelled() and (error := kept.exception()) is not None:
        logger.warning("the ledger does not know which model its tasks are asked of now: %s", error)


def _refuse_unwritable(submission: Submission, why: str) -> Refusal:
    return Refusal(submission.ticket, LedgerError.__name__, why)


def _refuse_other_question(submission: Submission, differing: list[str]) -> Refusal:
    message = (
        f"the ledger has a task {submission.id!r} with another {' and '.join(differing)}; "
        "give this one another id, or the pool another ledger"
    )
    return Refusal(submission.ticket, InvalidTask.__name__, message)
