"""What a turn cost, by the prices that the genai-prices library ships; no network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from raypool.config import Price
from raypool.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

PROVIDER = "anthropic"
FAMILY = "claude"
KNOWN_MODELS = 1024
MILLION = 1_000_000


class Tier(NamedTuple):
    """What a million tokens of each kind cost in USD, in requests from some size on.

    Attributes:
        above: the input of such a request has more tokens than that.
        uncached: input at full price.
        output: what is generated.
        cache_read: input found in the prompt cache.
        cache_write: input written to it.
    """

    above: int
    uncached: float
    output: float
    cache_read: float
    cache_write: float


Tiers: TypeAlias = tuple[Tier, ...]
"""The tiers of a model, that of the largest requests first."""


def cost_usd(model: str, usage: Usage, table: Mapping[str, Price] | None = None) -> float | None:
    """What `usage` of a model costs today, in USD; `None` when its price is not known.

    A price in `table` comes before the library's, which are of Anthropic's models. There,
    tokens written to the prompt cache are priced as kept for five minutes.
    """
    new, read, written = usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens
    tier = _tier(model, new + read + written, table)
    if tier is None:
        return None
    dollars = (
        new * tier.uncached
        + usage.output_tokens * tier.output
        + read * tier.cache_read
        + written * tier.cache_write
    )
    return dollars / MILLION


def most_usd(
    model: str, input_tokens: int, output_tokens: int, table: Mapping[str, Price] | None = None
) -> float | None:
    """The most that so many tokens cost, however the input is cached; `None` likewise."""
    tier = _tier(model, input_tokens, table)
    if tier is None:
        return None
    dearest = max(tier.uncached, tier.cache_read, tier.cache_write)
    return (input_tokens * dearest + output_tokens * tier.output) / MILLION


def _tier(model: str, input_tokens: int, table: Mapping[str, Price] | None) -> Tier | None:
    """What a request of that size is priced by today; `None` when no price is known."""
    if table and model in table:
        return _own_tier(table[model])
    for tier in _fixed_tiers(model) or _tiers_today(model):
        if input_tokens > tier.above:
            return tier
    return None


def _own_tier(price: Price) -> Tier:
    uncached, read, write = price.input_mtok, price.cache_read_mtok, price.cache_write_mtok
    return Tier(
        -1,
        uncached,
        price.output_mtok,
        uncached if read is None else read,
        uncached if write is None else write,
    )


@lru_cache(maxsize=KNOWN_MODELS)
def _fixed_tiers(model: str) -> Tiers:
    """The library's tiers of a model whose prices hold on any day; none for other models.

    They are kept, for the library's own look-up costs more than a turn should.
    """
    # The library keeps the prices of a model that depend on the time as a list.
    known = _model_info(model)
    return () if known is None or isinstance(known.prices, list) else _tiers(known.prices)


def _tiers_today(model: str) -> Tiers:
    known = _model_info(model)
    return () if known is None else _tiers(known.get_prices(datetime.now(UTC)))


@lru_cache(maxsize=KNOWN_MODELS)
def _model_info(model: str) -> ModelInfo | None:
    if FAMILY not in model.lower():
        return None
    import genai_prices  # noqa: PLC0415 - takes half a second

    try:
        return genai_prices.calc_price(genai_prices.Usage(), model, provider_id=PROVIDER).model
    except LookupError:
        return None


def _tiers(price: ModelPrice) -> Tiers:
    kinds = (price.input_mtok, price.output_mtok, price.cache_read_mtok, price.cache_write_mtok)
    tiered = [kind for kind in kinds if kind is not None and not isinstance(kind, Decimal)]
    starts = {tier.start for kind in tiered for tier in kind.tiers}
    return tuple(_tier_above(start, kinds) for start in sorted({-1, *starts}, reverse=True))


def _tier_above(start: int, kinds: tuple[Decimal | TieredPrices | None, ...]) -> Tier:
    uncached, output, read, write = (_price_above(start, kind) for kind in kinds)
    return Tier(
        start,
        uncached or 0.0,
        output or 0.0,
        (uncached or 0.0) if read is None else read,
        (uncached or 0.0) if write is None else write,
    )


def _price_above(start: int, price: Decimal | TieredPrices | None) -> float | None:
    """USD per million tokens; large requests can be in a dearer tier."""
    if price is None or isinstance(price, Decimal):
        return None if price is None else float(price)
    tiers = [tier.price for tier in price.tiers if start >= tier.start]
    return float(tiers[-1] if tiers else price.base)
