"""One process's line to a pool's dispatcher: tasks go out in batches, endings come back in them."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any

import msgspec
import ray
import uuid_utils

from raypool.barrier import Barrier
from raypool.errors import LedgerError, PoolFull, PoolStopped, RaypoolError, WaitTimeout
from raypool.future import TaskFuture
from raypool.messages import (
    Delivery,
    Found,
    PoolInfo,
    Receipt,
    TicketText,
    decode_collected,
    decode_deliveries,
    decode_receipt,
    encode,
)
from raypool.names import AGAIN_SECONDS, reach
from raypool.sealing import Sealer, packed_type
from raypool.task import Task, new_task_id
from raypool.verdicts import error_of_refusal, settle

BATCH_SIZE = 2048
CLOSE_SECONDS = 5.0


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Carries tasks to the dispatcher and their endings back to the futures.

    Two threads do it. One sends what has been submitted, one batch under way at a
    time: what is submitted meanwhile joins the next, and the order holds. The other
    collects endings while any future is unresolved.
    """

    def __init__(self, dispatcher: Any, info: PoolInfo) -> None:
        self._dispatcher = dispatcher
        self._info = info
        self._id = str(uuid_utils.uuid7())
        self._sealer = Sealer()
        self._outgoing: deque[msgspec.Raw] = deque()
        self._cancelled: deque[tuple[int, str]] = deque()
        self._futures: dict[int, TaskFuture] = {}
        self._barriers: list[Barrier] = []
        self.resolved = threading.Condition()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._to_send = threading.Event()
        self._to_collect = threading.Event()
        self._epoch = 0
        self._last_ticket = 0
        self._submitted = 0
        self._sent = 0
        self._received = 0
        self._resolving = 0
        self._threads: list[threading.Thread] = []
        self._end: str | None = None
        self._is_closed = False
        self._is_retired = False
        self._unread: list[Any] = []
        _open_clients.add(self)

    def submit(
        self,
        tasks: Sequence[Task],
        *,
        block: bool,
        workers: Sequence[str] = (),
        race: str | None = None,
    ) -> list[TaskFuture]:
        """Hand over checked tasks; waits for room unless told not to.

        With `workers`, one for each task, only that worker may run it. Tasks of the same `race`
        run on different workers.

        Raises:
            InvalidTask: the output type of one of them is none; nothing is handed over.
            PoolFull: there is no room for all of them, and `block` is false.
            PoolStopped: the pool has stopped.
        """
        for task in tasks:
            if task.output_type is not None:
                packed_type(task.output_type)
        pins = iter(workers) if workers else repeat(None)
        futures: list[TaskFuture] = []
        start = 0
        block = block and not self._runs_here()
        while start < len(tasks):
            with self._lock:
                room = self._await_room(len(tasks) - start, block)
                batch = tasks[start : start + room]
                futures += map(self._enqueue, batch, pins, repeat(race))
            self._to_collect.set()
            self._to_send.set()
            start += room
        return futures

    def watch(self, task_id: str) -> TaskFuture | None:
        """A future of a task that the pool knows; `None` when it knows none of that id."""
        with self._lock:
            self._ensure_open()
            self._last_ticket += 1
            ticket = self._last_ticket
            future = TaskFuture(self, task_id)
            self._futures[ticket] = future
        found: Found | None = None
        try:
            found = self.call("watch", self._id, ticket, task_id)
        finally:
            if found is None or found.ending is not None:
                self._forget(ticket)
        if found is None:
            return None
        if found.ending is not None:
            settle(future, Delivery(ticket, found.ending, output_type=found.task.output_type))
        else:
            future.accept(found.worker)
        self._to_collect.set()
        return future

    def cancel(self, task_id: str) -> None:
        """Ask the dispatcher to cancel a task, after what was submitted before."""
        with self._lock:
            self._cancelled.append((self._submitted, task_id))
        self._to_send.set()

    def await_receipt(self, future: TaskFuture, timeout: float | None) -> bool:
        """Wait until the dispatcher has accepted or refused a task; false when time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: future.is_accepted or future.done(), timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was submitted is accepted or refused; false when time ran out."""
        if self._runs_here():
            return False
        with self._changed:
            submitted = self._submitted
            return self._changed.wait_for(
                lambda: self._received >= submitted or self._end is not None, timeout
            )

    def barrier(self) -> Barrier:
        """A barrier that opens when every future of this moment has resolved."""
        with self._lock:
            barrier = Barrier(self._last_ticket, len(self._futures) + self._resolving)
            self._barriers.append(barrier)
            return barrier

    def await_barrier(self, barrier: Barrier, timeout: float | None) -> bool:
        """Wait for a barrier to open; false when time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: barrier.left == 0, timeout)

    def drop_barrier(self, barrier: Barrier) -> None:
        """Count a barrier down no further."""
        with self._lock:
            self._barriers.remove(barrier)

    def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Call the dispatcher and wait for its answer, at most `timeout` seconds.

        One that has died and is started again is asked again.

        Raises:
            PoolStopped: the pool has stopped, or its dispatcher is dead.
            WaitTimeout: no answer came in time.
            RaypoolError: what the dispatcher raised.
        """
        if self._end is None and not ray.is_initialized():
            self.fail("Ray was shut down in this process")
        if self._end is not None:
            raise self._stopped()
        try:
            return self._reach(method, *args, timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            raise WaitTimeout(
                f"the dispatcher of pool {self._info.name!r} did not answer within {timeout:g} s"
            ) from None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RaypoolError):
                raise error.cause from None
            raise
        except ray.exceptions.RayActorError as error:
            self.fail(self._gone(error))
            raise self._stopped() from None

    def _reach(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        return reach(
            self._dispatcher,
            method,
            *args,
            timeout=timeout,
            gives_up=lambda: self._end is not None,
            keep=self._unread.append,
        )

    def fail(self, why: str) -> None:
        """End this client: every future that is unresolved raises `PoolStopped`."""
        with self._lock:
            self._end = self._end or why
            futures = list(self._futures.values())
            self._futures.clear()
            self._outgoing.clear()
            self._cancelled.clear()
        for future in futures:
            future.set_exception(self._stopped())
        with self._changed:
            for barrier in self._barriers:
                barrier.left = 0
            self._changed.notify_all()

    def end(self, why: str) -> None:
        """Take what a pool that has stopped still delivers, and kill its dispatcher."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._futures or self._end is not None, CLOSE_SECONDS
            )
        self.fail(why)
        self._let_threads_end()
        ray.kill(self._dispatcher, no_restart=True)

    def retire(self) -> None:
        """Close as soon as no future is unresolved.

        May run wherever Python collects garbage, so it takes no lock.
        """
        self._is_retired = True
        self._to_collect.set()

    def close(self) -> None:
        """Send what is still here, and end; futures that are unresolved raise `PoolStopped`."""
        if self._is_closed:
            return
        is_in_use = bool(self._threads) and self._end is None
        if is_in_use:
            self.flush(CLOSE_SECONDS)
        self._let_threads_end()
        self.fail(f"this handle of pool {self._info.name!r} is closed; its tasks go on")
        if is_in_use and ray.is_initialized():
            self._dispatcher.leave.remote(self._id)

    def _let_threads_end(self) -> None:
        self._is_closed = True
        self._to_send.set()
        self._to_collect.set()

    def _await_room(self, wanted: int, block: bool) -> int:
        """How many of `wanted` tasks there is room for, at least one; the lock is held."""
        self._ensure_open()
        limit = self._info.max_pending
        if not block and len(self._futures) + wanted > limit:
            raise PoolFull(
                f"pool {self._info.name!r} has {len(self._futures)} unfinished tasks of this "
                f"client, and max_pending={limit} leaves no room for {wanted} more; "
                "await some of their futures first, or raise max_pending"
            )
        self._changed.wait_for(lambda: len(self._futures) < limit or self._end is not None)
        self._ensure_open()
        return min(wanted, limit - len(self._futures))

    def _enqueue(self, task: Task, worker: str | None, race: str | None) -> TaskFuture:
        task_id = task.id or new_task_id()
        sealed = self._sealer.seal(self._last_ticket + 1, task_id, task, worker, race)
        self._last_ticket += 1
        self._submitted += 1
        future = TaskFuture(self, task_id, task)
        self._futures[self._last_ticket] = future
        self._outgoing.append(sealed)
        return future

    def _ensure_open(self) -> None:
        if self._end is not None:
            raise self._stopped()
        if not self._threads:
            self._start_threads()

    def _start_threads(self) -> None:
        for work in (self._keep_sending, self._keep_collecting):
            thread = threading.Thread(target=work, name=f"raypool{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _runs_here(self) -> bool:
        """Whether this is a thread of the client's own, which must not wait for itself."""
        return threading.current_thread() in self._threads

    def _keep_sending(self) -> None:
        with self._failing_together():
            while not self._is_closed:
                self._to_send.wait()
                self._to_send.clear()
                while self._outgoing or self._cancelled:
                    self._send()

    def _keep_collecting(self) -> None:
        with self._failing_together():
            while not self._is_closed:
                self._to_collect.wait()
                if self._is_retired and not self._futures:
                    self.close()
                elif not self._is_closed:
                    self._collect()

    @contextmanager
    def _failing_together(self) -> Iterator[None]:
        """Whatever ends a thread ends the client: nobody waits for what never comes."""
        try:
            yield
        except ray.exceptions.RayError as error:
            self.fail(self._gone(error))
        except Exception as error:  # noqa: BLE001 - Ray raises bare ones as it shuts down
            self.fail(f"this handle of pool {self._info.name!r} failed: {error!r}")

    def _send(self) -> None:
        with self._lock:
            count = min(BATCH_SIZE, len(self._outgoing))
            batch = [self._outgoing.popleft() for _ in range(count)]
            self._sent += count
            cancelled = []
            while self._cancelled and self._cancelled[0][0] <= self._sent:
                cancelled.append(self._cancelled.popleft()[1])
            types = self._sealer.take_types()
        packed = self._reach("submit", self._id, encode(batch), cancelled, types)
        self._take_receipt(decode_receipt(packed), len(batch))

    def _take_receipt(self, receipt: Receipt, count: int) -> None:
        with self._lock:
            self._epoch = self._epoch or receipt.epoch
            for ticket, worker in receipt.workers:
                future = self._futures.get(ticket)
                if future is not None:
                    future.accept(worker)
            refused = [(self._take(one.ticket), one) for one in receipt.refusals]
        for future, refusal in refused:
            if future is not None:
                future.set_exception(error_of_refusal(refusal))
        with self._changed:
            self._received += count
            self._count_down(refusal.ticket for future, refusal in refused if future is not None)
            self._changed.notify_all()

    def _collect(self) -> None:
        collected = decode_collected(self._ask_for_more())
        self._hand_over(collected.texts)
        self._resolve(collected.deliveries)
        if collected.was_forgotten:
            self._epoch = collected.epoch
            self._watch_again()
        if collected.has_stopped:
            self.fail(f"pool {self._info.name!r} has stopped")
            self._let_threads_end()

    def _ask_for_more(self) -> bytes:
        """What `collect` gives; each try says which dispatcher this client knows."""
        while True:
            try:
                packed: bytes = ray.get(self._dispatcher.collect.remote(self._id, self._epoch))
            except ray.exceptions.ActorUnavailableError:
                if self._end is not None:
                    raise
                time.sleep(AGAIN_SECONDS)
            else:
                return packed

    def _watch_again(self) -> None:
        """Ask after every accepted task, since deliveries may have been dropped."""
        with self._lock:
            accepted = [(t, future) for t, future in self._futures.items() if future.is_accepted]
        for start in range(0, len(accepted), BATCH_SIZE):
            piece = accepted[start : start + BATCH_SIZE]
            for _, future in piece:
                future.cut_text()
            asked = [(ticket, future.id) for ticket, future in piece]
            try:
                deliveries = decode_deliveries(self.call("watch_all", self._id, asked))
            except LedgerError as error:
                deliveries = [Delivery(one, None, ledger_error=str(error)) for one, _ in asked]
            self._resolve(deliveries)

    def _hand_over(self, texts: list[TicketText]) -> None:
        for one in texts:
            future = self._futures.get(one.ticket)
            if future is not None:
                future.put_text(one.text)

    def _resolve(self, deliveries: list[Delivery]) -> None:
        with self._lock:
            futures = [self._take(delivery.ticket) for delivery in deliveries]
        for future, delivery in zip(futures, deliveries, strict=True):
            if future is not None:
                settle(future, delivery)
        with self._changed:
            self._count_down(
                delivery.ticket
                for future, delivery in zip(futures, deliveries, strict=True)
                if future is not None
            )
            if not self._futures and not self._is_closed and not self._is_retired:
                self._to_collect.clear()
            self._changed.notify_all()

    def _forget(self, ticket: int) -> None:
        with self._changed:
            if self._take(ticket) is not None:
                self._count_down([ticket])
                self._changed.notify_all()

    def _take(self, ticket: int) -> TaskFuture | None:
        """A future that is about to resolve; `_count_down` follows once it has."""
        future = self._futures.pop(ticket, None)
        self._resolving += future is not None
        return future

    def _count_down(self, tickets: Iterable[int]) -> None:
        for ticket in tickets:
            self._resolving -= 1
            for barrier in self._barriers:
                barrier.resolved(ticket)

    def _stopped(self) -> PoolStopped:
        return PoolStopped(self._end)

    def _gone(self, error: BaseException) -> str:
        return f"the dispatcher of pool {self._info.name!r} is gone: {error}".strip()


@atexit.register
def _close_clients() -> None:
    """Send what is still here before the process, and Ray with it, ends."""
    for client in list(_open_clients):
        with suppress(Exception):
            client.close()
