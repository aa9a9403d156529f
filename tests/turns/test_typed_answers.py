"""Answers of a type: asked for again until one fits, and what happens when none does."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from raypool.agent import Agent, AgentStart, Prompt, SessionOptions, Turn
from raypool.chain_run import TurnRules
from raypool.errors import TaskFailed
from raypool.events import ResultEvent, TextEvent
from raypool.output_type import OutputType
from raypool.response import Response
from raypool.usage import Usage
from tests.turns.parts import START, Library, Steps, ask, engine, failure_of, new_engine, text_of

pytestmark = pytest.mark.asyncio


class City(BaseModel):
    name: str
    people: int


PARIS = '{"name": "Paris", "people": 2100000}'


class Typed(Agent):
    """Wants its answers to be of a type, and keeps what it is told.

    Attributes:
        parsed: what each response held.
        answers: the texts that did not fit, of each error.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.parsed: list[Any] = []
        self.answers: list[tuple[str, ...]] = []

    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(**self._options)

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.parsed.append(response.parsed)

    def handle_error(self, turn: Turn, error: TaskFailed) -> None:
        self.answers.append(error.cause.answers)


async def test_answer_is_parsed_for_the_agent_and_for_its_client() -> None:
    agent = Typed(output_type=City)

    async with engine(Steps(PARIS), agent) as one:
        outcome = await one.run(ask())

    city = City(name="Paris", people=2100000)
    assert agent.parsed == [city]
    assert outcome.answer is not None
    assert pickle.loads(outcome.answer.parsed or b"") == city


async def test_answer_that_does_not_fit_is_asked_for_again_with_what_is_wrong() -> None:
    backend, agent = Steps("Paris.", '{"name": "Paris"}', PARIS), Typed(output_type=City)

    async with engine(backend, agent) as one:
        outcome = await one.run(ask())

    assert text_of(outcome) == PARIS
    assert "The answer is not JSON" in str(backend.asked[1])
    assert "- people: Field required" in str(backend.asked[2])
    assert "Answer again, with nothing but JSON" in str(backend.asked[2])
    assert (outcome.turns, outcome.usage) == (3, Usage(3, 3))
    assert len(agent.parsed) == 1


@pytest.mark.parametrize(
    ("of_pool", "of_agent", "most"), [(3, None, 3), (2, None, 2), (3, 1, 1)], ids=str
)
async def test_after_so_many_answers_the_turn_fails_and_keeps_them_all(
    of_pool: int, of_agent: int | None, most: int
) -> None:
    agent = Typed(output_type=City, parse_attempts=of_agent)
    backend = Steps("one", "two", "three", "four")

    async with engine(backend, agent, TurnRules(parse_attempts=of_pool)) as one:
        failure = failure_of(await one.run(ask()))

    given = ["one", "two", "three"][:most]
    assert (failure.type, failure.verdict, failure.answers) == ("InvalidAnswer", "invalid", given)
    assert "fit the output type 'City'" in failure.message
    assert agent.answers == [tuple(given)]
    assert len(backend.asked) == most


async def test_type_of_the_task_goes_before_that_of_the_agent() -> None:
    library, agent = Library(list[int]), Typed(output_type=City)
    digest = OutputType.of(list[int]).digest

    async with engine(Steps("[1, 2]", PARIS), agent, library=library) as one:
        typed = await one.run(ask(1, output_type=digest))
        await one.run(ask(2))

    assert agent.parsed == [[1, 2], City(name="Paris", people=2100000)]
    assert typed.answer is not None
    assert typed.answer.parsed is None


async def test_type_that_nobody_knows_fails_the_attempt() -> None:
    async with engine(Steps(PARIS)) as one:
        failure = failure_of(await one.run(ask(output_type="what?")))

    assert (failure.type, failure.verdict) == ("KeyError", "transient")


async def test_refusal_is_not_asked_for_again() -> None:
    refusal = [TextEvent("I will not."), ResultEvent(stop_reason="refusal")]

    async with engine(Steps(refusal), Typed(output_type=City)) as one:
        failure = failure_of(await one.run(ask()))

    assert "the model refused to answer" in failure.message
    assert failure.answers == ["I will not."]


async def test_answer_that_was_cut_is_asked_for_again() -> None:
    cut = [TextEvent(PARIS[:9]), ResultEvent(stop_reason="max_tokens")]

    async with engine(Steps(cut, PARIS), Typed(output_type=City)) as one:
        assert text_of(await one.run(ask())) == PARIS


async def test_each_turn_of_a_chain_has_its_own_answers() -> None:
    class Twice(Typed):
        def handle_response(self, turn: Turn, response: Response) -> Any:
            super().handle_response(turn, response)
            return Prompt("once more") if turn.number == 1 else None

    agent = Twice(output_type=int)
    async with engine(Steps("one", "1", "two", "2"), agent, TurnRules(parse_attempts=2)) as one:
        assert text_of(await one.run(ask())) == "2"

    assert agent.parsed == [1, 2]


class Haunted(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def look_up(cls, name: str) -> str:
        raise LookupError(f"no {name} in the atlas")


async def test_validator_that_breaks_fails_the_turn_for_good() -> None:
    async with engine(Steps('{"name": "Atlantis"}'), Typed(output_type=Haunted)) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.type, failure.verdict) == ("LookupError", "invalid")


async def test_output_type_that_is_none_fails_the_start() -> None:
    one = new_engine(agent=Typed(output_type="City"))

    with pytest.raises(TypeError, match="output_type must be a pydantic model, or another type"):
        await one.begin(START)

    await one.end()
