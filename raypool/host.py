"""Where an agent lives: an event loop in a thread of its own, with slots for its turns."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from raypool.agent import AgentStart
from raypool.messages import Assignment, Outcome
from raypool.outbox import Envelope, Outbox
from raypool.turns import TurnEngine

BLOCKING_CALLS_PER_SLOT = 2
CANCEL_SECONDS = 1.0
OUTCOMES_UNDER_WAY = 20_000


class AgentHost:
    """Runs the turns of one agent, at most `slots` at once, in the order in which they come.

    Its public methods may be called from any thread, and none of them waits for a
    turn but `wait_finished`.
    """

    def __init__(self, engine: TurnEngine, slots: int) -> None:
        self._engine = engine
        self._slots = slots
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(
            ThreadPoolExecutor(slots * BLOCKING_CALLS_PER_SLOT, thread_name_prefix="raypool-call")
        )
        self._queue: asyncio.Queue[tuple[Assignment, Envelope]] = asyncio.Queue()
        self._outbox = Outbox(self._loop)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()
        self._slot_tasks: list[asyncio.Task[None]] = []
        self._finished = 0
        self._recently_ended: deque[int] = deque(maxlen=OUTCOMES_UNDER_WAY)
        self._progress = threading.Condition()
        self._posting = threading.Lock()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._live, name="raypool-agent", daemon=True)

    def start(self, start: AgentStart) -> None:
        """Initialise the agent; raises what it raises."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(start), self._loop).result()

    def post(self, assignments: list[Assignment]) -> Envelope:
        """Queue tasks; the envelope gives their outcomes, and none once the host stops."""
        envelope = Envelope(len(assignments))
        with self._posting:
            if self._is_stopping:
                envelope.end()
            else:
                self._loop.call_soon_threadsafe(self._enqueue, assignments, envelope)
        return envelope

    def cancel(self, numbers: list[int]) -> list[int]:
        """Interrupt those of these tasks that run; returns those that will never start.

        The others report their outcomes, as do all when the event loop is blocked.
        """
        dropped: Future[list[int]] = Future()
        with suppress(RuntimeError, TimeoutError):  # the loop is closed, or blocked
            self._loop.call_soon_threadsafe(self._cancel, numbers, dropped)
            return dropped.result(CANCEL_SECONDS)
        return []

    @property
    def running(self) -> list[int]:
        """The numbers of the tasks whose turn runs now."""
        return list(self._running)

    @property
    def queued(self) -> int:
        """Tasks that have come and whose turn has not started."""
        return self._queue.qsize()

    @property
    def finished(self) -> int:
        """Attempts that have ended."""
        return self._finished

    def wait_finished(self, count: int) -> None:
        """Wait until `count` attempts have ended since the start."""
        with self._progress:
            self._progress.wait_for(lambda: self._finished >= count)

    def stop(self, grace: float) -> None:
        """Start nothing new, interrupt what runs after `grace` seconds, and end the agent."""
        with self._posting:
            self._is_stopping = True
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(grace), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _begin(self, start: AgentStart) -> None:
        try:
            await self._engine.begin(start)
        except SystemExit as error:  # would end the loop, and leave `start` waiting
            raise RuntimeError(
                f"the agent or its backend called sys.exit({error.code!r})"
            ) from error
        self._slot_tasks = [asyncio.create_task(self._slot()) for _ in range(self._slots)]

    async def _end(self, grace: float) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace)
        for task in self._slot_tasks:
            task.cancel()
        await asyncio.gather(*self._slot_tasks, return_exceptions=True)
        self._outbox.close()
        await self._engine.end()

    def _enqueue(self, assignments: list[Assignment], envelope: Envelope) -> None:
        self._outbox.open(envelope)
        for work in assignments:
            self._queue.put_nowait((work, envelope))

    def _cancel(self, numbers: list[int], dropped: Future[list[int]]) -> None:
        for number in numbers:
            if number in self._running and number not in self._cancelled:
                self._running[number].cancel()
            self._cancelled.add(number)
        started = {*self._running, *self._recently_ended}
        dropped.set_result([number for number in numbers if number not in started])

    async def _slot(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while not self._is_stopping:
            work, envelope = await self._queue.get()
            self._running[work.number] = me
            try:
                outcome = await self._run(work, me)
            finally:
                del self._running[work.number]
            self._report(envelope, outcome)

    async def _run(self, work: Assignment, me: asyncio.Task[None]) -> Outcome:
        if work.number in self._cancelled:
            self._cancelled.discard(work.number)
            return Outcome(work.number)
        try:
            return await self._engine.run(work)
        except asyncio.CancelledError:
            if work.number not in self._cancelled:
                raise
            return Outcome(work.number)
        finally:
            if work.number in self._cancelled:
                self._cancelled.discard(work.number)
                me.uncancel()

    def _report(self, envelope: Envelope, outcome: Outcome) -> None:
        self._outbox.put(envelope, outcome)
        with self._progress:
            self._finished += 1
            self._recently_ended.append(outcome.number)
            self._progress.notify_all()
