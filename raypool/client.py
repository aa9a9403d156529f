"""One process's line to a pool's dispatcher: tasks go out in batches, endings come back in them."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import ray
import uuid_utils

from raypool.errors import PoolFull, PoolStopped, RaypoolError, WaitTimeout
from raypool.future import TaskFuture
from raypool.messages import (
    Delivery,
    Found,
    PoolInfo,
    Receipt,
    Submission,
    decode_collected,
    decode_receipt,
    encode,
)
from raypool.task import Task, new_task_id
from raypool.verdicts import error_of_delivery, error_of_refusal, response_of_ending

BATCH_SIZE = 2048
CLOSE_SECONDS = 5.0


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Barrier:
    """Counts down as the futures that were open at one moment resolve."""

    def __init__(self, last_ticket: int, left: int) -> None:
        self.last_ticket = last_ticket
        self.left = left


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
        self._outgoing: deque[Submission] = deque()
        self._cancelled: deque[str] = deque()
        self._futures: dict[int, TaskFuture] = {}
        self._barriers: list[Barrier] = []
        self.resolved = threading.Condition()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._to_send = threading.Event()
        self._to_collect = threading.Event()
        self._last_ticket = 0
        self._submitted = 0
        self._received = 0
        self._threads: list[threading.Thread] = []
        self._end: str | None = None
        self._is_closed = False
        self._is_retired = False
        _open_clients.add(self)

    @property
    def unresolved(self) -> int:
        """How many futures of this client are unresolved."""
        return len(self._futures)

    def submit(self, tasks: Sequence[Task], *, block: bool) -> list[TaskFuture]:
        """Hand over checked tasks; waits for room unless told not to.

        Raises:
            PoolFull: there is no room for all of them, and `block` is false.
            PoolStopped: the pool has stopped.
        """
        futures: list[TaskFuture] = []
        start = 0
        while start < len(tasks):
            with self._lock:
                room = self._await_room(len(tasks) - start, block)
                futures += map(self._enqueue, tasks[start : start + room])
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
        found: Found | None = self.call("watch", self._id, ticket, task_id)
        if found is None or found.ending is not None:
            with self._lock:
                self._futures.pop(ticket, None)
        if found is None:
            return None
        if found.ending is not None:
            _settle(future, Delivery(ticket, found.ending))
        else:
            future._worker = found.worker
        future._has_receipt = True
        self._to_collect.set()
        return future

    def cancel(self, task_id: str) -> None:
        """Ask the dispatcher to cancel a task, after what was submitted before."""
        self._cancelled.append(task_id)
        self._to_send.set()

    def await_receipt(self, future: TaskFuture, timeout: float | None) -> bool:
        """Wait until the dispatcher has accepted or refused a task; false when time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: future._has_receipt or future.done(), timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was submitted is accepted or refused; false when time ran out."""
        with self._changed:
            submitted = self._submitted
            return self._changed.wait_for(
                lambda: self._received >= submitted or self._end is not None, timeout
            )

    def barrier(self) -> Barrier:
        """A barrier that opens when every future of this moment has resolved."""
        with self._lock:
            barrier = Barrier(self._last_ticket, len(self._futures))
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

        Raises:
            PoolStopped: the pool has stopped, or its dispatcher is dead.
            WaitTimeout: no answer came in time.
            RaypoolError: what the dispatcher raised.
        """
        if self._end is not None:
            raise self._stopped()
        try:
            return ray.get(getattr(self._dispatcher, method).remote(*args), timeout=timeout)
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

    def fail(self, why: str) -> None:
        """End this client: every future that is unresolved raises `PoolStopped`."""
        with self._lock:
            self._end = self._end or why
            futures = list(self._futures.values())
            self._futures.clear()
            self._outgoing.clear()
            for barrier in self._barriers:
                barrier.left = 0
            self._changed.notify_all()
        for future in futures:
            _set_exception(future, self._stopped())

    def end(self, why: str) -> None:
        """Kill the dispatcher of a pool that has stopped."""
        self.fail(why)
        self._is_closed = True
        self._to_send.set()
        self._to_collect.set()
        ray.kill(self._dispatcher, no_restart=True)

    def retire(self) -> None:
        """Close as soon as no future is unresolved."""
        with self._lock:
            self._is_retired = True
            is_idle = not self._futures
        if is_idle:
            self.close()

    def close(self) -> None:
        """Send what is still here, and end; futures that are unresolved stay so."""
        if self._is_closed:
            return
        if self._threads and self._end is None:
            self.flush(CLOSE_SECONDS)
        self._is_closed = True
        self._to_send.set()
        self._to_collect.set()
        if self._threads and ray.is_initialized():
            self._dispatcher.leave.remote(self._id)

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

    def _enqueue(self, task: Task) -> TaskFuture:
        self._last_ticket += 1
        self._submitted += 1
        task_id = task.id or new_task_id()
        future = TaskFuture(self, task_id, task)
        self._futures[self._last_ticket] = future
        self._outgoing.append(
            Submission(
                self._last_ticket, task_id, task.prompt, task.role, task.metadata, task.timeout
            )
        )
        return future

    def _ensure_open(self) -> None:
        if self._end is not None:
            raise self._stopped()
        if self._is_closed:
            raise PoolStopped(f"this handle of pool {self._info.name!r} is closed")
        if not self._threads:
            self._start_threads()

    def _start_threads(self) -> None:
        for work in (self._keep_sending, self._keep_collecting):
            thread = threading.Thread(target=work, name=f"raypool{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _keep_sending(self) -> None:
        while not self._is_closed:
            self._to_send.wait()
            self._to_send.clear()
            while self._outgoing or self._cancelled:
                try:
                    self._send()
                except ray.exceptions.RayError as error:
                    self.fail(self._gone(error))
                    return

    def _send(self) -> None:
        with self._lock:
            count = min(BATCH_SIZE, len(self._outgoing))
            batch = [self._outgoing.popleft() for _ in range(count)]
            cancelled = [self._cancelled.popleft() for _ in range(len(self._cancelled))]
        ref = self._dispatcher.submit.remote(self._id, encode(batch), cancelled)
        self._take_receipt(decode_receipt(ray.get(ref)), len(batch))

    def _take_receipt(self, receipt: Receipt, count: int) -> None:
        refused = []
        with self._changed:
            for ticket, worker in receipt.workers:
                future = self._futures.get(ticket)
                if future is not None:
                    future._worker = worker
                    future._has_receipt = True
            for refusal in receipt.refusals:
                future = self._pop(refusal.ticket)
                if future is not None:
                    refused.append((future, error_of_refusal(refusal)))
            self._received += count
            self._changed.notify_all()
        for future, error in refused:
            _set_exception(future, error)

    def _keep_collecting(self) -> None:
        while not self._is_closed:
            self._to_collect.wait()
            try:
                reply = ray.get(self._dispatcher.collect.remote(self._id))
            except ray.exceptions.RayError as error:
                self.fail(self._gone(error))
                return
            collected = decode_collected(reply)
            self._resolve(collected.deliveries)
            if collected.has_stopped:
                self.fail(f"pool {self._info.name!r} has stopped")
                return

    def _resolve(self, deliveries: Iterable[Delivery]) -> None:
        with self._changed:
            settled = [(self._pop(delivery.ticket), delivery) for delivery in deliveries]
            is_idle = not self._futures
            if is_idle and not self._is_closed:
                self._to_collect.clear()
        for future, delivery in settled:
            if future is not None:
                _settle(future, delivery)
        with self._changed:
            self._changed.notify_all()
        if is_idle and self._is_retired:
            self.close()

    def _pop(self, ticket: int) -> TaskFuture | None:
        future = self._futures.pop(ticket, None)
        for barrier in self._barriers:
            barrier.left -= future is not None and ticket <= barrier.last_ticket
        return future

    def _stopped(self) -> PoolStopped:
        return PoolStopped(self._end)

    def _gone(self, error: BaseException) -> str:
        return f"the dispatcher of pool {self._info.name!r} is gone: {error}".strip()


def _settle(future: TaskFuture, delivery: Delivery) -> None:
    """Give a future what its task came to."""
    error = error_of_delivery(future.id, delivery)
    ending = delivery.ending
    future._ending = ending
    if ending is not None:
        future._worker = ending.worker
        future._has_receipt = True
    if error is not None:
        _set_exception(future, error)
    elif ending is not None:
        future.set_result(response_of_ending(ending, delivery.events))


def _set_exception(future: TaskFuture, error: BaseException) -> None:
    future._has_receipt = True
    future.set_exception(error)


@atexit.register
def _close_clients() -> None:
    """Send what is still here before the process, and Ray with it, ends."""
    for client in list(_open_clients):
        client.close()
