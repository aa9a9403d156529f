"""Keeping every worker's window full, and settling what comes back."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import msgspec

from raypool.capacity.gate import Gate
from raypool.clock import Clock
from raypool.desk import Desks
from raypool.errors import LedgerError, UnknownWorker
from raypool.events import AWAITED
from raypool.hedger import Hedger
from raypool.ledger import Progress
from raypool.link import WorkerGone, WorkerLink
from raypool.messages import Batch, Notice, Outcome, Piece
from raypool.naming import number_of
from raypool.recorder import Ended, Recorder
from raypool.roster import NoticeRecord, WorkerRecord
from raypool.scheduler import Scheduler
from raypool.settling import Decided, Delayed
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast

logger = logging.getLogger(__name__)

Adopt = Callable[[WorkerRecord, Outcome], Coroutine[Any, Any, Ended | None]]

ASK_AGAIN_SECONDS = 1.0


class Sender:
    """Sends tasks to workers as the scheduler says, and tells it what became of them.

    Attributes:
        adopt: takes in the task that an agent has asked for by itself; returns it if it has ended.
        replace: is told of each worker that has died, to bring it back; says whether it will.
        on_delay: is told of each task that will be tried again.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        links: dict[str, WorkerLink],
        recorder: Recorder,
        hedger: Hedger,
        *,
        desks: Desks,
        broadcast: Broadcast,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler
        self._links = links
        self._recorder = recorder
        self._hedger = hedger
        hedger.send = self._begin_to_send
        recorder.on_failure = self._call_all_back
        recorder.on_recovery = lambda: self.pump(scheduler.roster)
        self._desks = desks
        self._broadcast = broadcast
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._until_closed: set[asyncio.Task[None]] = set()
        self._progress: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._moved = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._is_deaf = False
        self.adopt: Adopt | None = None
        self.replace: Callable[[WorkerRecord], bool] | None = None
        self.on_delay: Callable[[Delayed], None] | None = None

    def pump(self, free: Iterable[WorkerRecord] = ()) -> None:
        """Send every worker what it has room for; those that are `free` still, what is late."""
        if self._is_closed:
            return
        for worker, records in self._scheduler.envelopes():
            self._hedger.sent(worker, records)
            self._begin_to_send(worker, records)
        self._hedger.look(free)
        self._set_timer()

    def close(self) -> None:
        """Send nothing more, and bring no worker back."""
        self._is_closed = True
        self._hedger.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._until_closed:
            task.cancel()

    def deafen(self) -> None:
        """Hear nothing more of what workers do: they are about to be killed."""
        self._is_deaf = True

    async def settle_all(self, timeout: float) -> None:
        """Wait for every envelope to return and every ending to be recorded."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._under_way and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._under_way, timeout=left)

    def record(
        self,
        ended: list[Ended],
        snapshots: dict[str, str] | None = None,
        told_by: WorkerLink | None = None,
    ) -> None:
        """Have endings committed and delivered; what runs in vain is interrupted.

        Who has told of them is told in turn, once they are committed.
        """
        for one in ended:
            if one.record.loser is not None:
                self.begin(self._cancel_held(one.record.loser, [one.record.number]))
        if (ended or snapshots or self._recorder.is_behind) and not self._is_deaf:
            self.begin(self._record(ended, snapshots or {}, told_by))

    def settled(self, decided: Iterable[Decided]) -> None:
        """Record what has ended, and send what may have found a worker."""
        self.record([Ended(*one) for one in decided])
        self._tell_who_waits()
        self.pump(self._scheduler.roster)

    def cancel(self, records: Iterable[TaskRecord]) -> None:
        """Cancel tasks: those in line at once, those that a worker has through it."""
        ended: list[Ended] = []
        held: dict[str, list[int]] = {}
        for record in records:
            if record.has_ended:
                continue
            ending = self._scheduler.cancel(record)
            if ending is not None:
                ended.append(Ended(record, ending))
            holders = [record.worker] if ending is None or record.is_kept else []
            if record.copy is not None:
                holders.append(record.copy.worker)
            for name in holders:
                if name is not None:
                    held.setdefault(name, []).append(record.number)
        self.record(ended)
        self._tell_who_waits()
        for name, numbers in held.items():
            self.begin(self._cancel_held(name, numbers))

    def notify(self, worker: WorkerRecord, notice: Notice) -> None:
        """Have the agent of `worker` hear an event, as soon as it is there.

        Raises:
            UnknownWorker: the worker has died, and could not be replaced.
        """
        if not worker.may_take_tasks:
            raise UnknownWorker(
                f"worker {worker.name!r} has died and could not be replaced; "
                "notify another worker, or start the pool again"
            )
        record = worker.notices[notice.number] = NoticeRecord(notice)
        if worker.is_healthy:
            self.begin(self._send_notice(worker, record))

    def resend_notices(self, worker: WorkerRecord) -> None:
        """Have the new agent of `worker` hear what the old one has not dealt with."""
        for record in worker.notices.values():
            if not record.is_heard:
                self.begin(self._send_notice(worker, record))

    async def finish_up_to(self, number: int) -> None:
        """Return when every task accepted as `number` or before has ended, and that is recorded.

        Each worker is asked once it has been sent the last of them, and answers when it
        has finished.
        """
        while True:
            workers = [w for w in self._scheduler.roster if self._has_work(w, number)]
            if workers:
                await asyncio.gather(*(self._finish_worker(worker, number) for worker in workers))
            elif self._scheduler.has_unassigned_up_to(number):
                self._moved.clear()
                await self._moved.wait()
            else:
                await self._recorder.settle()
                return

    async def recall(self, worker: WorkerRecord) -> None:
        """Have others get what `worker` was sent and has not started."""
        link, held = self._links[worker.name], list(worker.held)
        if not held:
            return
        try:
            recalled = await link.recall(held)
        except WorkerGone as error:
            self._lose(worker, link, error)
            return
        self._hedger.returned(worker, recalled)
        self._take_back(number for number in recalled if number in worker.held)
        self.settled(self._scheduler.take_back(worker, recalled))

    async def finish(self, worker: WorkerRecord) -> None:
        """Return when `worker` has nothing left to do, or is dead for good."""
        progress = self._progress[worker.name]
        while worker.is_coming_back or (worker.is_healthy and not worker.is_empty):
            progress.clear()
            await progress.wait()

    def begin(self, work: Coroutine[Any, Any, None], *, until_closed: bool = False) -> None:
        """Do something on the side; what it raises is a defect, and logged.

        With `until_closed` it is given up when nothing more is sent.
        """
        if until_closed and self._is_closed:
            work.close()
            return
        task = asyncio.ensure_future(work)
        tasks = self._until_closed if until_closed else self._under_way
        tasks.add(task)
        task.add_done_callback(self._ended)

    def _has_work(self, worker: WorkerRecord, number: int) -> bool:
        return self._scheduler.has_work_up_to(worker, number)

    async def _finish_worker(self, worker: WorkerRecord, number: int) -> None:
        progress = self._progress[worker.name]
        while self._has_work(worker, number):
            progress.clear()
            link = self._links[worker.name]
            is_sent = not (
                worker.line.has_up_to(number) or self._scheduler.has_unassigned_up_to(number)
            )
            if is_sent and worker.held and not link.has_finished(worker.sent):
                await _first_of(link.finished(worker.sent), progress.wait())
            else:
                await progress.wait()

    def take_over(self, worker: WorkerRecord, numbers: list[int]) -> None:
        """Hear what becomes of tasks that `worker` has begun for an earlier dispatcher."""
        link = self._links[worker.name]
        self.begin(self._hear_out(worker, link, link.take_over(numbers)))

    def take_over_notice(self, worker: WorkerRecord, notice: Notice) -> None:
        """Hear what becomes of an event that `worker` was notified of by an earlier dispatcher."""
        record = worker.notices[notice.number] = NoticeRecord(notice)
        link = self._links[worker.name]
        self.begin(self._hear_of(worker, record, link, link.answered(notice)))

    def _begin_to_send(self, worker: WorkerRecord, records: list[TaskRecord]) -> None:
        self.begin(self._send(worker, records))

    async def _send(self, worker: WorkerRecord, records: list[TaskRecord]) -> None:
        link = self._links[worker.name]
        assignments = [record.assignment() for record in records]
        numbers = [one.number for one in assignments]
        worker.unsent.update(numbers)
        may_begin = await self._may_begin(worker, link, numbers)
        worker.unsent.difference_update(numbers)
        if may_begin:
            await self._hear_out(worker, link, link.send(assignments))

    async def _may_begin(self, worker: WorkerRecord, link: WorkerLink, numbers: list[int]) -> bool:
        """Have the ledger know what may cost money from now on; whether it is to be sent still.

        While the ledger cannot be written nothing is sent.
        """
        is_noted = is_told = False
        while not is_noted and self._is_there(worker, link):
            try:
                await self._recorder.note_sent(worker.name, numbers)
                is_noted = True
            except LedgerError as error:
                if not is_told:
                    logger.warning("nothing is sent to worker %r for now: %s", worker.name, error)
                is_told = True
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        if is_noted and self._is_closed:
            self._take_back(numbers)
        return is_noted and self._is_there(worker, link)

    def _is_there(self, worker: WorkerRecord, link: WorkerLink) -> bool:
        return not self._is_closed and worker.is_healthy and link is self._links.get(worker.name)

    def _take_back(self, numbers: Iterable[int]) -> None:
        """Have the ledger know that these tasks were not begun."""
        sent = dict.fromkeys(numbers)
        if sent:
            self.begin(self._recorder.note(Progress(sent=sent)))

    async def _hear_out(
        self, worker: WorkerRecord, link: WorkerLink, batches: AsyncIterator[Batch]
    ) -> None:
        """Settle what comes back of an envelope."""
        try:
            async for batch in batches:
                if link is not self._links.get(worker.name):
                    return
                if batch.pieces:
                    self._hand_on(worker, batch.pieces)
                if batch.outcomes:
                    ended = sum(not one.is_called_back for one in batch.outcomes)
                    worker.window.ended(ended, self._clock.monotonic())
                    self._settle(worker, batch.outcomes)
                    if not worker.held:
                        worker.window.rest()
        except WorkerGone as error:
            self._lose(worker, link, error)

    async def _send_notice(self, worker: WorkerRecord, record: NoticeRecord) -> None:
        link = self._links[worker.name]
        notice = record.notice
        if not worker.gate.is_wide_open:
            notice = msgspec.structs.replace(notice, exchanges=0)
        await self._hear_of(worker, record, link, link.notify(notice))

    async def _hear_of(
        self,
        worker: WorkerRecord,
        record: NoticeRecord,
        link: WorkerLink,
        answer: Awaitable[Outcome],
    ) -> None:
        """Settle what a notice has come to."""
        try:
            outcome = await answer
        except WorkerGone as error:
            self._lose(worker, link, error)
            return
        record.is_heard = True
        if outcome.asked is not None and self.adopt is not None:
            await self._adopt(worker, outcome)
        worker.notices.pop(record.notice.number, None)
        self._settle(worker, [outcome])

    async def _adopt(self, worker: WorkerRecord, outcome: Outcome) -> None:
        assert self.adopt is not None
        try:
            ended = await self.adopt(worker, outcome)
        except LedgerError as error:
            logger.error(  # noqa: TRY400 - the message says it all
                "what worker %r answered to an event is lost: %s", worker.name, error
            )
            if outcome.is_paused:
                self.begin(self._cancel_held(worker.name, [outcome.number]))
            return
        if ended is not None:
            self.record([ended])

    def _settle(self, worker: WorkerRecord, outcomes: list[Outcome]) -> None:
        ended = []
        link, settled_otherwise = self._links.get(worker.name), []
        snapshots: dict[str, str] = {}
        took_tasks = worker.takes_tasks
        is_awaited = any(map(_is_awaited, outcomes))
        was_open = is_awaited and worker.gate.is_wide_open
        self._take_back(one.number for one in outcomes if _cost_nothing(worker, one))
        for outcome in outcomes:
            record = worker.held.get(outcome.number)
            goes_on = record is not None and not record.has_ended
            settled = self._scheduler.settle(worker, outcome)
            self._hedger.settled(worker, outcome, settled)
            if isinstance(settled, Decided):
                ended.append(_ended(settled, outcome))
            else:
                if record is not None and goes_on:
                    self._recorder.keep(record.original or record, outcome)
                settled_otherwise.append(outcome.number)
                if isinstance(settled, Delayed):
                    self._tell_of_delay(worker, settled)
            if outcome.snapshot is not None:
                snapshots[worker.name] = outcome.snapshot
        if was_open and not worker.gate.is_wide_open:
            self._call_back_from(worker.gate)
        if link is not None:
            link.confirm(settled_otherwise)
        self.record(ended, snapshots, told_by=link)
        self._progress[worker.name].set()
        self._moved.set()
        if worker.halted is None:
            self.pump((worker,))  # what the worker has not used may be another's
        else:
            self.settled(self._scheduler.halt(worker, worker.halted))
            if took_tasks:
                self.begin(self._confirm_halt(worker), until_closed=True)

    def _call_back_from(self, gate: Gate) -> None:
        """Have nothing start that was sent ahead through a gate that has closed.

        It comes back as outcomes, and into the lines that it was taken from.
        """
        for worker in self._scheduler.roster:
            if worker.gate is gate and worker.is_healthy and worker.held:
                self.begin(self._call_back(worker, worker.sent))

    def _call_all_back(self) -> None:
        """Have nothing start that was sent ahead: what would come of it could not be kept."""
        for gate in {worker.gate for worker in self._scheduler.roster}:
            self._call_back_from(gate)

    async def _call_back(self, worker: WorkerRecord, count: int) -> None:
        link = self._links[worker.name]
        try:
            await link.call_back(count)
        except WorkerGone as error:
            self._lose(worker, link, error)

    async def _confirm_halt(self, worker: WorkerRecord) -> None:
        """Ask the worker why it has halted, or whether it was resumed since it said so."""
        link, report = self._links.get(worker.name), None
        if link is None:
            return
        while report is None:
            report = await link.status()
            is_same = link is self._links.get(worker.name) and worker.is_healthy
            if worker.halted is None or not is_same:
                return
            if report is None:
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        if report.halted is None:
            self.settled(self._scheduler.resume(worker))
        else:
            worker.halted = report.halted

    def _hand_on(self, worker: WorkerRecord, pieces: list[Piece]) -> None:
        for piece in pieces:
            record = worker.held.get(piece.number)
            for client, ticket in record.watchers if record else ():
                self._desks.put_text(client, ticket, piece.text)

    def _lose(self, worker: WorkerRecord, link: WorkerLink, error: BaseException) -> None:
        if self._is_deaf or not worker.is_healthy or link is not self._links.get(worker.name):
            return
        link.kill()
        self._hedger.lost(worker)
        held = [(one, len(one.deaths)) for one in worker.held.values()]
        dropped = self._scheduler.blame_notice(worker)
        if dropped is not None:
            logger.error(
                "event %d for worker %r is dropped: the worker died each time its agent heard it",
                dropped.number,
                worker.name,
            )
        begun = sum(one.number not in worker.unsent for one, _ in held)
        is_coming_back = self._may_come_back(worker)
        decided = self._scheduler.worker_died(worker, str(error), is_coming_back=is_coming_back)
        self._broadcast.emit(
            "worker.died",
            worker=worker.name,
            role=worker.role,
            reason=type(error).__name__,
            held=len(held),
        )
        deaths = [one.deaths[-1] for one, earlier in held if len(one.deaths) > earlier]
        self._recorder.cut_short(min(begun, worker.concurrency))
        if held:
            sent = {one.number: self._heir(one) for one, _ in held if one.original is None}
            self.begin(self._recorder.note(Progress(sent=sent, deaths=deaths)))
        self.settled(decided)

    def _heir(self, record: TaskRecord) -> int | None:
        """The number of the worker that runs a dead one's task, since it had a copy of it."""
        other = self._scheduler.roster.get(record.worker)
        if other is None or other.held.get(record.number) is not record:
            return None
        return number_of(other.name)

    def _may_come_back(self, worker: WorkerRecord) -> bool:
        """Begin to replace a dead worker, unless its place is given up.

        One of a pool that stops is left to a later start.
        """
        if worker.is_leaving:
            return False
        return self._is_closed or (self.replace is not None and self.replace(worker))

    async def _cancel_held(self, name: str, numbers: list[int]) -> None:
        worker, link = self._scheduler.roster.get(name), self._links.get(name)
        if worker is None or link is None:
            return  # it is gone, and others have what it had
        try:
            dropped = await link.cancel(numbers)
        except WorkerGone as error:
            self._lose(worker, link, error)
            return
        self._hedger.returned(worker, dropped)
        ended = [self._scheduler.drop(worker, number) for number in dropped]
        self.record([Ended(*one) for one in ended if one is not None])
        self._tell_who_waits()
        self.pump((worker,))

    async def _record(
        self, ended: list[Ended], snapshots: dict[str, str], told_by: WorkerLink | None = None
    ) -> None:
        followed = await self._recorder.record(ended, snapshots)
        if told_by is not None:
            told_by.confirm(one.ending.number for one in ended)
        if any(one.record.task.session is not None for one in ended):
            self.record(followed)
            self._tell_who_waits()
            self.pump()

    def _wake(self) -> None:
        """Have what has waited long enough go on, and wake again when more will have."""
        self._timer = None
        ended, _ = self._scheduler.wake()
        self.record([Ended(*one) for one in ended])
        self._tell_who_waits()
        self.pump(self._scheduler.roster)

    def _set_timer(self) -> None:
        """Wake when something goes on by itself, unless that is due already."""
        delay = None if self._is_closed else self._scheduler.due_in()
        if delay is None:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._wake)

    def _tell_of_delay(self, worker: WorkerRecord, delayed: Delayed) -> None:
        if self.on_delay is not None:
            self.on_delay(delayed)
        failure = delayed.failure
        about = {"worker": worker.name, "role": worker.role, "task": delayed.record.task.id}
        if failure.verdict in AWAITED:
            self._broadcast.emit(
                "limit.refused", **about, error_type=failure.type, wait_seconds=delayed.seconds
            )
        else:
            self._broadcast.emit(
                "task.retried",
                **about,
                attempts=delayed.record.tries.in_all,
                kind=failure.kind,
                error_type=failure.type,
                wait_seconds=delayed.seconds,
            )

    def _tell_who_waits(self) -> None:
        """Have every `finish_up_to` look again: a worker may have nothing left to do."""
        self._moved.set()
        for progress in self._progress.values():
            progress.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._until_closed.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("raypool's dispatcher met a defect of its own", exc_info=error)


