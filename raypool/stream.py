"""One stream of results for `for` and for `async for`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Stream(Generic[T], Iterator[T], AsyncIterator[T]):
    """Wraps a generator so that coroutines can read it too, each step on a thread."""

    def __init__(self, generator: Generator[T, None, None]) -> None:
        self._generator = generator

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        return next(self._generator)

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        item = await asyncio.to_thread(next, self._generator, _END)
        if item is _END:
            raise StopAsyncIteration
        return item  # type: ignore[return-value]

    def close(self) -> None:
        """Read no further."""
        self._generator.close()

    async def aclose(self) -> None:
        """Read no further."""
        await asyncio.to_thread(self._generator.close)
