"""The verbs of a pool that look: at results, at workers, at what happens."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

import msgspec
import uuid_utils

from raypool.errors import PoolStopped, RaypoolError, UnknownTask, UnknownWorker
from raypool.future import TaskFuture
from raypool.handle import Handle
from raypool.messages import decode_ended, decode_found
from raypool.naming import number_of
from raypool.records import task_result
from raypool.response import TaskResult, WorkerResults
from raypool.status import PoolStatus
from raypool.stream import Stream
from raypool.telemetry import TelemetryEvent, decode_events
from raypool.unicode import is_unicode
from raypool.verdicts import result_of_found

RESULTS_PAGE = 1_000
REPR_TIMEOUT_SECONDS = 2.0


class Reading(Handle):
    """Looks at a pool, and changes nothing in it."""

    def results(self) -> list[WorkerResults]:
        """Per worker, every task that has ended on it, in the order in which they ended.

        The workers there are now, and those that have gone and have results.
        """
        by_worker: dict[str, list[TaskResult]] = {worker: [] for worker in self.workers}
        for result in self.iter_results():
            if result.worker is not None:
                by_worker.setdefault(result.worker, []).append(result)
        roles: dict[str, str] = self._client.call("workers_ever")
        return [
            WorkerResults(
                worker=worker,
                role=roles.get(worker, ""),
                count=len(by_worker[worker]),
                results=by_worker[worker],
            )
            for worker in sorted(by_worker, key=number_of)
        ]

    def iter_results(self) -> Stream[TaskResult]:
        """Every task that has ended, in the order in which they ended, a page at a time.

        Those whose end is recorded: one that is kept until the ledger can be written comes then.
        Works in `for` and in `async for`.
        """
        return Stream(self._pages())

    def poll(self, id: str) -> TaskResult:  # noqa: A002 - the contract's word
        """One task as it is now.

        Raises:
            UnknownTask: the ledger has no task of that id.
        """
        if not is_unicode(id):
            raise self._unknown(id)
        self._client.flush()
        found = self._client.call("find", id)
        if found is None:
            raise self._unknown(id)
        return result_of_found(decode_found(found))

    def future(self, id: str) -> TaskFuture:  # noqa: A002 - the contract's word
        """The future of a task that anybody submitted.

        Raises:
            UnknownTask: the ledger has no task of that id.
        """
        if not is_unicode(id):
            raise self._unknown(id)
        self._client.flush()
        future = self._client.watch(id)
        if future is None:
            raise self._unknown(id)
        return future

    def conversation(self, session: str) -> list[dict[str, Any]]:
        """What was said in a session so far, as Messages-API messages; none when it is unknown.

        A task's part is there once its end is recorded.
        """
        self._client.flush()
        messages: list[dict[str, Any]] = msgspec.msgpack.decode(
            self._client.call("conversation", session)
        )
        return messages

    @property
    def workers(self) -> dict[str, str]:
        """The names of the workers there are now, by number, each with its role.

        Raises:
            PoolStopped: the pool has stopped.
        """
        workers: dict[str, str] = self._client.call("workers")
        return workers

    def status(self) -> PoolStatus:
        """The pool as it is now; takes milliseconds, also while turns run."""
        status: PoolStatus = self._client.call("status")
        return status

    def __repr__(self) -> str:
        try:
            status: PoolStatus = self._client.call("status", timeout=REPR_TIMEOUT_SECONDS)
        except RaypoolError as error:
            state = "stopped" if isinstance(error, PoolStopped) else "does not answer"
            return f"Pool {self.name!r}: {state}"
        size = len(status.workers)
        parts = [
            f"{size} worker{'s' if size != 1 else ''}",
            f"{status.busy} busy",
            f"{status.queued} queued",
        ]
        if status.cost_usd:
            parts.append(f"${status.cost_usd:.2f}")
        parts += filter(None, map(str, status.limits))
        if status.blocked is not None:
            parts.append(status.blocked)
        return f"Pool {self.name!r}: {', '.join(parts)}"

    def events(self) -> Stream[TelemetryEvent]:
        """What happens in the pool from this call on, as it happens; ends with the pool.

        `raypool.telemetry.EVENTS` lists what there is. A reader that falls 10,000 events
        behind loses the oldest, and gets a `telemetry.dropped`. Works in `for` and in
        `async for`.
        """
        reader = str(uuid_utils.uuid7())
        self._client.call("subscribe", reader)
        return Stream(self._events(reader))

    def _events(self, reader: str) -> Generator[TelemetryEvent, None, None]:
        try:
            while True:
                yield from decode_events(self._client.call("telemetry", reader))
        except PoolStopped:
            return
        finally:
            with suppress(RaypoolError):
                self._client.call("unsubscribe", reader)

    def _pages(self) -> Generator[TaskResult, None, None]:
        after = 0
        while page := decode_ended(self._client.call("ended", after, RESULTS_PAGE)):
            for ended in page:
                yield task_result(ended.task, ended.ending)
            after = page[-1].position

    def _check_worker(self, worker: object) -> None:
        """Raise `UnknownWorker` for what is no worker's name in any pool."""
        if not is_unicode(worker):
            raise UnknownWorker(f"pool {self.name!r} has no worker {worker!r:.600}")

    def _unknown(self, task_id: str) -> UnknownTask:
        return UnknownTask(f"pool {self.name!r} knows no task {task_id!r:.600}")
