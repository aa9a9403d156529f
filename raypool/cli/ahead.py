"""Reading ahead on a thread, so that nobody waits for an input that is slow."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from raypool.cli.problem import Problem

Item = TypeVar("Item")

READ_AHEAD = 1_000
POLL_SECONDS = 0.1


class Ahead(Generic[Item]):
    """The items of `source`, read by a thread; ends early when `stop` is called.

    Raises what `source` raises, where it is iterated.
    """

    def __init__(self, source: Iterable[Item]) -> None:
        self._source = source
        self._read: queue.Queue[Item | _End] = queue.Queue(READ_AHEAD)
        self._has_stopped = threading.Event()

    def stop(self) -> None:
        """Give nothing more; the thread is left to the end of the process."""
        self._has_stopped.set()

    def __iter__(self) -> Iterator[Item]:
        threading.Thread(target=self._keep_reading, name="read-ahead", daemon=True).start()
        while not self._has_stopped.is_set():
            try:
                item = self._read.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                return item.check()
            yield item
        return None

    def _keep_reading(self) -> None:
        try:
            for item in self._source:
                self._read.put(item)
                if self._has_stopped.is_set():
                    return
        except (OSError, Problem) as error:
            self._read.put(_End(error))
        else:
            self._read.put(_End(None))


class _End:
    def __init__(self, error: OSError | Problem | None) -> None:
        self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error
