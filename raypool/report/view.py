"""What the page is filled in with: the figures, and what is worked out from them in passing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from raypool.amounts import short
from raypool.report.charts import charts, ended_in, pace_of, span
from raypool.report.figures import Figures
from raypool.report.words import count, percent
from raypool.usage import Usage

_LISTED = {"failed": "tasks that failed", "slowest": "tasks with a duration"}


@dataclass(frozen=True)
class _Period:
    """From the first ending to the last, in milliseconds since the epoch."""

    begin: int
    end: int


def view(figures: Figures) -> dict[str, Any]:
    """The names that the page's template knows."""
    drawn = charts(figures)
    by_type = Counter[tuple[str, str]]()
    for one in figures.setbacks:
        by_type[one.kind, one.type] += one.count
    return {
        "figures": figures,
        "totals": figures.totals,
        "drawn": drawn,
        "units": {name: drawn[name]["unit"] if name in drawn else "" for name in _TIMES},
        "period": _period(figures),
        "step": span(figures.step_ms),
        "what": _LISTED,
        "answered": [group for group in figures.groups if group.latency.count],
        "in_no_ending": figures.totals.extra.usage,
        "setback_sums": by_type.most_common(),
        "refused": sum(n for (kind, _), n in by_type.items() if kind == "refused"),
        "retried": sum(n for (kind, _), n in by_type.items() if kind == "retried"),
        **_outcome(figures),
        **_pace(figures),
        "cost_more": _cost_more(figures),
        "cached": _cached(figures.totals.usage),
    }


_TIMES = ("throughput", "tokens", "cost", "setbacks")


def _period(figures: Figures) -> _Period | None:
    if not figures.moments:
        return None
    return _Period(figures.moments[0].since, figures.moments[-1].since + figures.step_ms)


def _outcome(figures: Figures) -> dict[str, Any]:
    totals = figures.totals
    outcome = {
        name: getattr(totals, name) for name in ("completed", "failed", "cancelled", "unfinished")
    }
    label = ", ".join(f"{count(number)} {name}" for name, number in outcome.items())
    return {
        "accepted": sum(outcome.values()),
        "outcome": list(outcome.items()),
        "outcome_label": label,
    }


def _pace(figures: Figures) -> dict[str, str]:
    """How many tasks ended in a unit of time, of the time in which any did."""
    busy = [ended_in(one) for one in figures.moments if ended_in(one)]
    if not busy:
        return {"pace": "–", "pace_more": ""}
    unit = pace_of(figures)
    factor = unit.milliseconds / figures.step_ms
    return {
        "pace": f"{_rate(sum(busy) / len(busy) * factor)} / {unit.unit}",
        "pace_more": f"while any ended; at most {_rate(max(busy) * factor)}",
    }


def _rate(number: float) -> str:
    return f"{number:.3g}" if number < 100 else short(number)


def _cost_more(figures: Figures) -> str:
    totals = figures.totals
    if totals.unpriced:
        return f"{count(totals.unpriced)} answers of unknown price"
    if not totals.completed or not totals.cost_usd:
        return ""
    return f"${1000 * totals.cost_usd / totals.completed:.3g} per 1,000 answers"


def _cached(usage: Usage) -> str:
    read = usage.total_tokens - usage.output_tokens
    return f"{percent(usage.cache_read_tokens, read)} cached" if usage.cache_read_tokens else ""
