"""A ledger for an event loop: what waits is written together, off the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from raypool.errors import LedgerError
from raypool.ledger import (
    NO_EXTRA,
    NO_PROGRESS,
    Extra,
    KnownTask,
    Ledger,
    Progress,
    together,
)
from raypool.records import AcceptedTask, Ending

T = TypeVar("T")


class GroupCommit:
    """The writes of many callers in few transactions, and reads beside them.

    One thread writes. What is asked while it writes forms the next group, so groups are as large
    as the ledger is slow, and a lone write waits for nobody. Callers are resumed in the order in
    which they asked, once their group is committed. A group that fails fails all its callers, and
    the next is tried afresh. A change of another kind, which `write` takes, ends the group before
    it and is a group of its own. It belongs to one event loop, and owns its ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[_Group | _Change] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, "raypool-ledger-writer")
        self._reader = ThreadPoolExecutor(1, "raypool-ledger-reader")

    def accept(self, tasks: Sequence[AcceptedTask]) -> asyncio.Future[dict[int, KnownTask]]:
        """Queue `tasks` at once; once they are committed, what `Ledger.accept` says of them.

        Raises:
            LedgerError: at once after `close`; when awaited, nothing of the group was written.
        """
        return self._join_group(tasks, ())

    def record(
        self,
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
    ) -> asyncio.Future[None]:
        """Queue all of it at once; resolves once it is committed together.

        Raises:
            LedgerError: at once after `close`; when awaited, nothing of the group was written.
        """
        return self._join_group(None, endings, snapshots, extra)

    def note(self, progress: Progress, extra: Extra = NO_EXTRA) -> asyncio.Future[None]:
        """Queue what has happened to tasks at once; resolves once it is committed.

        Raises:
            LedgerError: at once after `close`; when awaited, nothing of the group was written.
        """
        return self._join_group(None, (), {}, extra, progress)

    def write(self, change: Callable[[Ledger], T]) -> asyncio.Future[T]:
        """Queue `change`, called with the ledger after what was asked before; what it returns.

        For what is neither a task nor its ending: an output type, a `meta` value.

        Raises:
            LedgerError: at once after `close`; when awaited, also for what else `change` raises.
        """
        self._ensure_open()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Change(change, done))
        self._wake_writer()
        return done

    async def read(self, question: Callable[[Ledger], T]) -> T:
        """What `question` finds in the ledger, on a thread of its own; it must only read.

        Raises:
            LedgerError: the ledger cannot be read, or is closed.
        """
        self._ensure_open()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, question, self._ledger)

    async def close(self) -> None:
        """Write and read what waits, then close the ledger; later calls raise `LedgerError`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def _join_group(
        self,
        tasks: Sequence[AcceptedTask] | None,
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
        progress: Progress = NO_PROGRESS,
    ) -> asyncio.Future[Any]:
        self._ensure_open()
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, _Group):
            last = _Group([])
            self._waiting.append(last)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        last.writes.append(_Write(tasks, endings, snapshots, extra, progress, done))
        self._wake_writer()
        return done

    def _ensure_open(self) -> None:
        if self._closing is not None:
            raise LedgerError("the ledger is closed: its pool has stopped")

    def _wake_writer(self) -> None:
        if self._idle.is_set():
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        first = self._waiting.popleft()
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._writer, first.write, self._ledger)
        written.add_done_callback(partial(self._finish, first))

    def _finish(self, first: _Group | _Change, written: asyncio.Future[Any]) -> None:
        error = written.exception()
        if error is None:
            first.succeed(written.result())
        else:
            first.fail(error)
        if self._waiting:
            self._start_next()
        else:
            self._idle.set()

    async def _close(self) -> None:
        await self._idle.wait()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._reader, self._ledger.close)
        finally:
            self._writer.shutdown(wait=False)
            self._reader.shutdown(wait=False)


class _Write(NamedTuple):
    """What one caller asked to be written, and where it waits."""

    tasks: Sequence[AcceptedTask] | None
    endings: Sequence[Ending]
    snapshots: Mapping[str, str]
    extra: Extra
    progress: Progress
    done: asyncio.Future[Any]

    def own(self, known: dict[int, KnownTask]) -> dict[int, KnownTask] | None:
        """What the ledger knew of this caller's tasks."""
        if self.tasks is None:
            return None
        numbers = (task.number for task in self.tasks)
        return {number: known[number] for number in numbers if number in known}


class _Group(NamedTuple):
    """The writes that share a transaction."""

    writes: list[_Write]

    def write(self, ledger: Ledger) -> dict[int, KnownTask]:
        """Write it all; of a worker's snapshots the last."""
        tasks = list(chain.from_iterable(write.tasks or () for write in self.writes))
        endings = list(chain.from_iterable(write.endings for write in self.writes))
        snapshots: dict[str, str] = {}
        for write in self.writes:
            snapshots.update(write.snapshots)
        extra = NO_EXTRA
        for write in self.writes:
            if write.extra is not NO_EXTRA:
                extra += write.extra
        progress = [one.progress for one in self.writes if one.progress is not NO_PROGRESS]
        return ledger.write(tasks, endings, snapshots, extra, together(progress))

    def succeed(self, known: dict[int, KnownTask]) -> None:
        """Resume each caller with what the ledger knew of its tasks."""
        for write in self.writes:
            if not write.done.done():
                write.done.set_result(write.own(known))

    def fail(self, error: BaseException) -> None:
        """Resume each caller with an error of its own, since each adds its traceback."""
        for write in self.writes:
            _fail(write.done, error)


class _Change(NamedTuple):
    """A change of another kind, and where its caller waits."""

    write: Callable[[Ledger], Any]
    done: asyncio.Future[Any]

    def succeed(self, result: Any) -> None:
        """Resume the caller with what the change returned."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Resume the caller with the error."""
        _fail(self.done, error)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        failure = LedgerError(str(error) if isinstance(error, LedgerError) else repr(error))
        failure.__cause__ = error
        done.set_exception(failure)
