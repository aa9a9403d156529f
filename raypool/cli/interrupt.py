"""Ctrl-C and SIGTERM: once is a clean stop, twice is a quick one, a third time is now."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from raypool.cli.problem import INTERRUPTED
from raypool.cli.progress import Progress
from raypool.interruption import GRACE_SECONDS

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stoppable(Protocol):
    """What a signal stops: a pool."""

    def stop(self, *, grace: float = 0.0) -> None:
        """End, once running turns have had `grace` seconds; a later call without ends at once."""


class Interrupts:
    """Stops a pool when the user asks for it, and remembers that they did.

    Until `watch` is called a signal raises `KeyboardInterrupt`, as ever. On leaving the block
    the handlers are those from before it.
    """

    def __init__(self, progress: Progress) -> None:
        self.count = 0
        self._progress = progress
        self._pool: Stoppable | None = None
        self._stop_reading: Callable[[], None] = _nothing
        self._former: dict[signal.Signals, Any] = {}

    def watch(self, pool: Stoppable, stop_reading: Callable[[], None]) -> None:
        """From now on a signal stops the reading and then `pool`.

        Called after Ray has started, which puts a handler of its own in the way.
        """
        self._pool = pool
        self._stop_reading = stop_reading
        self._install()

    def __enter__(self) -> Self:
        self._former = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            # None stands for a handler that is not Python's, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._pool is None:
            raise KeyboardInterrupt
        if self.count > 2:
            _leave(number, frame)
        threading.Thread(target=self._stop, args=(self._pool, self.count), daemon=True).start()

    def _stop(self, pool: Stoppable, count: int) -> None:
        self._stop_reading()
        if count == 1:
            self._progress.begin("stopping after the running turns, Ctrl-C again stops now")
            pool.stop(grace=GRACE_SECONDS)
        else:
            self._progress.begin("stopping now")
            pool.stop()


def leave_at_once() -> None:
    """From now on a signal ends the process: only Ray is left to be shut down."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _nothing() -> None:
    """What there is to stop before anything has begun."""
