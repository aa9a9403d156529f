"""Text as it is generated: for the agent, and for whoever reads the future."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from raypool import Agent, Interrupted, InvalidTask, Pool, Prompt, Response, SessionOptions
from raypool.agent import Turn
from raypool.backends import Backend, Session
from raypool.events import Event, ResultEvent, TextEvent
from raypool.task import Content

TOKEN_SECONDS = 0.002


class Typing(Backend):
    """Says each word of the prompt in turn, with a pause before it; `N words` says N of them."""

    async def start(self, options: SessionOptions) -> Session:
        return TypingSession()


class TypingSession(Session):
    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        assert isinstance(prompt, str)
        count, what = prompt.split(maxsplit=1)
        for number in range(int(count)):
            await asyncio.sleep(TOKEN_SECONDS)
            yield TextEvent(f"{what}{number} ")
        yield ResultEvent()


def said(count: int, what: str) -> str:
    return "".join(f"{what}{number} " for number in range(count))


class Listening(Agent):
    """Stops its turn at a word that it does not want to hear, and chains where it is told to."""

    def handle_stream_event(self, turn: Turn, event: Event) -> None:
        if isinstance(event, TextEvent) and event.text == "no3 ":
            self.pool.interrupt(self.worker)

    def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
        return Prompt(turn.task.metadata) if turn.task.metadata and turn.number == 1 else None


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    with Pool.start(2, agent=Listening, backend=Typing(), concurrency=20) as pool:
        yield pool


def test_agent_sees_events_as_they_arrive_and_may_stop_the_turn(pool: Pool) -> None:
    started = time.monotonic()

    with pytest.raises(Interrupted):
        pool.submit("5000 no").result(timeout=30)

    assert time.monotonic() - started < 5000 * TOKEN_SECONDS


def test_text_arrives_before_its_task_ends(pool: Pool) -> None:
    future = pool.submit("1000 w", stream=True)

    pieces = [(piece, future.done()) for piece in future.stream()]

    assert "".join(piece for piece, _ in pieces) == future.result().text == said(1000, "w")
    early = [piece for piece, was_done in pieces if not was_done]
    assert len("".join(early)) > len(future.result().text) / 2


def test_a_thousand_tokens_come_in_a_few_dozen_pieces(pool: Pool) -> None:
    future = pool.submit("1000 w", stream=True)

    pieces = list(future.stream())

    assert 5 < len(pieces) < 100


def test_coroutine_reads_many_streams_at_once(pool: Pool) -> None:
    async def read(number: int) -> str:
        future = pool.submit(f"100 {number}w", stream=True)
        return "".join([piece async for piece in future.stream()])

    async def read_all() -> list[str]:
        return await asyncio.gather(*(read(number) for number in range(40)))

    assert asyncio.run(read_all()) == [said(100, f"{number}w") for number in range(40)]


def test_stream_that_nobody_reads_holds_nothing_up(pool: Pool) -> None:
    unread = [pool.submit("200 w", stream=True) for _ in range(10)]

    pool.wait_for_all(timeout=30)

    assert {future.result(timeout=0).text for future in unread} == {said(200, "w")}
    assert "".join(unread[0].stream()) == said(200, "w")


def test_stream_of_a_chain_has_the_text_of_all_its_turns(pool: Pool) -> None:
    future = pool.submit("3 one", stream=True, metadata="3 two")

    assert "".join(future.stream()) == said(3, "one") + said(3, "two")
    assert future.result().text == said(3, "two")


def test_stream_of_a_turn_that_fails_gives_its_text_and_raises(pool: Pool) -> None:
    future = pool.submit("5000 no", stream=True)
    read: list[str] = []

    with pytest.raises(Interrupted):
        read.extend(future.stream())

    assert "".join(read).startswith(said(3, "no"))


def test_task_that_does_not_stream_says_how_to_ask_for_it(pool: Pool) -> None:
    future = pool.submit("3 w")

    with pytest.raises(InvalidTask, match="submit it with stream=True"):
        future.stream()
    assert future.result(timeout=30).text == said(3, "w")
