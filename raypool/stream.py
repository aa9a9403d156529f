"""One stream of results for `for` and for `async for`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Stream(Generic[T], Iterator[T], AsyncIterator[T]):
    """Wraps a generator so that coroutines can read it too, each step on a thread.

    Readers and those who close it take turns: a step whose coroutine was cancelled goes on
    to its end first.
    """

    def __init__(self, generator: Generator[T, None, None]) -> None:
        self._generator = generator
        self._turn = threading.Lock()

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        with self._turn:
            return next(self._generator)

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        item = await asyncio.to_thread(next, self, _END)
        if item is _END:
            raise StopAsyncIteration
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Read no further."""
        with self._turn:
            self._generator.close()

    async def aclose(self) -> None:
        """Read no further."""
        await asyncio.to_thread(self.close)
