"""A ledger for an event loop: what waits is written together, off the loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import tenacity

from raypool.errors import LedgerError
from raypool.ledger import (
    NO_EXTRA,
    NO_PROGRESS,
    Extra,
    KnownTask,
    Ledger,
    Progress,
    Unfit,
    together,
)
from raypool.records import AcceptedTask, Ending

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
PROBE = "probe"
"""The `meta` key that is written to find out whether anything can be."""

T = TypeVar("T")


class GroupCommit:
    """The writes of many callers in few transactions, and reads beside them.

    One thread writes. What is asked while it writes forms the next group, so groups are as large
    as the ledger is slow, and a lone write waits for nobody. Callers are resumed in the order in
    which they asked, once their group is committed. A change of another kind, which `write` takes,
    ends the group before it and is a group of its own. It belongs to one event loop, and owns its
    ledger.

    A group that fails fails all its callers, but those of what must not be lost: endings, with what
    goes with them. They are kept, in order, and their callers wait on: they are written again with
    the next group, or by themselves after a pause; pauses grow to 2 s. What a ledger that works
    cannot hold (`Unfit`) fails its own caller alone, and is not tried again.

    Attributes:
        failure: why nothing can be written; `None` while the last write has worked.
        on_failure: is told so after each write that the ledger failed in.
        on_recovery: is told that it can be written again.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.failure: str | None = None
        self.on_failure: Callable[[str], None] = lambda _: None
        self.on_recovery: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._waiting: deque[_Group | _Change] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failures = 0
        self._pauses: tenacity.wait.wait_base = tenacity.wait_exponential(
            FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
        )
        self._pause: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, "raypool-ledger-writer")
        self._reader = ThreadPoolExecutor(1, "raypool-ledger-reader")

    def accept(
        self, tasks: Sequence[AcceptedTask], *, is_kept: bool = False
    ) -> asyncio.Future[dict[int, KnownTask]]:
        """Queue `tasks` at once; once they are committed, what `Ledger.accept` says of them.

        They are kept as endings are when the answer to them is there already.

        Raises:
            LedgerError: at once after `close`; when awaited, none of them was written.
        """
        return self._join_group(tasks, (), is_kept=is_kept)

    def record(
        self,
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
    ) -> asyncio.Future[None]:
        """Queue all of it at once; resolves once it is committed together.

        However long that takes: it is kept while the ledger fails.

        Raises:
            LedgerError: at once after `close`; when awaited, nothing of it was written, since it
                is `Unfit`, or was still kept at the end.
        """
        is_kept = bool(endings or snapshots) or extra is not NO_EXTRA
        return self._join_group(None, endings, snapshots, extra, is_kept=is_kept)

    def note(
        self, progress: Progress, extra: Extra = NO_EXTRA, *, is_kept: bool = True
    ) -> asyncio.Future[None]:
        """Queue what has happened to tasks at once; resolves once it is committed.

        When it `is_kept`, that may take as long as the ledger fails.

        Raises:
            LedgerError: at once after `close`; when awaited, nothing of it was written.
        """
        return self._join_group(None, (), {}, extra, progress, is_kept=is_kept)

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
        """Write and read what waits, then close the ledger; later calls raise `LedgerError`.

        What is kept is tried once more, and then given up.
        """
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
        *,
        is_kept: bool,
    ) -> asyncio.Future[Any]:
        self._ensure_open()
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, _Group):
            last = _Group([])
            self._waiting.append(last)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        last.writes.append(_Write(tasks, endings, snapshots, extra, progress, is_kept, done))
        self._wake_writer()
        return done

    def _ensure_open(self) -> None:
        if self._closing is not None:
            raise LedgerError("the ledger is closed: its pool has stopped")

    def _wake_writer(self) -> None:
        if self._idle.is_set():
            self._idle.clear()
            if self._pause is not None:
                self._pause.cancel()
            asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        first = self._waiting.popleft()
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._writer, first.write, self._ledger)
        written.add_done_callback(partial(self._finish, first))

    def _finish(self, first: _Group | _Change, written: asyncio.Future[Any]) -> None:
        error = written.exception()
        if error is None:
            self._succeed(first, written.result())
        elif isinstance(error, LedgerError) and not isinstance(error, Unfit):
            self._hold(first, error)
            return
        else:
            self._waiting.extendleft(reversed(first.part(error)))
        if self._waiting:
            self._start_next()
        else:
            self._rest()

    def _succeed(self, first: _Group | _Change, result: Any) -> None:
        first.succeed(result)
        if self.failure is not None:
            self.failure = None
            self._failures = 0
            self.on_recovery()

    def _hold(self, first: _Group | _Change, error: LedgerError) -> None:
        """The ledger fails: what must be written is tried again with the next group, if any."""
        keeps = self._closing is None
        kept = first.fail(error, keeps=keeps)
        while self._waiting and isinstance(self._waiting[0], _Change):
            self._waiting.popleft().fail(error)
        following = self._waiting.popleft() if self._waiting else _Group([])
        assert isinstance(following, _Group)
        self.failure = str(error)
        self._failures += 1
        if following.writes:
            self._waiting.appendleft(_Group([*kept, *following.writes]))
            self._start_next()
        else:
            self._waiting.extend([_Group(kept)] if kept else [])
            self._rest()
        self.on_failure(self.failure)

    def _rest(self) -> None:
        self._idle.set()
        if self.failure is not None and self._closing is None:
            state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
            state.attempt_number = self._failures
            loop = asyncio.get_running_loop()
            self._pause = loop.call_later(self._pauses(state), self._try_again)

    def _try_again(self) -> None:
        if not self._waiting:
            probed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            probed.add_done_callback(asyncio.Future.exception)
            self._waiting.append(_Change(_probe, probed))
        self._wake_writer()

    async def _close(self) -> None:
        await self._idle.wait()
        if self._waiting:
            self._wake_writer()
            await self._idle.wait()
        if self._pause is not None:
            self._pause.cancel()
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
    is_kept: bool
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

    def fail(self, error: BaseException, *, keeps: bool = False) -> list[_Write]:
        """Resume each caller with an error of its own, since each adds its traceback.

        Those whose writes it `keeps` wait on; which they are.
        """
        for write in self.writes:
            if not (keeps and write.is_kept):
                _fail(write.done, error)
        return [write for write in self.writes if keeps and write.is_kept]

    def part(self, error: BaseException) -> list[_Group]:
        """Each write by itself, since one of them is unfit; none when this was the one."""
        if len(self.writes) > 1:
            return [_Group([write]) for write in self.writes]
        self.fail(error)
        return []


class _Change(NamedTuple):
    """A change of another kind, and where its caller waits."""

    write: Callable[[Ledger], Any]
    done: asyncio.Future[Any]

    def succeed(self, result: Any) -> None:
        """Resume the caller with what the change returned."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: BaseException, *, keeps: bool = False) -> list[_Write]:
        """Resume the caller with the error; nothing is kept."""
        del keeps
        _fail(self.done, error)
        return []

    def part(self, error: BaseException) -> list[_Group]:
        """Resume the caller with the error; nothing is left of it."""
        self.fail(error)
        return []


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        is_failure = isinstance(error, LedgerError) and not isinstance(error, Unfit)
        kind = LedgerError if is_failure else Unfit
        failure = kind(str(error) if isinstance(error, LedgerError) else repr(error))
        failure.__cause__ = error
        done.set_exception(failure)


def _probe(ledger: Ledger) -> None:
    """Write something; what is there already would not be written again."""
    ledger.set_meta(PROBE, str(time.time_ns()))
