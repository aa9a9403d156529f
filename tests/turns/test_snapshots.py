"""What of an agent's state outlives its process."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import BaseModel

from raypool.agent import Agent, Turn
from raypool.messages import Notice, Outcome
from raypool.response import Response
from raypool.snapshots import restored, snapshot_json
from tests.turns.parts import START, Steps, ask, engine, new_engine, text_of


class State(BaseModel):
    answers: list[str] = []


class Remembering(Agent):
    """Keeps its answers in a pydantic model."""

    def __init__(self) -> None:
        self.state = State()

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.state.answers.append(response.text)

    def handle_event(self, event: Any) -> None:
        self.state.answers.append(event)

    def snapshot(self) -> State:
        return self.state

    def restore(self, snapshot: State) -> None:
        self.state = snapshot


class Listing(Agent):
    """Keeps its answers in plain JSON, with `async` callbacks."""

    def __init__(self, answers: Any = None) -> None:
        self.answers = answers if answers is not None else []

    async def handle_response(self, turn: Turn, response: Response) -> None:
        self.answers.append(response.text)

    async def snapshot(self) -> Any:
        return {"answers": self.answers}

    async def restore(self, snapshot: dict[str, Any]) -> None:
        self.answers = snapshot["answers"]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Remembering, Listing])
async def test_state_is_kept_after_each_task_and_restored_at_the_start(kind: type[Agent]) -> None:
    async with engine(Steps("one", "two"), kind()) as one:
        first, second = await one.run(ask(1)), await one.run(ask(2))
    async with engine(Steps("three"), kind(), snapshot=second.snapshot) as one:
        third = await one.run(ask(3))

    assert first.snapshot == '{"answers":["one"]}'
    assert second.snapshot == '{"answers":["one","two"]}'
    assert third.snapshot == '{"answers":["one","two","three"]}'


@pytest.mark.asyncio
async def test_state_is_kept_after_each_event() -> None:
    async with engine(agent=Remembering()) as one:
        assert await one.hear(Notice(5, "news")) == Outcome(5, snapshot='{"answers":["news"]}')


@pytest.mark.asyncio
async def test_agent_without_a_snapshot_sends_none() -> None:
    async with engine() as one:
        assert (await one.run(ask())).snapshot is None


SAYS_WHAT = (
    r"snapshot must return what JSON can hold \(dicts with text keys.*\) or a pydantic model"
)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), float("nan"), [b"bytes"], {("a", "b"): 1}, {"a": [{1: "b"}]}],
    ids=repr,
)
async def test_snapshot_that_json_cannot_hold_fails_the_start_and_says_what_to_return(
    value: Any,
) -> None:
    one = new_engine(agent=Listing(value))

    with pytest.raises(TypeError, match=SAYS_WHAT):
        await one.begin(START)

    await one.end()


@pytest.mark.asyncio
async def test_later_snapshot_that_json_cannot_hold_is_logged_and_the_older_one_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Spoiling(Listing):
        async def handle_response(self, turn: Turn, response: Response) -> None:
            self.answers.append({1, 2})

    with caplog.at_level(logging.ERROR):
        async with engine(agent=Spoiling()) as one:
            outcome = await one.run(ask())

    assert (text_of(outcome), outcome.snapshot) == ("why?", None)
    assert caplog.messages == ["worker 'crew-1' keeps its older snapshot: the new one failed"]


@pytest.mark.asyncio
async def test_snapshot_of_an_older_model_fails_the_start() -> None:
    one = new_engine(agent=Remembering())

    with pytest.raises(ValueError, match=r"no State any more: .*answers") as raised:
        await one.begin(START, '{"answers": "a secret"}')

    assert "a secret" not in str(raised.value)
    await one.end()


@pytest.mark.parametrize(
    "value", [None, 1, 1.5, "text", [1, [2]], {"a": {"b": None}}, "\N{GRINNING FACE}"], ids=repr
)
def test_what_json_holds_comes_back_as_it_was(value: Any) -> None:
    assert restored(Listing().restore, snapshot_json(value)) == value


def test_agent_that_had_nothing_to_keep_is_given_none() -> None:
    assert restored(Remembering().restore, snapshot_json(None)) is None


def test_annotation_that_names_nothing_says_where_the_model_belongs() -> None:
    class Local(Agent):
        def restore(self, snapshot: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    with pytest.raises(TypeError, match="define the model at the top of the module"):
        restored(Local().restore, "1")
