"""What a worker's turns are limited and priced by, as its backend and its agent tell it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from raypool.agent import Agent, AgentStart, SessionOptions
from raypool.backends import (
    Account,
    AnthropicBackend,
    FunctionBackend,
    LocalBackend,
    ScriptedBackend,
)
from raypool.chain_run import TurnRules
from raypool.config import Price
from raypool.messages import Terms
from raypool.response import Response
from raypool.task import Content
from raypool.terms import terms_of
from raypool.usage import Usage
from tests.turns.parts import START, ask, engine, new_engine

URL = "http://localhost:1"
HAIKU = "claude-haiku-5-5"


async def answer(prompt: Content, options: SessionOptions) -> str:
    return "42"


def terms(backend: Any, *, prices: dict[str, Price] | None = None, **options: Any) -> Terms:
    return terms_of(backend, SessionOptions(**options), prices or {})


def test_terms_of_anthropic_name_account_and_model_and_the_price_is_known() -> None:
    backend = AnthropicBackend(api_key="a-test-key", base_url=URL).prepare()

    found = terms(backend, max_tokens=7)

    account = backend.account()
    assert found == Terms(
        URL, account.key, HAIKU, max_tokens=7, is_priced=True, backend="AnthropicBackend"
    )


@pytest.mark.parametrize(
    ("backend", "model", "is_priced"),
    [
        (ScriptedBackend(), "scripted", True),
        (LocalBackend("smol.gguf"), "smol", True),
        (FunctionBackend(answer), None, False),
        (object(), None, False),
    ],
    ids=["scripted", "local", "function", "one that lacks all that is optional"],
)
def test_backend_without_an_account_is_limited_by_nobody(
    backend: Any, model: str | None, is_priced: bool
) -> None:
    found = terms(backend)

    assert (found.provider, found.key) == ("", "")
    assert (found.model, found.is_priced) == (model, is_priced)
    assert found.max_tokens == 1024


def test_model_that_the_agent_names_goes_before_that_of_the_backend() -> None:
    backend = AnthropicBackend(api_key="a-test-key", base_url=URL).prepare()

    assert terms(backend, model="smol").model == "smol"
    assert not terms(backend, model="smol").is_priced
    assert terms(backend, model="smol", prices={"smol": Price(input_mtok=1, output_mtok=2)}) == (
        Terms(URL, backend.account().key, "smol", 1024, is_priced=True, backend="AnthropicBackend")
    )


def test_attribute_that_is_no_name_is_no_model() -> None:
    class Wrapping(ScriptedBackend):
        model: Any = object()

    assert terms(Wrapping()).model is None


def test_overhead_is_that_of_system_prompt_tools_and_the_type_of_the_answer() -> None:
    class City(BaseModel):
        name: str

    def look(where: str) -> str:
        """Look around."""
        return where

    system = terms(ScriptedBackend(), system="x" * 400).overhead_tokens
    with_tool = terms(ScriptedBackend(), system="x" * 400, tools=[look]).overhead_tokens
    with_all = terms(
        ScriptedBackend(), system="x" * 400, tools=[look], output_type=City
    ).overhead_tokens

    assert terms(ScriptedBackend()).overhead_tokens == 0
    assert system == 100
    assert 110 < with_tool < 200
    assert with_tool + 10 < with_all < with_tool + 100


def test_account_that_is_something_else_is_refused() -> None:
    class Wrong(ScriptedBackend):
        def account(self) -> Any:
            return ("https://example.com", "key")

    with pytest.raises(TypeError, match=r"account\(\) must return an Account or None, got tuple"):
        terms(Wrong())


@pytest.mark.asyncio
async def test_engine_that_has_begun_has_the_terms_of_its_agent() -> None:
    class Billed(ScriptedBackend):
        def account(self) -> Account:
            return Account("https://example.com", "0123")

    class Short(Agent):
        def init_agent(self, start: AgentStart) -> SessionOptions:
            return SessionOptions(system="Be brief.", max_tokens=9)

    async with engine(Billed(), Short()) as one:
        assert one.terms == Terms(
            "https://example.com", "0123", "scripted", 9, 2, is_priced=True, backend="Billed"
        )


@pytest.mark.asyncio
async def test_account_that_raises_keeps_the_worker_from_starting() -> None:
    class Broken(ScriptedBackend):
        def account(self) -> Account:
            raise LookupError("no account")

    one = new_engine(Broken())
    with pytest.raises(LookupError, match="no account"):
        await one.begin(START)
    await one.end()


PRICE = {"smol": Price(input_mtok=1_000_000, output_mtok=2_000_000)}


async def named(prompt: Content, options: SessionOptions) -> Response:
    return Response(text="42", usage=Usage(1, 1), model="smol", cost_usd=99.0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("backend", "prices", "cost_usd"),
    [
        (FunctionBackend(named), PRICE, 3.0),
        (FunctionBackend(named), None, 99.0),
        (ScriptedBackend(), {"scripted": PRICE["smol"]}, 3.0),
        (ScriptedBackend(), PRICE, 0.0),
    ],
    ids=["the table's", "the function's", "a script's", "a script that the table does not name"],
)
async def test_price_in_the_table_of_the_pool_holds_for_any_backend(
    backend: Any, prices: dict[str, Price] | None, cost_usd: float
) -> None:
    seen: list[float | None] = []

    class Counting(Agent):
        def handle_response(self, turn: Any, response: Any) -> None:
            seen.append(response.cost_usd)
            seen.append(response.events[-1].cost_usd)

    rules = TurnRules(turn_timeout=10.0, prices=prices)
    async with engine(backend, Counting(), rules) as one:
        outcome = await one.run(ask())

    assert outcome.cost_usd == cost_usd
    assert seen == [cost_usd, cost_usd]


@pytest.mark.asyncio
async def test_model_that_was_asked_for_has_the_price_where_the_answering_one_has_none() -> None:
    class Dated(Agent):
        def init_agent(self, start: AgentStart) -> SessionOptions:
            return SessionOptions(model="smol")

    async with engine(ScriptedBackend(), Dated(), TurnRules(prices=PRICE)) as one:
        outcome = await one.run(ask())

    assert outcome.cost_usd == 3.0
