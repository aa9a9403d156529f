"""What a slot is given next."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from raypool.agent import Prompt
from raypool.mailbox import Item, Letter, Mailbox, Parcel, Wish
from raypool.messages import Assignment, Notice
from raypool.outbox import Envelope

pytestmark = pytest.mark.asyncio


def parcel(number: int) -> Parcel:
    return Parcel(Assignment(number, f"task-{number}", "why?"), Envelope(1))


def letter(number: int) -> Letter:
    return Letter(Notice(number, "news"), Future())


def wish(number: int) -> Wish:
    return Wish(letter(number), Prompt("why?"))


async def test_wishes_come_before_letters_and_letters_before_parcels() -> None:
    mailbox = Mailbox(lambda: False)
    items: list[Item] = [parcel(1), letter(2), wish(3), parcel(4), letter(5), wish(6)]
    for item in items:
        mailbox.put(item)

    given = [await mailbox.get() for _ in items]

    assert given == [items[place] for place in (2, 5, 1, 4, 0, 3)]


async def test_letters_wait_while_a_turn_runs_and_parcels_do_not() -> None:
    is_busy = True
    mailbox = Mailbox(lambda: is_busy)
    news, task = letter(1), parcel(2)
    mailbox.put(news)
    mailbox.put(task)

    assert await mailbox.get() == task
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert (mailbox.letters, mailbox.next_letter()) == (1, news)
    assert mailbox.next_letter() is None
    is_busy = False
    mailbox.put(later := letter(3))
    assert await waiting == later


async def test_shut_mailbox_gives_back_its_parcels_and_gives_out_letters_alone() -> None:
    mailbox = Mailbox(lambda: False)
    first, second, news, asked = parcel(1), parcel(2), letter(3), wish(4)
    for item in (first, second, news, asked):
        mailbox.put(item)

    assert mailbox.shut() == [first, second]
    assert len(mailbox) == 0
    assert await mailbox.get() == news
    waiting = [asyncio.create_task(mailbox.get()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    mailbox.open()
    mailbox.put(later := parcel(5))
    assert [await one for one in waiting] == [asked, later]


async def test_held_mailbox_gives_out_letters_alone_until_it_is_released() -> None:
    mailbox = Mailbox(lambda: False)
    first, news, asked = parcel(1), letter(2), wish(3)
    mailbox.hold()
    for item in (first, news, asked):
        mailbox.put(item)

    assert await mailbox.get() == news
    waiting = [asyncio.create_task(mailbox.get()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    mailbox.open()
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    mailbox.release()
    assert [await one for one in waiting] == [asked, first]


async def test_what_capacity_is_reserved_for_stays_when_the_rest_is_taken() -> None:
    mailbox = Mailbox(lambda: False)
    reserved = Parcel(Assignment(2, "task-2", "why?", exchanges=1), Envelope(1))
    for item in (first := parcel(1), reserved, last := parcel(3)):
        mailbox.put(item)

    assert mailbox.take_unreserved() == [first, last]
    assert (len(mailbox), await mailbox.get()) == (1, reserved)


async def test_slot_that_has_given_up_waiting_loses_nothing() -> None:
    mailbox = Mailbox(lambda: False)
    gone, stays = (asyncio.create_task(mailbox.get()) for _ in range(2))
    await asyncio.sleep(0)

    gone.cancel()
    mailbox.put(task := parcel(1))

    assert await stays == task


async def test_each_waiting_slot_gets_an_item_of_its_own() -> None:
    mailbox = Mailbox(lambda: False)
    slots = [asyncio.create_task(mailbox.get()) for _ in range(3)]
    await asyncio.sleep(0)
    items = [parcel(number) for number in range(3)]

    for item in items:
        mailbox.put(item)

    assert await asyncio.gather(*slots) == items
