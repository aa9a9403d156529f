"""What a dry run tells: rows, tokens, cost, time."""

from __future__ import annotations

import msgspec
import pytest

from raypool.backends import AnthropicBackend
from raypool.cli.dry_run import PROMPT_WIDTH, described, forecast_of, terms
from raypool.cli.options import PoolOptions
from raypool.cli.records import Origin
from raypool.cli.rows import AnyRow, BadRow, Row, SkippedRow
from raypool.prices import cost_usd
from raypool.usage import Usage

ORIGIN = Origin("in.jsonl")
MODEL = "claude-haiku-5-5"
OPTIONS = PoolOptions(
    backend="anthropic",
    model=MODEL,
    base_url="http://127.0.0.1:9",
    size=4,
    concurrency=1,
    role=None,
    system=None,
    max_tokens=100,
    turn_timeout=600.0,
    address=None,
)


def rows(*prompts: str) -> list[AnyRow]:
    return [
        Row(number, ORIGIN, number + 1, str(number), prompt, "", {})
        for number, prompt in enumerate(prompts)
    ]


def test_tokens_are_guessed_by_length_and_priced() -> None:
    backend = AnthropicBackend(MODEL, base_url="http://127.0.0.1:9")

    forecast = forecast_of(rows("x" * 400, "y" * 4_000), OPTIONS, terms(OPTIONS, backend, None))

    assert forecast.input_tokens == pytest.approx(1_100, rel=0.05)
    assert (forecast.output_tokens, forecast.most_output_tokens) == (200, 200)
    assert forecast.cost_usd == pytest.approx(
        cost_usd(MODEL, Usage(forecast.input_tokens, forecast.output_tokens))
    )
    assert forecast.most_usd is not None
    assert forecast.cost_usd is not None
    assert forecast.most_usd > forecast.cost_usd


def test_system_prompt_is_read_with_every_row() -> None:
    backend = AnthropicBackend(MODEL, base_url="http://127.0.0.1:9")
    asked = msgspec.structs.replace(OPTIONS, system="Be brief. " * 40)

    with_system = forecast_of(rows("x", "y"), asked, terms(asked, backend, None))
    without = forecast_of(rows("x", "y"), OPTIONS, terms(OPTIONS, backend, None))

    assert with_system.input_tokens == pytest.approx(without.input_tokens + 200, rel=0.05)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [({}, None), ({"rpm": 2.0}, 60.0), ({"rpm": 2.0, "output_tpm": 100.0}, 120.0)],
    ids=str,
)
def test_time_is_that_of_the_tightest_limit(
    limits: dict[str, float], seconds: float | None
) -> None:
    backend = AnthropicBackend(MODEL, base_url="http://127.0.0.1:9")
    asked = msgspec.structs.replace(OPTIONS, **limits)

    forecast = forecast_of(rows("x", "y"), asked, terms(asked, backend, None))

    assert forecast.seconds == seconds


def test_model_without_a_price_and_odd_rows_are_told() -> None:
    asked = msgspec.structs.replace(OPTIONS, model="mine")
    backend = AnthropicBackend("mine", base_url="http://127.0.0.1:9")
    odd: list[AnyRow] = [BadRow(1, ORIGIN, 2, "the prompt is empty"), SkippedRow(2)]

    said = described(forecast_of([*rows("x" * 999), *odd], asked, terms(asked, backend, None)))

    assert said[:5] == [
        "raypool: would ask 1 row",
        "  1 row cannot be asked, first:",
        "    in.jsonl, line 2: the prompt is empty",
        "  1 row left out by the mapper",
        "  prompt 1:",
    ]
    assert said[5] == f"    {'x' * PROMPT_WIDTH} …"
    assert "  cost: unknown (no price for this model)" in said
