"""Text on its way to the one who reads it: prompt, in order, and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.text_stream import TextPipe

pytestmark = pytest.mark.timeout(30)


async def begun(awaited: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """What has begun to wait."""
    task = asyncio.ensure_future(awaited)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_reader_gets_what_has_come_since_the_last_piece() -> None:
    pipe = TextPipe()
    pieces = pipe.pieces()

    pipe.put("Par")
    pipe.put("is")
    first = next(pieces)
    pipe.put("")
    pipe.put(".")
    pipe.end()

    assert [first, *pieces] == ["Paris", "."]


def test_reader_waits_for_text_and_for_the_end() -> None:
    pipe = TextPipe()
    with ThreadPoolExecutor(1) as aside:
        reading = aside.submit(list, pipe.pieces())
        pipe.put("Paris")
        assert not reading.done()

        pipe.end()

        assert "".join(reading.result()) == "Paris"


def test_text_after_the_end_is_not_read() -> None:
    pipe = TextPipe()
    pipe.end()
    pipe.put("too late")

    assert list(pipe.pieces()) == []


def test_reader_who_stops_is_given_nothing_more() -> None:
    pipe = TextPipe()
    pieces = pipe.pieces()
    pipe.put("Paris")
    next(pieces)

    pieces.close()
    pipe.put(" is")

    assert list(pipe.pieces()) == []


def test_text_beyond_the_bound_is_dropped_and_so_is_all_after_it() -> None:
    pipe = TextPipe(longest_unread=4)
    pieces = pipe.pieces()
    pipe.put("Pa")
    pipe.put("ris")

    first = next(pieces)
    pipe.put("!")
    pipe.end()

    assert [first, *pieces] == ["Pari"]
    assert pipe.rest_of("Paris!") == "s!"


def test_bound_is_on_what_nobody_has_read() -> None:
    pipe = TextPipe(longest_unread=4)
    pieces = pipe.pieces()

    for _ in range(10):
        pipe.put("four")
        assert next(pieces) == "four"


@pytest.mark.parametrize(
    ("streamed", "text", "rest"),
    [
        ("", "Paris", "Paris"),
        ("Paris", "Paris", ""),
        ("Par", "Paris", "is"),
        ("Bonn, no: Paris", "Paris", ""),
        ("Bonn", "Paris", ""),
        ("is", "Paris", ""),
    ],
    ids=["nothing", "all", "beginning", "more", "another", "end"],
)
def test_rest_of_an_answer_is_what_follows_after_what_was_read(
    streamed: str, text: str, rest: str
) -> None:
    pipe = TextPipe()
    pipe.put(streamed)
    pipe.end()
    list(pipe.pieces())

    assert pipe.rest_of(text) == rest


@given(
    pieces=st.lists(st.text(st.characters(exclude_categories=()), max_size=5), max_size=10),
    reads=st.lists(st.booleans(), min_size=10, max_size=10),
    bound=st.integers(1, 10),
)
def test_what_was_read_and_its_rest_are_the_answer(
    pieces: list[str], reads: list[bool], bound: int
) -> None:
    pipe = TextPipe(longest_unread=bound)
    reader, read = pipe.pieces(), []
    unread = 0
    for piece, reads_now in zip(pieces, reads, strict=False):
        pipe.put(piece)
        unread += len(piece)
        if reads_now and unread and not pipe._is_cut:
            read.append(next(reader))
            unread = 0
    pipe.end()
    read += reader

    assert "".join(read) + pipe.rest_of("".join(pieces)) == "".join(pieces)


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["text", "end"])
async def test_coroutine_is_told_when_reading_would_not_wait(what: str) -> None:
    pipe = TextPipe()
    waiting = [await begun(pipe.ready()) for _ in range(2)]

    act = pipe.end if what == "end" else lambda: pipe.put("Paris")
    threading.Thread(target=act).start()

    await asyncio.gather(*waiting)
    await pipe.ready()


@pytest.mark.asyncio
async def test_coroutine_that_waits_no_longer_is_forgotten() -> None:
    pipe = TextPipe()
    waiting = await begun(pipe.ready())

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    pipe.put("Paris")

    await pipe.ready()


def test_text_may_come_after_the_loop_that_waited_for_it() -> None:
    pipe = TextPipe()

    async def give_up() -> None:
        await begun(pipe.ready())

    asyncio.run(give_up())
    pipe.put("Paris")

    assert next(pipe.pieces()) == "Paris"
