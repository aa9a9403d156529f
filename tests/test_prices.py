"""Prices: ours must be the library's, at a fraction of its time."""

from __future__ import annotations

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from raypool.config import Price
from raypool.prices import cost_usd, most_usd
from raypool.usage import Usage

MODELS = (
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-haiku-5-5-20260101",
    "claude-sonnet-4-5",
    "claude-opus-4-6",
    "claude-2",
)
USAGES = (
    Usage(0, 0),
    Usage(1, 1),
    Usage(1000, 200, cache_read_tokens=30, cache_write_tokens=4),
    Usage(0, 0, cache_read_tokens=1000),
    Usage(0, 0, cache_write_tokens=1000),
    Usage(100_000, 500),
    Usage(50_000, 500, cache_read_tokens=50_001),
    Usage(900_000, 9000, cache_write_tokens=100_000),
    Usage(200_000, 500),
    Usage(200_001, 500),
)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("usage", USAGES, ids=str)
def test_the_price_is_the_librarys(model: str, usage: Usage) -> None:
    theirs = genai_prices.Usage(
        input_tokens=usage.total_tokens - usage.output_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    expected = genai_prices.calc_price(theirs, model, provider_id="anthropic").total_price

    assert cost_usd(model, usage) == pytest.approx(float(expected), abs=1e-12)


def test_every_model_that_the_library_prices_has_a_price_here() -> None:
    [provider] = [known for known in get_snapshot().providers if known.id == "anthropic"]

    assert [model.id for model in provider.models if cost_usd(model.id, Usage(1)) is None] == []


def test_each_kind_of_token_has_its_price() -> None:
    kinds = [Usage(1), Usage(0, 1), Usage(0, 0, 1), Usage(0, 0, 0, 1)]

    prices = {cost_usd("claude-sonnet-5-5", usage) for usage in kinds}

    assert len(prices) == 4
    assert all(prices)


@pytest.mark.parametrize("model", ["smollm2", "gpt-4o", "", "my-claude-haiku-5-5"])
def test_a_model_that_anthropic_does_not_sell_has_no_price(model: str) -> None:
    assert cost_usd(model, Usage(1000, 1000)) is None


OWN = Price(input_mtok=1.0, output_mtok=2.0, cache_read_mtok=0.5, cache_write_mtok=4.0)
TABLE = {"my-model": OWN, "claude-haiku-5-5": Price(input_mtok=0.0, output_mtok=0.0)}
MILLION = 1_000_000


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(MILLION), 1.0),
        (Usage(0, MILLION), 2.0),
        (Usage(0, 0, MILLION), 0.5),
        (Usage(0, 0, 0, MILLION), 4.0),
        (Usage(MILLION, MILLION, MILLION, MILLION), 7.5),
    ],
    ids=str,
)
def test_the_users_price_counts_each_kind_of_token(usage: Usage, usd: float) -> None:
    assert cost_usd("my-model", usage, TABLE) == usd


def test_cached_tokens_cost_like_input_where_the_user_says_nothing_of_them() -> None:
    table = {"my-model": Price(input_mtok=3.0, output_mtok=9.0)}

    assert cost_usd("my-model", Usage(0, 0, MILLION, MILLION), table) == 6.0


def test_the_users_price_comes_before_the_known_one_even_when_it_is_nothing() -> None:
    assert cost_usd("claude-haiku-5-5", Usage(1000, 1000), TABLE) == 0.0
    assert cost_usd("claude-sonnet-5-5", Usage(1000), TABLE) == cost_usd(
        "claude-sonnet-5-5", Usage(1000)
    )


@pytest.mark.parametrize("name", ["my-model-mini", "my", "not-my-model"])
def test_the_users_price_holds_for_no_other_model(name: str) -> None:
    assert cost_usd(name, Usage(MILLION), TABLE) is None


@pytest.mark.parametrize("model", ["my-model", "claude-sonnet-5-5", "claude-haiku-5-5"])
@pytest.mark.parametrize("usage", USAGES, ids=str)
def test_no_way_of_caching_costs_more_than_the_most(model: str, usage: Usage) -> None:
    read = usage.total_tokens - usage.output_tokens

    most = most_usd(model, read, usage.output_tokens, TABLE)

    cost = cost_usd(model, usage, TABLE)
    assert most is not None
    assert cost is not None
    assert most >= cost


def test_the_most_is_not_known_where_no_price_is() -> None:
    assert most_usd("gpt-4o", 1000, 1000) is None
