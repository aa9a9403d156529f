"""What runs under a limit, as the event loop and other threads look at it."""

from __future__ import annotations

import asyncio

import pytest

from raypool.limits import Limits

pytestmark = pytest.mark.asyncio


async def run_turn(limits: Limits, number: int, seconds: float = 60.0) -> str:
    try:
        with limits.turn(number, seconds) as limit:
            await asyncio.Event().wait()
    except TimeoutError:
        return "interrupted" if limit.is_interrupted else "expired"
    return "ended"


async def started(*turns: asyncio.Task[str]) -> None:
    await asyncio.sleep(0)
    assert not any(turn.done() for turn in turns)


async def test_turn_of_a_task_is_interrupted_alone() -> None:
    limits = Limits()
    one, two = (asyncio.create_task(run_turn(limits, number)) for number in (1, 2))
    await started(one, two)

    assert limits.interrupt(1) == 1

    assert await one == "interrupted"
    assert not two.done()
    assert limits.interrupt(1) == 0
    assert limits.interrupt() == 1
    assert await two == "interrupted"


async def test_turn_that_runs_out_of_time_was_not_interrupted() -> None:
    limits = Limits()

    assert await run_turn(limits, 1, 0.01) == "expired"
    assert not limits.is_interrupted(1)
    assert limits.interrupt() == 0


async def test_what_is_to_be_interrupted_is_known_before_the_event_loop_knows() -> None:
    limits = Limits()
    one, two = (asyncio.create_task(run_turn(limits, number)) for number in (1, 2))
    await started(one, two)

    limits.mark_interrupted(1)

    assert limits.overdue(-1.0) == [1]
    assert limits.overdue(60.0) == []
    assert (limits.is_interrupted(1), limits.is_interrupted(2)) == (True, False)
    limits.mark_interrupted()
    assert limits.overdue(-1.0) == [1, 2]
    limits.interrupt()
    assert [await turn for turn in (one, two)] == ["interrupted", "interrupted"]
    assert limits.overdue(-1.0) == []


async def test_callbacks_are_not_interrupted_and_run_out_of_time() -> None:
    limits = Limits()

    async def call_back() -> None:
        with limits.callbacks(1, 0.05):
            await asyncio.Event().wait()

    calling = asyncio.create_task(call_back())
    await asyncio.sleep(0)

    limits.mark_interrupted()
    assert limits.interrupt() == 0
    assert limits.overdue(0.0) == []
    with pytest.raises(TimeoutError):
        await calling


async def test_turn_that_ignores_its_limit_is_overdue() -> None:
    limits, go_on = Limits(), asyncio.Event()

    async def stubborn() -> None:
        with limits.turn(7, 0.01):
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                await go_on.wait()

    turn = asyncio.create_task(stubborn())
    await asyncio.wait({turn}, timeout=0.05)

    assert limits.overdue(0.0) == [7]
    assert limits.overdue(10.0) == []
    go_on.set()
    await turn
    assert limits.overdue(0.0) == []
