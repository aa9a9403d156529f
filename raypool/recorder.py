"""From a decided ending to a recorded one, and only then to the clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from raypool.capacity.standstill import Standstill
from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.events import Event
from raypool.group_commit import GroupCommit
from raypool.ledger import NO_EXTRA, Extra, Progress, Unfit
from raypool.messages import Delivery, Outcome
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
    """Commits endings, then tells every client that waits for them.

    While the ledger cannot be written nothing is sent, and endings are kept, each task unfinished
    until its end is recorded. Who waits for one when the ledger fails is told so by a
    `LedgerError`; who asks later waits until it is recorded.

    Attributes:
        given_up: how many tasks have ended whose end was not recorded and is not kept any more.
        on_failure: called when the ledger has begun to fail.
        on_recovery: called when it can be written again.
    """

    def __init__(
        self,
        ledger: GroupCommit,
        scheduler: Scheduler,
        desks: Desks,
        tally: Tally,
        broadcast: Broadcast,
        *,
        standstill: Standstill | None = None,
    ) -> None:
        self.given_up = 0
        self.on_failure: Callable[[], None] = lambda: None
        self.on_recovery: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._scheduler = scheduler
        self._desks = desks
        self._tally = tally
        self._broadcast = broadcast
        self._standstill = standstill or Standstill()
        self._unrecorded: dict[int, Ended] = {}
        self._untold: dict[int, Ended] = {}
        self._recorded = asyncio.Event()
        ledger.on_failure = self._ledger_failed
        ledger.on_recovery = self._ledger_recovered

    @property
    def is_behind(self) -> bool:
        """Whether something was spent that is in no ending, and that the ledger is to hear of."""
        return self._tally.has_unrecorded

    @property
    def kept(self) -> int:
        """How many tasks have ended whose end is kept, since the ledger fails."""
        return 0 if self._ledger.failure is None else len(self._unrecorded)

    async def record(self, ended: list[Ended], snapshots: Mapping[str, str] = {}) -> list[Ended]:
        """Commit, with the `snapshots` of the workers, and deliver, however long that takes.

        With it goes what was spent and is in no ending. What the ledger cannot hold, or has not
        taken up to the end, is logged, and stays unfinished in it. Returns the tasks that followed
        in their sessions and ended at once.
        """
        numbered = {one.ending.number: one for one in ended}
        self._unrecorded |= numbered
        self._untold |= numbered
        try:
            await self._commit(ended, snapshots)
        except Unfit as error:
            if len(ended) + bool(snapshots) > 1:
                return await self._record_singly(ended, snapshots)
            self._give_up(ended, snapshots, error)
            return self._release(ended, are_recorded=False)
        except LedgerError as error:
            self._give_up(ended, snapshots, error)
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
        progress = Progress(sent=dict.fromkeys(numbers, number_of(worker)))
        await self._ledger.note(progress, is_kept=False)

    def cut_short(self, turns: int) -> None:
        """Count turns whose worker has died, which may have been billed."""
        self._tally.cut_short(turns)

    def keep(self, record: TaskRecord, outcome: Outcome) -> None:
        """Have the ledger count what an attempt has cost whose task goes on, until that has ended.

        Its ending has all of it, and may never come to a ledger that a later pool goes on with.
        """
        usd, tokens = outcome.cost_usd or 0.0, outcome.usage.total_tokens
        if usd or tokens:
            record.kept += Extra(kept_usd=usd, kept_tokens=tokens)
            self._tally.keep(usd, tokens)

    async def settle(self) -> None:
        """Return when every ending that was to be recorded before is, or is given up."""
        await asyncio.sleep(0)  # for those whose recording is about to begin
        numbers = set(self._unrecorded)
        while not numbers.isdisjoint(self._unrecorded):
            self._recorded.clear()
            await self._recorded.wait()

    async def _commit(self, ended: list[Ended], snapshots: Mapping[str, str]) -> None:
        unrecorded = extra = self._tally.take_unrecorded()
        for one in ended:
            if one.was_in_vain:
                extra += Extra(turns=1, turns_usd=one.ending.cost_usd or 0.0)
            if one.record.kept is not NO_EXTRA:
                kept = one.record.kept
                extra += Extra(kept_usd=-kept.kept_usd, kept_tokens=-kept.kept_tokens)
        try:
            await self._ledger.record([one.ending for one in ended], snapshots, extra)
        except LedgerError:
            self._tally.put_back(unrecorded)
            raise

    async def _record_singly(self, ended: list[Ended], snapshots: Mapping[str, str]) -> list[Ended]:
        """Record what the ledger can hold, where it cannot hold all of it."""
        followed = await self.record([], snapshots) if snapshots else []
        for one in ended:
            followed += await self.record([one])
        return followed

    def _give_up(
        self, ended: list[Ended], snapshots: Mapping[str, str], error: LedgerError
    ) -> None:
        self.given_up += len(ended)
        logger.error(
            "not recorded are the ends of %d tasks and the snapshots of %d workers: %s",
            len(ended),
            len(snapshots),
            error,
        )
        for one in ended:
            self._refuse(one, str(error))

    def _refuse(self, one: Ended, why: str) -> None:
        """Tell who waits for a task that its end is not recorded."""
        watchers, one.record.watchers = one.record.watchers, []
        for client, ticket in watchers:
            self._desks.put(client, Delivery(ticket, None, ledger_error=why))

    def _ledger_failed(self, why: str) -> None:
        is_first = self._standstill.why is None
        self._standstill.why = self._why_nothing_is_sent(why)
        for one in self._untold.values():
            task_id = one.record.task.id
            self._refuse(
                one,
                f"{why}; how task {task_id!r} has ended is kept, and recorded once the ledger can "
                f"be written: pool.future({task_id!r}) waits for that",
            )
        self._untold.clear()
        if is_first:
            logger.error("%s", self._standstill.why)
            self.on_failure()

    def _ledger_recovered(self) -> None:
        self._standstill.why = None
        logger.warning("the ledger can be written again; sending goes on")
        self.on_recovery()

    def _why_nothing_is_sent(self, why: str) -> str:
        kept = len(self._unrecorded)
        ends = f"; until then the ends of {kept} tasks are kept in memory" if kept else ""
        return f"{why}; nothing is sent until the ledger can be written, which is tried again{ends}"

    def _release(self, ended: list[Ended], *, are_recorded: bool) -> list[Ended]:
        followed: list[Decided] = []
        for one in ended:
            self._unrecorded.pop(one.ending.number, None)
            self._untold.pop(one.ending.number, None)
            has_grown = are_recorded and one.ending.conversation is not None
            decided = self._scheduler.release(one.record, has_grown=has_grown)
            if decided is not None:
                followed.append(decided)
        self._recorded.set()
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
