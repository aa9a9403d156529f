"""Taking tasks in: who knows the id already, what is refused, and the commit."""

from __future__ import annotations

from raypool.backlog import TaskRecord
from raypool.desk import Desks
from raypool.errors import InvalidTask, LedgerError
from raypool.group_commit import GroupCommit
from raypool.ledger import KnownTask
from raypool.messages import Delivery, Receipt, Refusal, Submission
from raypool.recorder import Ended
from raypool.records import AcceptedTask
from raypool.scheduler import Scheduler


class Intake:
    """Accepts tasks: a task is accepted when the ledger has committed it."""

    def __init__(
        self, ledger: GroupCommit, scheduler: Scheduler, desks: Desks, last_number: int
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._desks = desks
        self.last_number = last_number

    async def accept(
        self, client: str, submissions: list[Submission]
    ) -> tuple[Receipt, list[Ended]]:
        """Accept a batch, in its order.

        Returns the receipt for the client, and the tasks that ended at once because no
        worker is left for them.
        """
        receipt = Receipt([], [])
        fresh: list[tuple[Submission, TaskRecord]] = []
        joined: list[tuple[Submission, TaskRecord]] = []
        for submission in submissions:
            record = self._scheduler.get(submission.id)
            if record is None:
                fresh.append((submission, self._reserve(client, submission)))
            elif _is_same(record.task, submission):
                record.watchers.append((client, submission.ticket))
                joined.append((submission, record))
            else:
                receipt.refusals.append(_refuse_other_question(submission))
        try:
            known = await self._ledger.accept([record.task for _, record in fresh])
        except LedgerError as error:
            self._give_up(fresh, str(error), receipt)
            return receipt, []
        ended = self._enter(client, fresh, known, receipt)
        for submission, record in joined:
            receipt.workers.append((submission.ticket, record.worker))
        return receipt, ended

    def resume(self, tasks: list[AcceptedTask]) -> list[Ended]:
        """Go on with tasks that the ledger has and that have not ended."""
        ended = []
        for task in tasks:
            record = TaskRecord(task)
            self._scheduler.reserve(record)
            ending = self._scheduler.assign(record)
            if ending is not None:
                ended.append(Ended(record, ending))
        return ended

    def _reserve(self, client: str, submission: Submission) -> TaskRecord:
        self.last_number += 1
        task = AcceptedTask(
            self.last_number,
            submission.id,
            submission.prompt,
            submission.role,
            submission.metadata,
            submission.timeout,
        )
        record = TaskRecord(task)
        record.watchers.append((client, submission.ticket))
        self._scheduler.reserve(record)
        return record

    def _enter(
        self,
        client: str,
        fresh: list[tuple[Submission, TaskRecord]],
        known: dict[int, KnownTask],
        receipt: Receipt,
    ) -> list[Ended]:
        ended = []
        for submission, record in fresh:
            found = known.get(record.number)
            if found is not None:
                self._scheduler.forget(record)
                ended += self._join_known(client, submission, found, receipt)
                continue
            ending = self._scheduler.assign(record)
            receipt.workers.append((submission.ticket, record.worker))
            if ending is not None:
                ended.append(Ended(record, ending))
        return ended

    def _join_known(
        self, client: str, submission: Submission, found: KnownTask, receipt: Receipt
    ) -> list[Ended]:
        if not _is_same(found.task, submission):
            receipt.refusals.append(_refuse_other_question(submission))
            return []
        if found.ending is not None:
            self._desks.put(client, Delivery(submission.ticket, found.ending))
            receipt.workers.append((submission.ticket, found.ending.worker))
            return []
        ended = self.resume([found.task])
        record = self._scheduler.get(submission.id)
        assert record is not None
        record.watchers.append((client, submission.ticket))
        receipt.workers.append((submission.ticket, record.worker))
        return ended

    def _give_up(
        self, fresh: list[tuple[Submission, TaskRecord]], why: str, receipt: Receipt
    ) -> None:
        for submission, record in fresh:
            self._scheduler.forget(record)
            receipt.refusals.append(Refusal(submission.ticket, LedgerError.__name__, why))
            for client, ticket in record.watchers[1:]:
                self._desks.put(client, Delivery(ticket, None, ledger_error=why))


def _is_same(task: AcceptedTask, submission: Submission) -> bool:
    return task.prompt == submission.prompt and task.role == submission.role


def _refuse_other_question(submission: Submission) -> Refusal:
    message = (
        f"the ledger has a task {submission.id!r} with another prompt or role; "
        "give this one another id"
    )
    return Refusal(submission.ticket, InvalidTask.__name__, message)
