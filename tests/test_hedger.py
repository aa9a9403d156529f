"""Late tasks that run on a second worker, too: who ends them, and who is interrupted."""

from __future__ import annotations

import asyncio

import pytest

from raypool.messages import Outcome
from raypool.usage import Usage
from tests.test_sender import Floor, answered, failed, no_defect_is_met

__all__ = ["no_defect_is_met"]

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(30)]

SOON = 0.005


async def hedged(floor: Floor, *numbers: int) -> None:
    """Have the first worker be late with the first of these tasks, until the other has a copy."""
    floor.a.gate.clear()
    floor.b.gate.clear()
    floor.accept(*numbers)
    await floor.reach(lambda: numbers[:1] in map(tuple, floor.b.envelopes))


async def test_first_answer_ends_a_late_task_and_the_other_worker_is_interrupted() -> None:
    floor = Floor(after=SOON)
    await hedged(floor, 1)

    floor.b.gate.set()
    await floor.reach(lambda: bool(floor.a.cancelled))

    assert floor.recorder.states == {1: "completed"}
    assert floor.recorder.endings[1].worker == "crew-2"
    assert (floor.a.cancelled, floor.b.cancelled) == ([[1]], [])


async def test_copy_is_interrupted_when_the_first_worker_answers_after_all() -> None:
    floor = Floor(after=SOON)
    await hedged(floor, 1)

    floor.a.gate.set()
    await floor.reach(lambda: bool(floor.b.cancelled))

    assert floor.recorder.endings[1].worker == "crew-1"
    assert (floor.a.cancelled, floor.b.cancelled) == ([], [[1]])


async def test_ledger_knows_that_the_copy_of_a_dead_workers_task_goes_on() -> None:
    floor = Floor(after=SOON)
    await hedged(floor, 1)

    await floor.a.die()
    await floor.reach(lambda: floor.recorder.sent != {1: "crew-2"})

    assert floor.recorder.sent == {1: 2}
    assert floor.recorder.took_back == []
    floor.b.gate.set()
    await floor.finish(1)
    assert floor.recorder.endings[1].worker == "crew-2"


async def test_what_was_spent_in_vain_is_counted_and_told() -> None:
    floor = Floor(after=SOON)
    spent = Usage(input_tokens=30, output_tokens=2)
    floor.a.replies[1] = [Outcome(1, usage=spent, cost_usd=0.5, requests=1)]
    floor.broadcast.subscribe("watcher")
    await hedged(floor, 1)

    floor.b.gate.set()
    await floor.reach(lambda: bool(floor.a.cancelled))
    floor.a.gate.set()
    await floor.finish(1)

    assert (floor.tally.extra_turns, floor.tally.extra_cost_usd) == (1, 0.5)
    assert floor.tally.input_tokens == 30
    told = {event.name: event for event in await floor.broadcast.next("watcher", 0.0)}
    assert told["task.hedged"].worker == "crew-2"
    assert told["task.hedged"].fields["waited_seconds"] >= SOON
    assert told["task.hedge_lost"].worker == "crew-1"
    assert told["task.hedge_lost"].fields == {
        "input_tokens": 30,
        "output_tokens": 2,
        "cost_usd": 0.5,
    }


async def test_late_task_waits_for_a_worker_that_is_free() -> None:
    floor = Floor(after=SOON)
    floor.a.gate.clear()
    floor.b.gate.clear()
    floor.accept(1, 2, 3, 4)
    await asyncio.sleep(2 * SOON)
    assert (floor.a.envelopes, floor.b.envelopes) == ([[1, 3]], [[2, 4]])

    floor.b.gate.set()
    await floor.reach(lambda: bool(floor.a.cancelled))

    assert floor.b.envelopes == [[2, 4], [1]]
    assert floor.recorder.states == dict.fromkeys((1, 2, 4), "completed")


async def test_copy_that_fails_leaves_the_task_to_the_first_worker() -> None:
    floor = Floor(after=SOON)
    floor.b.replies[1] = [failed(1, "invalid")]
    await hedged(floor, 1)

    floor.b.gate.set()
    await floor.reach(lambda: not floor.workers[1].held)
    assert floor.recorder.states == {}
    floor.a.gate.set()
    await floor.finish(1)

    assert floor.recorder.endings[1].worker == "crew-1"
    assert floor.recorder.states == {1: "completed"}


async def test_task_that_fails_on_its_worker_is_left_to_the_copy() -> None:
    floor = Floor(after=SOON)
    floor.a.replies[1] = [failed(1, "invalid")]
    await hedged(floor, 1)

    floor.a.gate.set()
    await floor.reach(lambda: not floor.workers[0].held)
    assert floor.recorder.states == {}
    floor.b.gate.set()
    await floor.finish(1)

    assert floor.recorder.endings[1].worker == "crew-2"
    assert floor.a.envelopes == [[1]]


@pytest.mark.parametrize("dies", ["crew-1", "crew-2"])
async def test_worker_that_dies_leaves_the_task_to_the_other(dies: str) -> None:
    floor = Floor(after=SOON)
    await hedged(floor, 1)
    other = next(name for name in ("crew-1", "crew-2") if name != dies)

    await floor.links[dies].die()
    await floor.reach(lambda: floor.replaced == [dies])
    floor.links[other].gate.set()
    await floor.finish(1)

    assert floor.recorder.endings[1].worker == other
    assert floor.recorder.states == {1: "completed"}


async def test_cancelling_a_task_interrupts_both_its_workers() -> None:
    floor = Floor(after=SOON)
    for link in (floor.a, floor.b):
        link.replies[1] = [Outcome(1)]
    await hedged(floor, 1)
    record = floor.scheduler.get("task-1")
    assert record is not None

    floor.sender.cancel([record])
    await floor.reach(lambda: bool(floor.a.cancelled and floor.b.cancelled))
    floor.a.gate.set()
    floor.b.gate.set()
    await floor.finish(1)

    assert floor.recorder.states == {1: "cancelled"}


async def test_copy_that_was_never_begun_costs_nothing() -> None:
    floor = Floor(after=SOON)
    floor.b.not_started = {1}
    await hedged(floor, 1)

    floor.a.gate.set()
    await floor.reach(lambda: bool(floor.b.cancelled) and not floor.workers[1].held)

    assert floor.tally.extra_turns == 0
    assert floor.recorder.states == {1: "completed"}


async def test_nothing_is_copied_once_the_sender_is_closed() -> None:
    floor = Floor(after=SOON)
    floor.a.gate.clear()
    floor.accept(1)

    floor.sender.close()
    await asyncio.sleep(2 * SOON)

    assert floor.b.envelopes == []


async def test_session_is_never_copied() -> None:
    floor = Floor(after=SOON)
    floor.a.gate.clear()
    floor.a.replies[1] = [answered(1)]
    floor.accept(1, session="s")

    await asyncio.sleep(2 * SOON)

    assert floor.b.envelopes == []
