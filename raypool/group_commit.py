"""A ledger for an event loop: what waits is written together, off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from raypool.errors import LedgerError
from raypool.ledger import KnownTask, Ledger
from raypool.records import AcceptedTask, Ending

T = TypeVar("T")


class GroupCommit:
    """The writes of many callers in few transactions, and reads beside them.

    One thread writes. What is asked while it writes forms the next group, so groups are as large
    as the ledger is slow, and a lone write waits for nobody. Callers are resumed in the order in
    which they asked, once their group is committed. A group that fails fails all its callers, and
    the next is tried afresh. It belongs to one event loop, and owns its ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[_Write] = []
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
        return self._queue(tasks, ())

    def record(self, endings: Sequence[Ending]) -> asyncio.Future[None]:
        """Queue `endings` at once; resolves once they are committed.

        Raises:
            LedgerError: at once after `close`; when awaited, nothing of the group was written.
        """
        return self._queue(None, endings)

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

    def _queue(
        self, tasks: Sequence[AcceptedTask] | None, endings: Sequence[Ending]
    ) -> asyncio.Future[Any]:
        self._ensure_open()
        loop = asyncio.get_running_loop()
        write = _Write(tasks, endings, loop.create_future())
        self._waiting.append(write)
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._start_group)
        return write.done

    def _ensure_open(self) -> None:
        if self._closing is not None:
            raise LedgerError("the ledger is closed: its pool has stopped")

    def _start_group(self) -> None:
        group, self._waiting = self._waiting, []
        written = asyncio.get_running_loop().run_in_executor(self._writer, self._write, group)
        written.add_done_callback(partial(self._finish_group, group))

    def _write(self, group: Sequence[_Write]) -> dict[int, KnownTask]:
        tasks = list(chain.from_iterable(write.tasks or () for write in group))
        endings = list(chain.from_iterable(write.endings for write in group))
        return self._ledger.write(tasks, endings)

    def _finish_group(
        self, group: Sequence[_Write], written: asyncio.Future[dict[int, KnownTask]]
    ) -> None:
        error = written.exception()
        for write in group:
            if error is None:
                write.succeed(written.result())
            else:
                write.fail(error)
        if self._waiting:
            self._start_group()
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
    done: asyncio.Future[Any]

    def succeed(self, known: dict[int, KnownTask]) -> None:
        """Resume the caller with what the ledger knew of its tasks."""
        if not self.done.done():
            self.done.set_result(self._own(known))

    def fail(self, error: BaseException) -> None:
        """Resume the caller with an error of its own, since each adds its traceback."""
        if not self.done.done():
            failure = LedgerError(str(error) if isinstance(error, LedgerError) else repr(error))
            failure.__cause__ = error
            self.done.set_exception(failure)

    def _own(self, known: dict[int, KnownTask]) -> dict[int, KnownTask] | None:
        if self.tasks is None:
            return None
        numbers = (task.number for task in self.tasks)
        return {number: known[number] for number in numbers if number in known}