async def _first_of(asking: Coroutine[Any, Any, None], moving: Coroutine[Any, Any, Any]) -> None:
    """Wait for a worker's answer, or for something to move; for the latter if the worker is gone.

    What was sent after the last task of interest is no reason to wait on.
    """
    answer, move = asyncio.ensure_future(asking), asyncio.ensure_future(moving)
    try:
        await asyncio.wait({answer, move}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and answer.exception() is not None:
            await move
    finally:
        answer.cancel()
        move.cancel()


def _cost_nothing(worker: WorkerRecord, outcome: Outcome) -> bool:
    """Whether the task of an outcome is as it was before it was sent."""
    if not outcome.is_returned and not _is_awaited(outcome):
        return False
    record = worker.held.get(outcome.number)
    if record is None or record.original is not None or record.copy is not None:
        return False
    return not (record.usage.total_tokens or outcome.usage.total_tokens)


def _is_awaited(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.verdict in AWAITED


def _ended(settled: Decided, outcome: Outcome) -> Ended:
    answer, failure = outcome.answer, outcome.failure
    is_beaten = settled.record.task.race is not None and settled.ending.state == "cancelled"
    return Ended(
        *settled,
        events=answer.events if answer else None,
        exception=failure.exception if failure else None,
        parsed=answer.parsed if answer else None,
        was_in_vain=is_beaten and outcome.requests > 0,
    )
