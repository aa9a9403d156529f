"""From a decided ending to a recorded one, and only then to the clients."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.events import Event
from raypool.group_commit import GroupCommit
from raypool.ledger import Extra, Progress
from raypool.messages import Delivery
from raypool.naming import number_of
from raypool.records import Ending
from raypool.scheduler import Scheduler
from raypool.settling import Decided
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast, EventName

logger = logging.getLogger(__name__)

NAMES: dict[str, EventName] = {
    "completed": "task.completed",
    "failed": "task.failed",
    "cancelled": "task.cancelled",
}


class Ended(NamedTuple):
    """A task whose ending is decided, and what its clients get beside what is recorded.

    `was_in_vain` when it has lost a race and had begun.
    """

    record: TaskRecord
    ending: Ending
    events: list[Event] | None = None
    exception: bytes | None = None
    parsed: bytes | None = None
    was_in_vain: bool = False

    def delivery(self, ticket: int) -> Delivery:
        """What the client with that ticket gets; the conversation stays in the ledger."""
        ending = self.ending
        if ending.conversation is not None:
            ending = msgspec.structs.replace(ending, conversation=None)
        return Delivery(
            ticket,
            ending,
            self.events,
            self.exception,
            parsed=self.parsed,
            output_type=self.record.task.output_type,
        )


class Recorder:
    """Commits endings, then tells every client that waits for them."""

    def __init__(
        self,
        ledger: GroupCommit,
        scheduler: Scheduler,
        desks: Desks,
        tally: Tally,
        broadcast: Broadcast,
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._desks = desks
        self._tally = tally
        self._broadcast = broadcast

    @property
    def is_behind(self) -> bool:
        """Whether something was spent that is in no ending, and that the ledger is to hear of."""
        return self._tally.has_unrecorded

    async def record(self, ended: list[Ended], snapshots: Mapping[str, str] = {}) -> list[Ended]:
        """Commit, with the `snapshots` of the workers, and deliver.

        With it goes what was spent and is in no ending. What cannot be committed is logged, and
        stays unfinished in the ledger. Returns the tasks that followed in their sessions and
        ended at once.
        """
        unrecorded = extra = self._tally.take_unrecorded()
        for one in ended:
            if one.was_in_vain:
                extra += Extra(turns=1, turns_usd=one.ending.cost_usd or 0.0)
        try:
            await self._ledger.record([one.ending for one in ended], snapshots, extra)
        except LedgerError as error:
            self._tally.put_back(unrecorded)
            logger.error(  # noqa: TRY400 - the message says it all
                "not recorded are the ends of %d tasks and the snapshots of %d workers: %s",
                len(ended),
                len(snapshots),
                error,
            )
            for one in ended:
                for client, ticket in one.record.watchers:
                    self._desks.put(client, Delivery(ticket, None, ledger_error=str(error)))
            return self._release(ended, are_recorded=False)
        for one in ended:
            self._tally.add(one.ending, was_in_vain=one.was_in_vain)
            if self._broadcast.is_watched:
                self._tell(one)
            for client, ticket in one.record.watchers:
                self._desks.put(client, one.delivery(ticket))
        return self._release(ended, are_recorded=True)

    async def note(self, progress: Progress) -> None:
        """Commit what has happened to tasks; when that cannot be, a log line says so."""
        try:
            await self._ledger.note(progress)
        except LedgerError as error:
            logger.warning(
                "not recorded is what has become of %d tasks that were sent: %s",
                max(len(progress.deaths), len(progress.sent)),
                error,
            )

    async def note_sent(self, worker: str, numbers: Iterable[int]) -> None:
        """Commit that a worker may begin these tasks from now on.

        Raises:
            LedgerError: that cannot be: they must not be begun.
        """
        await self._ledger.note(Progress(sent=dict.fromkeys(numbers, number_of(worker))))

    def cut_short(self, turns: int) -> None:
        """Count turns whose worker has died, which may have been billed."""
        self._tally.cut_short(turns)

    def _release(self, ended: list[Ended], *, are_recorded: bool) -> list[Ended]:
        followed: list[Decided] = []
        for one in ended:
            has_grown = are_recorded and one.ending.conversation is not None
            decided = self._scheduler.release(one.record, has_grown=has_grown)
            if decided is not None:
                followed.append(decided)
        return [Ended(*decided) for decided in followed]

    def _tell(self, one: Ended) -> None:
        ending = one.ending
        cause = ending.cause
        fields: dict[str, Any] = {
            "attempts": ending.attempts,
            "turns": ending.turns,
            "duration_ms": ending.duration_ms,
            "model": ending.model,
            "stop_reason": ending.stop_reason,
            "kind": cause.kind if cause else None,
            "error_type": cause.type if cause else None,
            "input_tokens": ending.usage.input_tokens,
            "output_tokens": ending.usage.output_tokens,
            "cost_usd": ending.cost_usd,
        }
        if ending.state == "cancelled":
            fields = {"reason": cause.message if cause else None}
        task = one.record.task
        self._broadcast.emit(
            NAMES[ending.state], worker=ending.worker, role=task.role, task=task.id, **fields
        )
