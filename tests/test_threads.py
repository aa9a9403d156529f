"""Functions of the user's on threads, and what becomes of one whose caller is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raypool.threads import by_itself, to_its_end

pytestmark = pytest.mark.asyncio


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Gate:
    """A function that waits until it is let go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.has_ended = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        self.go_on.wait(10)
        self.has_ended.set()
        return "done"


async def test_functions_return_and_raise_to_their_caller(threads: ThreadPoolExecutor) -> None:
    def divide(left: int, right: int) -> float:
        return left / right

    assert await to_its_end(threads, divide, 4, right=2) == 2
    assert await by_itself(divide, left=4, right=2) == 2
    with pytest.raises(ZeroDivisionError):
        await to_its_end(threads, divide, 4, 0)
    with pytest.raises(ZeroDivisionError):
        await by_itself(divide, left=4, right=0)


@pytest.mark.parametrize("error", [StopIteration("empty"), SystemExit(3)], ids=["stop", "exit"])
async def test_what_no_future_can_hold_is_raised_all_the_same(
    threads: ThreadPoolExecutor, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    async with asyncio.timeout(10):
        for calling in (to_its_end(threads, fail), by_itself(fail)):
            with pytest.raises((RuntimeError, SystemExit)):
                await calling


async def test_cancellation_waits_for_the_end_of_what_runs(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    call = asyncio.create_task(to_its_end(threads, gate))
    await asyncio.to_thread(gate.entered.wait)

    call.cancel()
    ended, _ = await asyncio.wait({call}, timeout=0.02)
    call.cancel()
    assert not ended
    gate.go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert gate.has_ended.is_set()


async def test_what_has_not_started_is_not_waited_for(threads: ThreadPoolExecutor) -> None:
    gate, ran = Gate(), threading.Event()
    first = asyncio.create_task(to_its_end(threads, gate))
    second = asyncio.create_task(to_its_end(threads, ran.set))
    await asyncio.to_thread(gate.entered.wait)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.go_on.set()

    assert await first == "done"
    assert not ran.is_set()


async def test_error_of_what_was_cancelled_is_not_the_callers(threads: ThreadPoolExecutor) -> None:
    go_on = threading.Event()

    def fail() -> Any:
        go_on.wait(10)
        raise LookupError("too late")

    call = asyncio.create_task(to_its_end(threads, fail))
    await asyncio.sleep(0)
    call.cancel()
    go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_function_that_is_left_to_itself_ends_without_its_caller() -> None:
    gate = Gate()
    call = asyncio.create_task(by_itself(gate))
    await asyncio.to_thread(gate.entered.wait)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not gate.has_ended.is_set()

    gate.go_on.set()
    assert await asyncio.to_thread(gate.has_ended.wait, 10)


async def test_functions_by_themselves_do_not_wait_for_one_another() -> None:
    together = threading.Barrier(40)

    places = await asyncio.gather(*(by_itself(together.wait) for _ in range(40)))

    assert sorted(places) == list(range(40))
