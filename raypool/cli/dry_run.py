"""`--dry-run`: what would be asked, and about what it would cost and take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from raypool.agent import Agent, AgentStart, RoleAgent, SessionOptions
from raypool.capacity.estimates import Estimates
from raypool.cli.agent import PromptAgent
from raypool.cli.figures import count, dollars, duration
from raypool.cli.options import PoolOptions
from raypool.cli.rows import AnyRow, BadRow, Row
from raypool.cli.saying import say, say_json
from raypool.messages import Terms
from raypool.prices import cost_usd, most_usd
from raypool.records import AcceptedTask
from raypool.task import Content
from raypool.terms import terms_of
from raypool.usage import Usage

if TYPE_CHECKING:
    from raypool.backends import Backend

PROMPTS_SHOWN = 3
REASONS_SHOWN = 5
PROMPT_WIDTH = 400


class Forecast(msgspec.Struct, kw_only=True):
    """What a run would ask.

    Attributes:
        rows: rows that would be asked.
        bad: rows that cannot be.
        skipped: rows that are left out.
        prompts: the first prompts.
        reasons: why the first bad rows cannot be asked.
        input_tokens: about how many tokens would be read.
        output_tokens: about how many would be written, as nobody knows yet how long answers are.
        most_output_tokens: the most that would be written.
        cost_usd: what the first two would cost; `None` when the model has no known price.
        most_usd: what it would cost at most; likewise.
        seconds: the least that the limits of the command line allow; `None` without limits.
    """

    rows: int = 0
    bad: int = 0
    skipped: int = 0
    prompts: list[Content] = []
    reasons: list[str] = []
    input_tokens: int = 0
    output_tokens: int = 0
    most_output_tokens: int = 0
    cost_usd: float | None = None
    most_usd: float | None = None
    seconds: float | None = None


def dry_run(
    rows: Iterable[AnyRow],
    options: PoolOptions,
    backend: Backend,
    output_type: Any,
    *,
    is_json: bool,
) -> None:
    """Read all rows and say what asking them would be."""
    forecast = forecast_of(rows, options, terms(options, backend, output_type))
    if is_json:
        say_json("dry-run", **msgspec.to_builtins(forecast))
    else:
        say(*described(forecast))


def terms(options: PoolOptions, backend: Backend, output_type: Any) -> Terms:
    """What turns of a run are priced by."""
    agent: Agent = PromptAgent() if options.role is None else RoleAgent()
    start = AgentStart(worker="", role=options.role or "", options=options.agent_options())
    asked = agent.init_agent(start)
    assert isinstance(asked, SessionOptions)
    return terms_of(backend, msgspec.structs.replace(asked, output_type=output_type), {})


def forecast_of(rows: Iterable[AnyRow], options: PoolOptions, terms: Terms) -> Forecast:
    """What asking `rows` would be."""
    estimates = Estimates(terms)
    forecast = Forecast()
    costs = [0.0, 0.0]
    model = terms.model
    for row in rows:
        if isinstance(row, Row):
            likely, most = _needs(estimates, row)
            forecast.rows += 1
            forecast.input_tokens += likely.input_tokens
            forecast.output_tokens += likely.output_tokens
            forecast.most_output_tokens += most.output_tokens
            if model is not None and terms.is_priced:
                costs[0] += cost_usd(model, Usage(*likely)) or 0.0
                costs[1] += most_usd(model, *most) or 0.0
            if len(forecast.prompts) < PROMPTS_SHOWN:
                forecast.prompts = [*forecast.prompts, row.prompt]
        elif isinstance(row, BadRow):
            forecast.bad += 1
            if len(forecast.reasons) < REASONS_SHOWN:
                forecast.reasons = [*forecast.reasons, row.message]
        else:
            forecast.skipped += 1
    if terms.is_priced:
        forecast.cost_usd, forecast.most_usd = costs
    forecast.seconds = _seconds(forecast, options)
    return forecast


def described(forecast: Forecast) -> list[str]:
    """The forecast in words."""
    lines = [f"raypool: would ask {count(forecast.rows, 'row')}"]
    if forecast.bad:
        lines.append(f"  {count(forecast.bad, 'row')} cannot be asked, first:")
        lines += [f"    {reason}" for reason in forecast.reasons]
    if forecast.skipped:
        lines.append(f"  {count(forecast.skipped, 'row')} left out by the mapper")
    for number, prompt in enumerate(forecast.prompts, start=1):
        lines += [f"  prompt {number}:", *_indented(prompt)]
    lines += [
        f"  tokens: about {forecast.input_tokens:,} in, {forecast.output_tokens:,} out "
        f"(at most {forecast.most_output_tokens:,})",
        f"  cost: {_cost(forecast)}",
        f"  time: {_time(forecast)}",
    ]
    return lines


def _needs(estimates: Estimates, row: Row) -> tuple[Any, Any]:
    size = estimates.size(AcceptedTask(0, row.id, row.prompt), None)
    return estimates.likely(size), estimates.most(size)


def _seconds(forecast: Forecast, options: PoolOptions) -> float | None:
    needs = (
        (forecast.rows, options.rpm),
        (forecast.input_tokens, options.tpm),
        (forecast.output_tokens, options.output_tpm),
    )
    return max((60 * need / limit for need, limit in needs if limit), default=None)


def _cost(forecast: Forecast) -> str:
    if forecast.cost_usd is None or forecast.most_usd is None:
        return "unknown (no price for this model)"
    likely, most = dollars(forecast.cost_usd), dollars(forecast.most_usd)
    return most if likely == most else f"{likely} or so, at most {most}"


def _time(forecast: Forecast) -> str:
    if forecast.seconds is None:
        return "unknown (--rpm and --tpm say what the provider takes)"
    return f"{duration(forecast.seconds)} or more at these limits"


def _indented(prompt: Content) -> list[str]:
    text = prompt if isinstance(prompt, str) else msgspec.json.encode(prompt).decode()
    shown = text if len(text) <= PROMPT_WIDTH else f"{text[:PROMPT_WIDTH]} …"
    return [f"    {line}" for line in shown.splitlines()]
