"""Where an agent lives: an event loop in a thread of its own, with slots for its turns."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from raypool.agent import AgentStart
from raypool.events import AWAITED
from raypool.mailbox import Letter, Mailbox, Parcel, Wish
from raypool.messages import Assignment, Failure, HeldTask, Notice, Outcome, Rejoined
from raypool.outbox import Envelope, Outbox
from raypool.reported import Reported
from raypool.turns import FAREWELL_SECONDS, TurnEngine

logger = logging.getLogger(__name__)

T = TypeVar("T")

BLOCKING_CALLS_PER_SLOT = 2
CONTROL_SECONDS = 1.0
REJOIN_SECONDS = 10.0
OUTCOMES_UNDER_WAY = 20_000
STUCK_SECONDS = 5.0
GUARD_SECONDS = 0.5
LAST_WORDS_SECONDS = 0.5
UNREACHABLE_SECONDS = 1.0


class AgentHost:
    """Runs the turns of one agent, at most `slots` at once, in the order in which they come.

    Its public methods may be called from any thread, and none of them waits for a
    turn but `wait_finished`.

    Args:
        engine: the agent's.
        slots: how many turns run at once.
        give_up: ends the process; called when a turn or a callback still runs
            `stuck_seconds` after it was interrupted, with its outcome reported, or when
            something of the user's keeps the host from stopping.
        stuck_seconds: how long an interrupt may take.
        epoch: which of the pool's dispatchers it works for, counted from 1.
    """

    def __init__(
        self,
        engine: TurnEngine,
        slots: int,
        *,
        give_up: Callable[[], None] = lambda: None,
        stuck_seconds: float = STUCK_SECONDS,
        epoch: int = 1,
    ) -> None:
        self._epoch = epoch
        self._engine = engine
        self._slots = slots
        self._give_up = give_up
        self._stuck_seconds = stuck_seconds
        self._worker = self._role = ""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(
            ThreadPoolExecutor(slots * BLOCKING_CALLS_PER_SLOT, thread_name_prefix="raypool-call")
        )
        self._mailbox = Mailbox(lambda: bool(self._running))
        self._outbox = Outbox(self._loop)
        self._running: dict[int, Letter | Parcel] = {}
        self._unanswered: dict[int, Letter] = {}
        self._quiet = asyncio.Event()
        self._unwanted: dict[int, Outcome] = {}
        self._slot_tasks: list[asyncio.Task[None]] = []
        self._forgetting: set[asyncio.Task[None]] = set()
        self._received = self._called_back = 0
        self._hold: asyncio.TimerHandle | None = None
        self._finished = 0
        self._last_number = 0
        self._reported = Reported(OUTCOMES_UNDER_WAY)
        self._progress = threading.Condition()
        self._posting = threading.Lock()
        self._is_stopping = False
        self._must_have_ended = math.inf
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="raypool-agent", daemon=True)
        engine.halting.on_halt = self._shut
        engine.hear_waiting = self._hear_waiting
        engine.put_text = self._outbox.put_text

    def start(self, start: AgentStart, snapshot: str | None = None) -> None:
        """Initialise the agent; raises what it raises."""
        self._worker, self._role = start.worker, start.role
        self._thread.start()
        begun = asyncio.run_coroutine_threadsafe(self._begin(start, snapshot), self._loop)
        begun.result()
        threading.Thread(target=self._guard, name="raypool-guard", daemon=True).start()

    def post(
        self,
        assignments: list[Assignment],
        *,
        streams: bool = True,
        epoch: int = 1,
        confirmed: Iterable[int] = (),
    ) -> Envelope:
        """Queue tasks; the envelope gives their outcomes, and none once the host stops.

        Nor does it when the dispatcher of that `epoch` has died, and another is here. Of the
        tasks that are `confirmed` the dispatcher has recorded the end.
        """
        envelope = Envelope(len(assignments), streams=streams)
        self._on_loop(envelope, lambda: self._enqueue(assignments, envelope, epoch, confirmed))
        return envelope

    def rejoin(self, epoch: int, notices: list[Notice]) -> Rejoined | None:
        """Work for another dispatcher from now on, since the one before has died; what is here.

        What runs runs on, and is told to who calls `take_over`; what has not started is dropped.
        `notices` are those that the new one will be told of. `None` when the event loop is
        blocked.
        """
        return self._control(lambda: self._rejoin(epoch, notices), None, REJOIN_SECONDS)

    def take_over(self, numbers: list[int], *, epoch: int = 1) -> Envelope:
        """The outcomes of tasks that were begun for an earlier dispatcher.

        One that is not here any more, or not yet, is returned as if it was called back.
        """
        envelope = Envelope(len(numbers))
        self._on_loop(envelope, lambda: self._take_over(numbers, envelope, epoch))
        return envelope

    def notify(self, notice: Notice) -> Future[Outcome]:
        """Have the agent hear an event; its outcome comes once what it led to is dealt with."""
        letter = Letter(notice, Future())
        with self._posting:
            if self._is_stopping:
                letter.outcome.set_result(Outcome(notice.number))
            else:
                self._loop.call_soon_threadsafe(self._receive, letter)
        return letter.outcome

    def interrupt(self) -> int:
        """Interrupt every running turn; how many."""
        self._engine.limits.mark_interrupted()
        return self._control(self._engine.limits.interrupt, 0)

    def resume(self) -> bool:
        """Take tasks again after a halt; whether an outcome has told of that halt."""
        return self._control(self._open, False)

    def cancel(self, numbers: list[int]) -> list[int]:
        """Interrupt those of these tasks that run; returns those that will never start.

        The others report their outcomes, as do all when the event loop is blocked.
        """
        for number in numbers:
            self._engine.limits.mark_interrupted(number)
        return self._control(lambda: self._cancel(numbers), [])

    def recall(self, numbers: list[int]) -> list[int]:
        """Give back those of these tasks that do not run and have not ended; which they are.

        What is kept of one that waits in the middle is dropped. None when the event loop is
        blocked.
        """
        return self._control(lambda: self._recall(numbers), [])

    def call_back(self, count: int) -> None:
        """Return, of the first `count` tasks that come here, what nothing is reserved for.

        That is what waits here now and what is still on its way; what has started runs on. Their
        outcomes say so, and none comes from here.
        """
        self._control(lambda: self._call_back(count), None)

    @property
    def running(self) -> list[int]:
        """The numbers of the tasks whose turn runs now."""
        return list(self._running)

    @property
    def queued(self) -> int:
        """Tasks that have come and whose turn has not started."""
        return len(self._mailbox)

    @property
    def finished(self) -> int:
        """How often a task has been dealt with, for now or for good."""
        return self._finished

    @property
    def halted(self) -> str | None:
        """Why the agent takes no more tasks; `None` while it does."""
        return self._engine.halting.reason

    def wait_finished(self, count: int) -> None:
        """Wait until that is so `count` times for this dispatcher, or there is another."""
        epoch = self._epoch
        with self._progress:
            self._progress.wait_for(lambda: self._finished >= count or self._epoch != epoch)

    def stop(self, grace: float, reason: str = "the pool has stopped") -> None:
        """Start nothing new, interrupt what runs after `grace` seconds, and end the agent."""
        self._must_have_ended = time.monotonic() + grace + FAREWELL_SECONDS + self._stuck_seconds
        with self._posting:
            self._is_stopping = True
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(grace, reason), self._loop).result()
        self._has_ended.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            if not self._has_ended.is_set():
                logger.error("something in worker %r has ended its event loop", self._worker)
                self._give_up()

    def _control(self, act: Callable[[], T], otherwise: T, seconds: float | None = None) -> T:
        """What `act` returns on the event loop; `otherwise` when that is closed, or blocked."""
        done: Future[T] = Future()
        with suppress(RuntimeError, TimeoutError):
            self._loop.call_soon_threadsafe(lambda: done.set_result(act()))
            return done.result(CONTROL_SECONDS if seconds is None else seconds)
        return otherwise

    def _on_loop(self, envelope: Envelope, act: Callable[[], None]) -> None:
        """Do something about an envelope on the event loop; end it once the host stops."""
        with self._posting:
            if self._is_stopping:
                envelope.end()
            else:
                self._loop.call_soon_threadsafe(act)

    async def _begin(self, start: AgentStart, snapshot: str | None) -> None:
        try:
            await self._engine.begin(start, snapshot)
        except SystemExit as error:  # would end the loop, and leave `start` waiting
            raise RuntimeError(
                f"the agent or its backend called sys.exit({error.code!r})"
            ) from error
        except KeyboardInterrupt as error:
            raise RuntimeError("the agent or its backend raised KeyboardInterrupt") from error
        self._slot_tasks = [asyncio.create_task(self._slot()) for _ in range(self._slots)]
        for task in self._slot_tasks:
            task.add_done_callback(self._slot_ended)

    async def _end(self, grace: float, reason: str) -> None:
        self._mailbox.clear()
        if self._running:
            self._quiet.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), grace)
        for task in self._slot_tasks:
            task.cancel()
        await asyncio.gather(*self._slot_tasks, return_exceptions=True)
        for letter in list(self._unanswered.values()):
            self._answer(letter, Outcome(letter.notice.number))
        self._outbox.close()
        await self._engine.end(reason)

    # Tasks

    def _enqueue(
        self,
        assignments: list[Assignment],
        envelope: Envelope,
        epoch: int,
        confirmed: Iterable[int],
    ) -> None:
        if epoch != self._epoch:
            envelope.end()
            return
        self._reported.confirm(confirmed)
        self._outbox.open(envelope)
        for work in assignments:
            parcel = Parcel(work, envelope)
            self._last_number = max(self._last_number, work.number)
            self._received += 1
            if self._mailbox.is_shut:
                self._hand_back(parcel)
            elif work.exchanges is None and self._received <= self._called_back:
                self._give_back(parcel)
            else:
                self._mailbox.put(parcel)

    def _shut(self) -> None:
        """Hand back what has not started, since the agent has halted."""
        for parcel in self._mailbox.shut():
            self._hand_back(parcel)

    def _hand_back(self, parcel: Parcel) -> None:
        """Return a task; the first one tells why, or it would be sent here again."""
        halt = self._engine.halting.take_report()
        self._report(parcel, Outcome(parcel.work.number, is_returned=True, halt=halt))

    def _call_back(self, count: int) -> None:
        self._called_back = count
        for parcel in self._mailbox.take_unreserved():
            self._give_back(parcel)

    def _give_back(self, parcel: Parcel) -> None:
        """Return a task that may be sent here again, unless it is not wanted anyway."""
        number = parcel.work.number
        called_back = Outcome(number, is_returned=True, is_called_back=True)
        self._report(parcel, self._unwanted.pop(number, called_back))

    def _hold_for(self, seconds: float) -> None:
        """Start nothing that waits, or comes, for so long: the provider has asked for it."""
        until = self._loop.time() + seconds
        if self._hold is not None:
            if self._hold.when() >= until:
                return
            self._hold.cancel()
        self._mailbox.hold()
        self._hold = self._loop.call_at(until, self._release)

    def _release(self) -> None:
        self._hold = None
        self._mailbox.release()

    def _open(self) -> bool:
        was_reported = self._engine.resume()
        self._mailbox.open()
        return was_reported

    def _cancel(self, numbers: list[int]) -> list[int]:
        dropped = []
        for number in numbers:
            if number in self._running:
                self._engine.cancel(number)
            elif number not in self._reported:
                self._refuse(Outcome(number))
                dropped.append(number)
        return dropped

    def _recall(self, numbers: list[int]) -> list[int]:
        here = (self._running, self._reported)
        recalled = [one for one in numbers if not any(one in tasks for tasks in here)]
        for number in recalled:
            self._refuse(Outcome(number, is_returned=True))
        return recalled

    def _refuse(self, outcome: Outcome) -> None:
        """Do not start a task that may be on its way; most that come were sent lately."""
        self._forget(outcome.number)
        self._unwanted[outcome.number] = outcome
        if len(self._unwanted) > OUTCOMES_UNDER_WAY:
            del self._unwanted[next(iter(self._unwanted))]

    def _forget(self, number: int) -> None:
        forgetting = self._loop.create_task(self._engine.forget(number))
        self._forgetting.add(forgetting)
        forgetting.add_done_callback(self._forgetting.discard)

    async def _slot(self) -> None:
        while not self._is_stopping:
            match await self._mailbox.get():
                case Parcel(work) as parcel:
                    if work.number in self._unwanted:
                        self._report(parcel, self._unwanted.pop(work.number))
                        continue
                    self._running[work.number] = parcel
                    outcome, item = await self._end_of(work.number, self._engine.run(work))
                    assert isinstance(item, Parcel)
                    self._report(item, outcome)
                case Letter() as letter:
                    await self._hear(letter)
                case Wish(letter, prompt):
                    self._running[letter.notice.number] = letter
                    asked = self._engine.ask(letter.notice, prompt, self._role)
                    self._answer(letter, (await self._end_of(letter.notice.number, asked))[0])

    def _slot_ended(self, slot: asyncio.Task[None]) -> None:
        """Without the slot its tasks would wait for ever."""
        if not slot.cancelled() and (error := slot.exception()) is not None:
            logger.error("raypool's worker met a defect of its own", exc_info=error)
            self._give_up()

    async def _end_of(
        self, number: int, turns: Coroutine[Any, Any, Outcome]
    ) -> tuple[Outcome, Letter | Parcel]:
        """The outcome of a task, and who is to be told of it by then."""
        try:
            outcome = await turns
            return outcome, self._running[number]
        finally:
            del self._running[number]
            if not self._running:
                self._quiet.set()

    def _report(self, parcel: Parcel, outcome: Outcome) -> None:
        self._tell(parcel.envelope, outcome)
        failure = outcome.failure
        if failure is not None and (seconds := _pause_after(failure)):
            self._hold_for(seconds)
        if outcome.answer is not None or not _may_come_again(outcome):
            self._reported.note(parcel.work, outcome)

    def _tell(self, envelope: Envelope, outcome: Outcome) -> None:
        self._outbox.put(envelope, outcome)
        with self._progress:
            self._finished += 1
            self._progress.notify_all()

    # Another dispatcher

    def _rejoin(self, epoch: int, notices: list[Notice]) -> Rejoined:
        self._outbox.abandon()
        self._mailbox.drop_parcels()
        self._unwanted.clear()
        self._received = self._called_back = 0
        with self._progress:
            self._epoch, self._finished = epoch, 0
            self._progress.notify_all()
        self._engine.halting.take_report()
        running = [
            HeldTask.of(one.work) for one in self._running.values() if isinstance(one, Parcel)
        ]
        return Rejoined(
            terms=self._engine.terms,
            begun=[*running, *self._reported.unconfirmed],
            kept=[HeldTask.of(work) for work in self._engine.kept],
            notices=notices,
            halted=self.halted,
            last_number=self._last_number,
        )

    def _take_over(self, numbers: list[int], envelope: Envelope, epoch: int) -> None:
        if epoch != self._epoch:
            envelope.end()
            return
        self._outbox.open(envelope)
        for number in numbers:
            running = self._running.get(number)
            if isinstance(running, Parcel):
                self._running[number] = Parcel(running.work, envelope)
            else:
                absent = Outcome(number, is_returned=True, is_called_back=True)
                self._tell(envelope, self._reported.again(number) or absent)

    # Notices

    def _receive(self, letter: Letter) -> None:
        self._unanswered[letter.notice.number] = letter
        self._last_number = max(self._last_number, letter.notice.number)
        self._mailbox.put(letter)
        self._engine.log.emit("event.received", queued=self._mailbox.letters)

    async def _hear(self, letter: Letter) -> None:
        heard = await self._engine.hear(letter.notice)
        if isinstance(heard, Outcome):
            self._answer(letter, heard)
        else:
            self._mailbox.put(Wish(letter, heard))

    def _hear_waiting(self) -> Awaitable[None] | None:
        return self._hear_all() if self._mailbox.letters else None

    async def _hear_all(self) -> None:
        while (letter := self._mailbox.next_letter()) is not None:
            await self._hear(letter)

    def _answer(self, letter: Letter, outcome: Outcome) -> None:
        self._unanswered.pop(letter.notice.number, None)
        if not letter.outcome.done():
            letter.outcome.set_result(outcome)

    # What cannot be interrupted

    def _guard(self) -> None:
        """End the process when something of the user's cannot be interrupted."""
        while not self._has_ended.wait(GUARD_SECONDS):
            stuck = self._engine.limits.overdue(self._stuck_seconds)
            if stuck:
                self._leave_behind(stuck)
                return
            if time.monotonic() > self._must_have_ended:
                logger.error(
                    "the agent of worker %r or its backend does not end; the worker's process does",
                    self._worker,
                )
                self._give_up()
                return

    def _leave_behind(self, stuck: list[int]) -> None:
        logger.error(
            "a turn or a callback of worker %r still runs %g s after it was interrupted; the "
            "worker's process ends, is replaced, and its other tasks run again",
            self._worker,
            self._stuck_seconds,
        )
        for number in stuck:
            item = self._running.get(number) or self._unanswered.get(number)
            outcome = self._engine.lost(number)
            if isinstance(item, Parcel):
                self._outbox.give_up(item.envelope, [outcome])
            elif item is not None:
                self._answer(item, outcome)
        time.sleep(LAST_WORDS_SECONDS)
        self._give_up()


def _may_come_again(outcome: Outcome) -> bool:
    """Whether the task may be sent here once more."""
    failure = outcome.failure
    return (outcome.is_returned or outcome.is_paused) or (
        failure is not None and (failure.verdict in AWAITED or failure.verdict == "transient")
    )


def _pause_after(failure: Failure) -> float:
    """For how long nothing begins after a failure; by then the dispatcher has it called back."""
    if failure.verdict == "unreachable":
        return UNREACHABLE_SECONDS
    return (failure.retry_after or 0.0) if failure.verdict == "refused" else 0.0
