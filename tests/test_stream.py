"""One stream for `for` and for `async for`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import aclosing, closing

import pytest

from raypool.stream import Stream


class Source:
    """A generator that notes how it was read.

    Attributes:
        read: how many items were given.
        is_closed: it was closed, or read to its end.
        threads: where it was read.
    """

    def __init__(self, count: int) -> None:
        self.read = 0
        self.is_closed = False
        self.threads: set[int] = set()
        self._count = count

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self._count):
                self.threads.add(threading.get_ident())
                self.read += 1
                yield number
        finally:
            self.is_closed = True


def broken() -> Generator[int, None, None]:
    yield 0
    raise OSError("no such file")


def test_items_come_in_a_for_loop() -> None:
    assert list(Stream(Source(3).items())) == [0, 1, 2]


@pytest.mark.asyncio
async def test_items_come_in_an_async_for_loop() -> None:
    assert [item async for item in Stream(Source(3).items())] == [0, 1, 2]


@pytest.mark.asyncio
async def test_async_reading_blocks_a_thread_and_not_the_loop() -> None:
    source = Source(1)

    _ = [item async for item in Stream(source.items())]

    assert threading.get_ident() not in source.threads


@pytest.mark.asyncio
async def test_loop_goes_on_while_the_next_item_is_awaited() -> None:
    go_on = threading.Event()

    def slow() -> Generator[int, None, None]:
        go_on.wait()
        yield 1

    reading = asyncio.ensure_future(anext(Stream(slow())))
    for _ in range(10):
        await asyncio.sleep(0)

    assert not reading.done()
    go_on.set()
    assert await reading == 1


@pytest.mark.asyncio
async def test_coroutine_waits_on_no_thread_for_an_item_that_is_not_ready() -> None:
    is_ready = asyncio.Event()
    source = Source(1)

    async def ready() -> None:
        await is_ready.wait()

    reading = asyncio.ensure_future(anext(Stream(source.items(), ready)))
    for _ in range(10):
        await asyncio.sleep(0)

    assert source.threads == set()
    is_ready.set()
    assert await reading == 0


@pytest.mark.asyncio
async def test_stream_may_be_read_both_ways_in_turn() -> None:
    stream = Stream(Source(3).items())

    assert [next(stream), await anext(stream), next(stream)] == [0, 1, 2]


@pytest.mark.asyncio
async def test_stream_that_has_ended_stays_so() -> None:
    stream = Stream(Source(0).items())

    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_error_reaches_a_for_loop() -> None:
    with pytest.raises(OSError, match="no such file"):
        list(Stream(broken()))


@pytest.mark.asyncio
async def test_error_reaches_an_async_for_loop() -> None:
    with pytest.raises(OSError, match="no such file"):
        _ = [item async for item in Stream(broken())]


def test_closed_stream_reads_no_further() -> None:
    source = Source(3)

    with closing(Stream(source.items())) as stream:
        next(stream)

    assert source.is_closed
    assert source.read == 1
    assert list(stream) == []


@pytest.mark.asyncio
async def test_stream_closed_by_a_coroutine_reads_no_further() -> None:
    source = Source(3)

    async with aclosing(Stream(source.items())) as stream:
        await anext(stream)

    assert source.is_closed
    assert source.read == 1


@pytest.mark.asyncio
async def test_stream_whose_reader_was_cancelled_closes_once_its_step_is_done() -> None:
    entered, go_on = threading.Event(), threading.Event()
    is_closed = False

    def slow() -> Generator[int, None, None]:
        nonlocal is_closed
        try:
            entered.set()
            go_on.wait()
            yield 1
        finally:
            is_closed = True

    stream = Stream(slow())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.to_thread(entered.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    closing_it = asyncio.create_task(stream.aclose())
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    await closing_it

    assert is_closed
