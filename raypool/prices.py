"""What a turn cost, by the prices that the genai-prices library ships; no network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from raypool.config import Price
from raypool.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, TieredPrices

PROVIDER = "anthropic"
FAMILY = "claude"
KNOWN_MODELS = 1024


def cost_usd(model: str, usage: Usage, table: Mapping[str, Price] | None = None) -> float | None:
    """What `usage` of a model costs today, in USD; `None` when its price is not known.

    A price in `table` comes before the library's, which are of Anthropic's models. There,
    tokens written to the prompt cache are priced as kept for five minutes.
    """
    if table and model in table:
        return _cost_by(table[model], usage)
    known = _model_info(model) if FAMILY in model.lower() else None
    if known is None:
        return None
    price = known.get_prices(datetime.now(UTC))
    size = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    uncached = _per_token(price.input_mtok, size)
    return (
        usage.input_tokens * uncached
        + usage.output_tokens * _per_token(price.output_mtok, size)
        + usage.cache_read_tokens * _per_token(price.cache_read_mtok, size, uncached)
        + usage.cache_write_tokens * _per_token(price.cache_write_mtok, size, uncached)
    )


def most_usd(
    model: str, input_tokens: int, output_tokens: int, table: Mapping[str, Price] | None = None
) -> float | None:
    """The most that so many tokens cost, however the input is cached; `None` likewise."""
    ways = (
        Usage(input_tokens, output_tokens),
        Usage(0, output_tokens, cache_read_tokens=input_tokens),
        Usage(0, output_tokens, cache_write_tokens=input_tokens),
    )
    costs = [cost_usd(model, usage, table) for usage in ways]
    return max((cost for cost in costs if cost is not None), default=None)


def _cost_by(price: Price, usage: Usage) -> float:
    read, write = price.cache_read_mtok, price.cache_write_mtok
    dollars = (
        usage.input_tokens * price.input_mtok
        + usage.output_tokens * price.output_mtok
        + usage.cache_read_tokens * (price.input_mtok if read is None else read)
        + usage.cache_write_tokens * (price.input_mtok if write is None else write)
    )
    return dollars / 1_000_000


@lru_cache(maxsize=KNOWN_MODELS)
def _model_info(model: str) -> ModelInfo | None:
    """The library's entry; looked up once, for a lookup costs more than a turn should."""
    import genai_prices  # noqa: PLC0415 - takes half a second

    try:
        return genai_prices.calc_price(genai_prices.Usage(), model, provider_id=PROVIDER).model
    except LookupError:
        return None


def _per_token(
    price: Decimal | TieredPrices | None, input_tokens: int, otherwise: float = 0.0
) -> float:
    """USD per token in a request of `input_tokens`; large requests can be in a dearer tier."""
    if price is None:
        return otherwise
    if not isinstance(price, Decimal):
        tiers = [tier.price for tier in price.tiers if input_tokens > tier.start]
        price = tiers[-1] if tiers else price.base
    return float(price) / 1_000_000
