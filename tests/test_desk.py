"""Where deliveries wait for the clients."""

from __future__ import annotations

import asyncio

import pytest

from raypool.clock import FakeClock
from raypool.desk import FORGET_SECONDS, LONGEST_TEXT, TEXT_LINGER_SECONDS, Desk, Desks
from raypool.messages import Delivery, TicketText

pytestmark = pytest.mark.asyncio


def delivery(ticket: int) -> Delivery:
    return Delivery(ticket, None)


async def collecting(desk: Desk) -> asyncio.Task[list[Delivery]]:
    """A `collect` that has begun to wait."""
    task = asyncio.create_task(desk.collect(60.0))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_deliveries_are_collected_once_and_in_their_order() -> None:
    desk = Desk()
    for ticket in (3, 1, 2):
        desk.put(delivery(ticket))

    assert await desk.collect(60.0) == [delivery(3), delivery(1), delivery(2)]
    assert await desk.collect(0.0) == []


async def test_collect_returns_as_soon_as_there_is_something() -> None:
    desk = Desk()
    waiting = await collecting(desk)

    desk.put(delivery(1))
    desk.put(delivery(2))

    assert await waiting == [delivery(1), delivery(2)]


async def test_collect_returns_nothing_when_time_runs_out() -> None:
    assert await Desk().collect(0.01) == []


async def test_delivery_after_a_collect_that_ran_out_of_time_is_kept() -> None:
    desk = Desk()
    await desk.collect(0.01)

    desk.put(delivery(1))

    assert await desk.collect(60.0) == [delivery(1)]


async def test_interrupted_collect_returns_with_what_there_is() -> None:
    desk = Desk()
    waiting = await collecting(desk)

    desk.interrupt()

    assert await waiting == []


async def test_collect_waits_for_news_though_the_last_one_did_not_have_to() -> None:
    desk = Desk()
    desk.put(delivery(1))
    await desk.collect(60.0)

    waiting = await collecting(desk)
    desk.put(delivery(2))

    assert await waiting == [delivery(2)]


async def test_interruption_does_not_outlast_the_collect_that_it_ended() -> None:
    desk = Desk()
    waiting = await collecting(desk)
    desk.interrupt()
    await waiting

    again = await collecting(desk)
    desk.put(delivery(1))

    assert await again == [delivery(1)]


async def test_text_of_a_ticket_is_joined_until_it_is_taken() -> None:
    desk = Desk()
    for ticket, text in ((1, "Pa"), (2, "Ber"), (1, "ris"), (2, "lin")):
        desk.put_text(ticket, text)

    assert await desk.collect(60.0) == []
    assert desk.take_texts() == [TicketText(1, "Paris"), TicketText(2, "Berlin")]
    assert desk.take_texts() == []


async def test_first_text_is_collected_at_once() -> None:
    desk = Desk()
    waiting = await collecting(desk)

    desk.put_text(1, "Pa")
    await asyncio.wait_for(waiting, TEXT_LINGER_SECONDS / 2)

    assert desk.take_texts() == [TicketText(1, "Pa")]


async def test_text_after_the_first_lingers_so_that_a_message_carries_much() -> None:
    desk = Desk()
    desk.put_text(1, "P")
    desk.take_texts()
    started = asyncio.get_running_loop().time()
    waiting = await collecting(desk)

    for letter in "aris":
        desk.put_text(1, letter)
        await asyncio.sleep(0.001)
    assert not waiting.done()
    await waiting

    assert asyncio.get_running_loop().time() - started > TEXT_LINGER_SECONDS / 2
    assert desk.take_texts() == [TicketText(1, "aris")]


async def test_delivery_waits_for_no_text() -> None:
    desk = Desk()
    desk.put_text(1, "Pa")
    desk.take_texts()
    waiting = await collecting(desk)
    desk.put_text(1, "ris")

    desk.put(delivery(1))

    assert await asyncio.wait_for(waiting, TEXT_LINGER_SECONDS / 2) == [delivery(1)]
    assert desk.take_texts() == [TicketText(1, "ris")]


async def test_text_that_was_taken_with_a_delivery_wakes_nobody_later() -> None:
    desk = Desk()
    desk.put_text(1, "Pa")
    desk.take_texts()
    desk.put_text(1, "ris")
    desk.take_texts()

    waiting = await collecting(desk)
    await asyncio.sleep(2 * TEXT_LINGER_SECONDS)

    assert not waiting.done()
    desk.interrupt()
    await waiting


async def test_text_that_became_due_while_nobody_collected_is_collected_at_once() -> None:
    desk = Desk()
    desk.put_text(1, "Pa")
    desk.take_texts()
    desk.put_text(1, "ris")
    await asyncio.sleep(2 * TEXT_LINGER_SECONDS)

    await asyncio.wait_for(desk.collect(60.0), TEXT_LINGER_SECONDS / 2)

    assert desk.take_texts() == [TicketText(1, "ris")]


