"""Tasks that are in the ledger only go on as if they had been in memory all the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from raypool.messages import Answer, Asked, Found, HeldTask, Outcome, Submission
from raypool.records import AcceptedTask
from raypool.settling import Decided
from raypool.task_record import TaskRecord
from raypool.telemetry import TelemetryEvent
from tests.house import PATIENCE, House

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.resume()
    yield house
    await house.die()
    await house.ledger.close()


def ask(
    ticket: int, task_id: str | None = None, prompt: str = "why?", **asked: object
) -> Submission:
    return Submission(ticket, task_id or f"task-{ticket}", prompt, **asked)  # type: ignore[arg-type]


def asks(*tickets: int) -> list[Submission]:
    return [ask(ticket) for ticket in tickets]


def hold(house: House) -> None:
    """Have no worker be sent anything."""
    for worker in house.workers:
        worker.halted = "on hold"


def let_go(house: House) -> None:
    for worker in house.workers:
        worker.halted = None
    for worker in house.workers:
        house.sender.settled(house.scheduler.resume(worker))


async def test_tasks_that_exceed_the_room_are_shelved_and_all_of_them_run(house: House) -> None:
    hold(house)

    receipt = await house.submit("mine", *asks(*range(1, 31)))

    assert house.shelved == 24
    assert house.scheduler.unfinished == 30
    assert [worker for _, worker in receipt.workers[5:8]] == ["crew-2", None, None]
    let_go(house)
    await house.finish()
    assert await house.collect("mine") == {n: [n] for n in range(1, 31)}
    assert house.scheduler.unfinished == 0


async def test_each_worker_has_its_tasks_in_the_order_in_which_they_were_asked(
    house: House,
) -> None:
    await house.submit("mine", *asks(*range(1, 41)))
    await house.submit("mine", *asks(*range(41, 61)))
    await house.finish()

    for place, link in enumerate(house.links.values(), start=1):
        sent = [number for envelope in link.envelopes for number in envelope]
        assert sent == list(range(place, 61, 2))


async def test_no_more_tasks_of_a_lane_wait_in_memory_than_there_is_room_for(house: House) -> None:
    in_memory: list[int] = []

    await house.submit("mine", *asks(*range(1, 201)))
    while house.scheduler.unfinished:
        in_memory.append(sum(len(worker.line) for worker in house.workers))
        await asyncio.sleep(0)

    assert max(in_memory) <= house.scheduler.shelves.most


async def test_lanes_share_the_room_and_none_waits_for_another(house: House) -> None:
    hold(house)
    await house.submit("mine", *(ask(n, tenant="big") for n in range(1, 21)))

    await house.submit("mine", ask(21, tenant="small"), ask(22, priority=5))
    let_go(house)
    await house.finish()

    sent = house.sent()
    assert sorted(sent) == list(range(1, 23))
    first_links = [link.envelopes[:4] for link in house.links.values()]
    assert 22 in [number for sent in first_links for envelope in sent for number in envelope]


async def test_bound_tasks_are_never_shelved(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))

    await house.submit(
        "mine", ask(21, session="chat"), ask(22, worker="crew-1"), ask(23, race="a race")
    )

    assert house.shelved == 14
    assert all(house.scheduler.get(f"task-{n}") for n in (21, 22, 23))


async def test_shelved_task_is_cancelled_before_it_is_read(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))

    house.unshelving.cancel_all(["task-15", "task-20", "task-99"])

    await house.reach(lambda: house.scheduler.unfinished == 18)
    assert await house.collect("mine") == {15: [15], 20: [20]}
    assert house.shelved == 12
    let_go(house)
    await house.finish()
    assert sorted(house.sent()) == [n for n in range(1, 21) if n not in (15, 20)]
    assert house.file.totals().cancelled == 2


async def test_task_that_is_cancelled_while_its_page_is_read_ends_once(house: House) -> None:
    hold(house)
    house.file.gate.clear()
    await house.submit("mine", *asks(*range(1, 21)))
    let_go(house)
    await house.reach(lambda: house.scheduler.unfinished - house.shelved <= 2)

    house.unshelving.cancel_all(["task-7", "task-20"])
    house.file.gate.set()
    await house.finish()

    ends = await house.collect("mine")
    assert ends == {n: [n] for n in range(1, 21)}
    assert house.file.totals().cancelled >= 1


async def test_task_that_ends_while_a_watcher_looks_it_up_is_not_run_again(house: House) -> None:
    hold(house)
    house.file.gate.clear()
    await house.submit("mine", *asks(*range(1, 21)))
    let_go(house)
    await house.reach(lambda: house.scheduler.unfinished - house.shelved <= 2)
    house.file.single_gate.clear()
    house.desks.of("yours")
    watching = asyncio.create_task(house.watching.watch("yours", 1, "task-7"))
    await asyncio.sleep(0)

    house.file.gate.set()
    await house.reach(lambda: 7 in house.sent() and house.scheduler.get("task-7") is None)
    house.file.single_gate.set()
    found = await watching
    await house.finish()

    assert found is not None
    assert found.ending is not None
    assert house.sent().count(7) == 1


async def test_task_that_is_being_accepted_is_not_taken_from_a_page(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))
    number = house.intake.take_number()
    await house.submit("mine", ask(22))
    late = TaskRecord(AcceptedTask(number, "late", "why?"))
    house.scheduler.reserve(late)

    assert house.intake.unshelve([late.task]) == []
    assert house.scheduler.get("late") is late


async def test_shelved_task_goes_on_though_its_id_is_being_accepted_again(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))
    again = TaskRecord(AcceptedTask(house.intake.last_number + 1, "task-7", "why?"))
    house.scheduler.reserve(again)
    [page] = house.file.find_all(["task-7"]).values()

    house.intake.unshelve([page.task])

    record = house.scheduler.get("task-7")
    assert record is not None
    assert (record.number, record.watchers) == (7, [("mine", 7)])


async def test_task_of_an_agents_own_is_not_read_as_one_that_is_shelved(house: House) -> None:
    hold(house)
    number = house.intake.take_number()
    await house.submit("mine", *asks(*range(1, 21)))

    asked = Outcome(number, Answer("42", 1.0), asked=Asked("own", "and so?"))
    assert await house.intake.adopt(house.workers[0], asked) is None
    let_go(house)
    settled = house.scheduler.settle(house.workers[0], asked)
    assert isinstance(settled, Decided)
    house.sender.settled([settled])
    await house.finish()

    assert number not in house.sent()
    assert house.file.totals().completed == 21


async def test_all_shelved_tasks_may_be_cancelled(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))

    house.unshelving.cancel_all([f"task-{n}" for n in range(1, 21)])
    let_go(house)
    await house.finish()

    assert house.scheduler.unfinished == 0
    assert house.file.totals().unfinished == 0
    assert set(await house.collect("mine")) == set(range(1, 21))


async def test_wait_ends_with_the_tasks_before_it_though_others_are_shelved(house: House) -> None:
    await house.submit("mine", *asks(*range(1, 31)))
    last = house.intake.last_assigned

    await house.submit("yours", *asks(*range(101, 301)))
    await house.sender.finish_up_to(last)
    await house.ledger.record([])

    assert len(await house.collect("mine")) == 30
    assert house.shelved > 100


async def test_known_id_of_a_shelved_task_joins_it_and_another_question_is_refused(
    house: House,
) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))

    joined = await house.submit("yours", ask(7, "task-20"))
    refused = await house.submit("yours", ask(8, "task-19", "how?"))

    assert joined.workers == [(7, None)]
    assert [one.ticket for one in refused.refusals] == [8]
    assert house.shelved == 14
    let_go(house)
    await house.finish()
    assert await house.collect("yours") == {7: [20]}
    assert (await house.collect("mine"))[20] == [20]
    assert sorted(house.sent()) == list(range(1, 21))


async def test_id_twice_in_a_batch_that_is_shelved_is_one_task(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 7)))

    await house.submit("mine", ask(7, "a"), ask(8, "a"), ask(9, "b"))

    assert house.shelved == 2
    let_go(house)
    await house.finish()
    ends = await house.collect("mine")
    assert (ends[7], ends[8], ends[9]) == ([7], [7], [9])


async def test_shelved_task_is_watched_without_being_read_in(house: House) -> None:
    hold(house)
    await house.submit("mine", *asks(*range(1, 21)))
    house.desks.of("yours")

    found = await house.watching.watch("yours", 1, "task-18")
    await house.watching.watch_all("yours", [(2, "task-19"), (1, "task-18"), (3, "task-99")])

    assert isinstance(found, Found)
    assert (found.task.number, found.worker, found.ending) == (18, None, None)
    assert house.shelved == 14
    let_go(house)
    await house.finish()
    assert await house.collect("yours") == {1: [18], 2: [19]}


async def test_later_run_reads_a_page_of_each_lane_and_goes_on(house: House) -> None:
    hold(house)
    await house.submit("mine", *(ask(n, tenant=f"tenant {n % 2}") for n in range(1, 61)))
    await house.submit("mine", *(ask(n, session="chat") for n in range(61, 66)))

    later = await house.restart()
    later.desks.of("mine")
    await later.resume()

    assert later.scheduler.unfinished == 65
    assert later.scheduler.unfinished - later.shelved <= 6 + 5
    await later.watching.watch_all("mine", [(n, f"task-{n}") for n in range(1, 66)])
    await later.finish()
    assert later.file.totals().unfinished == 0
    assert set(await later.collect("mine")) <= set(range(1, 66))
    await later.die()


async def test_page_that_cannot_be_read_is_asked_for_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.file.failures = 3

    await house.submit("mine", *asks(*range(1, 31)))
    await house.finish()

    assert len(await house.collect("mine")) == 30
    assert len(caplog.messages) == 1


async def test_text_of_a_shelved_task_is_streamed_to_who_asked_for_it(house: House) -> None:
    hold(house)
    for link in house.links.values():
        link.pieces[20] = ["be", "cause"]

    await house.submit("mine", *asks(*range(1, 20)), ask(20, stream=True))

    assert house.shelved == 14
    let_go(house)
    await house.finish()
    assert [one.ticket for one in house.desks.of("mine").take_texts()] == [20]


async def test_every_task_is_told_to_be_accepted_once(house: House) -> None:
    house.broadcast.subscribe("watcher")

    await house.submit("mine", *asks(*range(1, 31)))
    await house.finish()

    events: list[TelemetryEvent] = await house.broadcast.next("watcher", 0.0)
    accepted = [event.task for event in events if event.name == "task.accepted"]
    assert accepted == [f"task-{n}" for n in range(1, 31)]


async def test_status_and_autoscaling_count_what_is_shelved(house: House) -> None:
    hold(house)

    await house.submit("mine", *(ask(n, role="chemist") for n in range(1, 31)))

    assert house.scheduler.waiting_for("chemist") == 24
    assert house.scheduler.unfinished_up_to(10)[None] == 4
    assert house.scheduler.unfinished_up_to(30)[None] == 24
    assert house.scheduler.unassigned == 24


async def test_shelf_that_is_read_as_another_one_is_taken_in_is_read_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House()
    await house.resume()
    hold(house)
    await house.submit("mine", *(ask(n, tenant="one") for n in range(1, 5)), ask(5, tenant="two"))
    successor = await house.restart()
    keeper = successor.workers[1]
    await successor.intake.take_over(keeper, [], [HeldTask(5, "task-5", 1)])

    await successor.resume()
    await successor.finish()

    assert sorted(successor.sent()) == [1, 2, 3, 4, 5]
    assert caplog.messages == []
    await successor.die()
    await successor.ledger.close()


async def test_no_page_is_read_before_all_that_workers_run_is_taken_over() -> None:
    house = House()
    await house.resume()
    hold(house)
    await house.submit("mine", *asks(1, 2))
    successor = await house.restart()
    first, second = successor.workers
    await successor.intake.take_over(first, [HeldTask(1, "task-1", 1)], [])

    decided = successor.scheduler.settle(first, Outcome(1, Answer("42", 1.0)))
    assert isinstance(decided, Decided)
    successor.sender.settled([decided])
    await successor.sender.settle_all(PATIENCE)
    taken, dropped = await successor.intake.take_over(second, [HeldTask(2, "task-2", 1)], [])

    assert (taken, dropped) == ([2], [])
    await successor.die()
    await successor.ledger.close()
