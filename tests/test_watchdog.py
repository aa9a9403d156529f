"""Limits that share one timer."""

from __future__ import annotations

import asyncio

import pytest

from raypool.watchdog import Limit, Watchdog


def test_what_ends_in_time_is_left_alone() -> None:
    async def work() -> str:
        with Watchdog().limit(5.0) as limit:
            await asyncio.sleep(0)
        assert not limit.has_expired
        return "done"

    assert asyncio.run(work()) == "done"


def test_what_takes_too_long_raises_timeout_error_and_its_task_goes_on() -> None:
    async def work() -> str:
        limit = Watchdog().limit(0.01)
        with pytest.raises(TimeoutError), limit:
            await asyncio.sleep(30)
        assert limit.has_expired
        await asyncio.sleep(0)
        return "went on"

    assert asyncio.run(work()) == "went on"


def test_each_limit_ends_at_its_own_deadline_in_whatever_order_they_began() -> None:
    async def main() -> list[str]:
        watchdog = Watchdog()
        ended: list[str] = []

        async def work(name: str, seconds: float) -> None:
            with pytest.raises(TimeoutError), watchdog.limit(seconds):
                await asyncio.sleep(30)
            ended.append(name)

        await asyncio.gather(work("third", 0.06), work("first", 0.01), work("second", 0.03))
        return ended

    assert asyncio.run(main()) == ["first", "second", "third"]


def test_cancellation_from_elsewhere_stays_a_cancellation() -> None:
    async def main() -> None:
        async def work() -> None:
            with Watchdog().limit(30.0):
                await asyncio.sleep(30)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_error_of_the_work_itself_passes() -> None:
    async def work() -> None:
        with Watchdog().limit(30.0):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(work())


def test_limits_may_be_nested() -> None:
    async def work() -> None:
        watchdog = Watchdog()
        with watchdog.limit(30.0) as outer:
            with pytest.raises(TimeoutError), watchdog.limit(0.01):
                await asyncio.sleep(30)
            await asyncio.sleep(0)
        assert not outer.has_expired

    asyncio.run(work())


def test_interrupt_after_the_deadline_changes_nothing() -> None:
    async def hang(limit: Limit) -> None:
        with limit:
            try:
                await asyncio.sleep(30)
            finally:
                limit.interrupt()
                limit.mark_interrupted(0.0)

    async def work() -> None:
        limit = Watchdog().limit(0.01)
        with pytest.raises(TimeoutError):
            await hang(limit)
        assert (limit.has_expired, limit.is_interrupted, limit.is_marked) == (True, False, False)

    asyncio.run(work())


def test_limit_that_began_last_and_ends_first_is_kept_each_time() -> None:
    async def main() -> None:
        watchdog = Watchdog()

        async def work(seconds: float) -> None:
            with pytest.raises(TimeoutError), watchdog.limit(seconds):
                await asyncio.sleep(30)

        later = asyncio.create_task(work(20.0))
        for _ in range(3):
            await asyncio.create_task(work(0.01))
            assert not later.done()
        later.cancel()

    asyncio.run(main())