async def test_text_that_nobody_takes_is_cut_and_has_no_gap_up_to_its_delivery() -> None:
    desk = Desk()
    desk.put_text(1, "x" * (LONGEST_TEXT - 1))
    desk.put_text(1, "yz")
    desk.put_text(1, "dropped")
    desk.put_text(2, "another's")
    taken = desk.take_texts()

    desk.put_text(1, "dropped, too")
    assert desk.take_texts() == []
    desk.put(delivery(1))
    desk.put_text(1, "of a later task")

    assert taken == [TicketText(1, "x" * (LONGEST_TEXT - 1) + "y"), TicketText(2, "another's")]
    assert desk.take_texts() == [TicketText(1, "of a later task")]


async def test_text_is_for_one_client_and_dropped_when_that_is_long_gone() -> None:
    clock = FakeClock()
    desks = Desks(clock)
    mine, yours = desks.of("mine"), desks.of("yours")
    desks.put_text("mine", 1, "Pa")
    desks.put_text("nobody", 1, "Pa")
    assert (mine.take_texts(), yours.take_texts()) == ([TicketText(1, "Pa")], [])
    clock.advance(FORGET_SECONDS + 1)

    desks.put_text("mine", 1, "ris")

    assert mine.take_texts() == []
    assert desks.of("mine") is not mine


async def test_each_client_has_a_desk_of_its_own() -> None:
    desks = Desks(FakeClock())
    mine, yours = desks.of("mine"), desks.of("yours")

    desks.put("mine", delivery(1))

    assert desks.of("mine") is mine
    assert await mine.collect(0.0) == [delivery(1)]
    assert await yours.collect(0.0) == []


async def test_delivery_for_a_client_that_was_never_here_is_dropped() -> None:
    desks = Desks(FakeClock())

    desks.put("nobody", delivery(1))

    assert await desks.of("nobody").collect(0.0) == []


async def test_client_that_leaves_is_forgotten_with_its_deliveries() -> None:
    desks = Desks(FakeClock())
    waiting = await collecting(desks.of("mine"))

    desks.close("mine")
    desks.put("mine", delivery(1))

    assert await waiting == []
    assert await desks.of("mine").collect(0.0) == []


async def test_leaving_twice_is_leaving() -> None:
    desks = Desks(FakeClock())
    desks.of("mine")

    desks.close("mine")
    desks.close("mine")


async def test_every_waiting_client_can_be_interrupted() -> None:
    desks = Desks(FakeClock())
    waiting = [await collecting(desks.of(name)) for name in ("a", "b", "c")]

    desks.interrupt()

    assert await asyncio.gather(*waiting) == [[], [], []]


async def test_client_that_never_comes_back_is_forgotten_when_another_comes() -> None:
    clock = FakeClock()
    desks = Desks(clock)
    gone = desks.of("gone")
    clock.advance(FORGET_SECONDS / 2)
    desks.of("here")
    clock.advance(FORGET_SECONDS / 2 + 1)

    desks.of("new")
    desks.put("gone", delivery(1))
    desks.put("here", delivery(2))

    assert await gone.collect(0.0) == []
    assert await desks.of("here").collect(0.0) == [delivery(2)]


async def test_delivery_for_a_client_that_has_been_away_too_long_is_dropped() -> None:
    clock = FakeClock()
    desks = Desks(clock)
    gone = desks.of("gone")
    clock.advance(FORGET_SECONDS + 1)

    desks.put("gone", delivery(1))

    assert await gone.collect(0.0) == []
    assert desks.of("gone") is not gone


async def test_client_that_is_touched_is_kept_and_one_that_left_stays_away() -> None:
    clock = FakeClock()
    desks = Desks(clock)
    mine, left = desks.of("mine"), desks.of("left")
    desks.close("left")
    clock.advance(FORGET_SECONDS - 1)

    desks.touch("mine")
    desks.touch("left")
    clock.advance(FORGET_SECONDS - 1)
    desks.put("mine", delivery(1))

    assert await mine.collect(0.0) == [delivery(1)]
    assert desks.of("left") is not left


async def test_client_that_calls_again_and_again_is_kept() -> None:
    clock = FakeClock()
    desks = Desks(clock)
    for _ in range(5):
        desk = desks.of("mine")
        clock.advance(FORGET_SECONDS - 1)

    desks.of("new")
    desks.put("mine", delivery(1))

    assert await desk.collect(0.0) == [delivery(1)]


async def test_client_that_was_away_too_long_is_told_once_when_it_is_back() -> None:
    clock = FakeClock()
    desks = Desks(clock)
    desks.of("sleeper")
    assert not desks.was_forgotten("sleeper")

    clock.advance(FORGET_SECONDS + 1)
    desks.put("sleeper", delivery(1))
    desks.of("sleeper")

    assert desks.was_forgotten("sleeper")
    assert not desks.was_forgotten("sleeper")
