"""What is plotted: columns of numbers, ready for the page's script."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from raypool.report import words
from raypool.report.figures import Figures, Moment


@dataclass(frozen=True)
class Pace:
    """The unit that a rate is told in, such that it is a number one can picture."""

    unit: str
    milliseconds: int


UNITS = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"))
PACES = (Pace("second", 1_000), Pace("minute", 60_000), Pace("hour", 3_600_000))


def charts(figures: Figures) -> dict[str, Any]:
    """The data of every chart, by the id of its place on the page; empty ones are left out."""
    drawn = {
        "throughput": _throughput(figures),
        "latency": _latency(figures),
        "tokens": _tokens(figures),
        "cost": _cost(figures),
        "setbacks": _setbacks(figures),
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def pace_of(figures: Figures) -> Pace:
    """The shortest unit in which a typical moment has one task or more."""
    busy = [one for one in figures.moments if ended_in(one)]
    per_ms = sum(map(ended_in, busy)) / (figures.step_ms * len(busy)) if busy else 0.0
    return next((pace for pace in PACES if per_ms * pace.milliseconds >= 1), PACES[-1])


def span(milliseconds: int) -> str:
    """A length of time as one says it: `10 seconds`, `minute`, `3 hours`."""
    length, unit = next(one for one in UNITS if milliseconds >= one[0])
    number = milliseconds // length
    return unit if number == 1 else f"{number} {unit}s"


def _throughput(figures: Figures) -> dict[str, Any] | None:
    pace = pace_of(figures)
    factor = pace.milliseconds / figures.step_ms
    return _over_time(
        figures,
        f"tasks per {pace.unit}",
        {
            "completed": [one.completed * factor for one in figures.moments],
            "failed": [one.failed * factor for one in figures.moments],
        },
    )


def _tokens(figures: Figures) -> dict[str, Any] | None:
    factor = 1_000 / figures.step_ms
    return _over_time(
        figures,
        "tokens per second",
        {
            "read": [one.input_tokens * factor for one in figures.moments],
            "written": [one.output_tokens * factor for one in figures.moments],
        },
    )


def _cost(figures: Figures) -> dict[str, Any] | None:
    spent, so_far = [], 0.0
    for one in figures.moments:
        so_far += one.cost_usd
        spent.append(so_far)
    return _over_time(figures, "USD so far", {"cost": spent}) if so_far else None


def _over_time(
    figures: Figures, unit: str, columns: dict[str, list[float]]
) -> dict[str, Any] | None:
    if not figures.moments:
        return None
    times = [one.since / 1000 for one in figures.moments]
    return _chart("time", unit, times, columns, step=figures.step_ms / 1000)


def _setbacks(figures: Figures) -> dict[str, Any] | None:
    if not figures.setbacks:
        return None
    step = figures.setback_step_ms
    sums: dict[str, dict[int, int]] = {"refused": defaultdict(int), "retried": defaultdict(int)}
    for one in figures.setbacks:
        sums[one.kind][one.since] += one.count
    first, last = figures.moments[0].since, figures.moments[-1].since
    times = range(first // step * step, last + 1, step)
    columns = {name: [float(at[time]) for time in times] for name, at in sums.items()}
    return _chart(
        "time", f"per {span(step)}", [time / 1000 for time in times], columns, step=step / 1000
    )


def _latency(figures: Figures) -> dict[str, Any] | None:
    if not figures.bars:
        return None
    edges = [figures.bars[0].low, *(bar.high for bar in figures.bars)]
    columns = {"tasks": [float(bar.count) for bar in figures.bars]}
    return {
        **_chart("duration", "tasks", [float(n) for n in range(len(figures.bars))], columns),
        "edges": edges,
        "labels": [words.duration(edge) for edge in edges],
        "marks": {
            name: value
            for name, value in asdict(figures.latency).items()
            if name.startswith("p") and name != "p90"
        },
    }


def _chart(
    kind: str, unit: str, x: list[float], columns: dict[str, list[float]], step: float = 1.0
) -> dict[str, Any]:
    return {"kind": kind, "unit": unit, "x": x, "columns": columns, "step": step}


def ended_in(moment: Moment) -> int:
    """How many tasks ended in it."""
    return moment.completed + moment.failed + moment.cancelled
