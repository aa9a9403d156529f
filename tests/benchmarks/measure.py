"""Measuring raypool beside its peer: interleaved in one run, medians, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

Measure = Callable[[], float]


@dataclass(frozen=True)
class Scenario:
    """One thing that raypool and a peer both do.

    Attributes:
        name: what is done.
        unit: of the two figures.
        goal: the ratio to reach, as text; a figure when there is no peer.
        raypool: measures raypool once.
        peer: measures the peer once; `None` when the figure stands alone.
        peer_name: what the peer is.
    """

    name: str
    unit: str
    goal: str
    raypool: Measure
    peer: Measure | None = None
    peer_name: str = ""


@dataclass(frozen=True)
class Figures:
    """Medians of a scenario, and the median of its rounds' ratios."""

    scenario: Scenario
    raypool: float
    peer: float | None
    ratio: float | None
    ratios: list[float]


def run(scenario: Scenario, rounds: int, *, warm_ups: int = 1) -> Figures:
    """Measure raypool and the peer in turn, after rounds of each that do not count."""
    ours: list[float] = []
    peers: list[float] = []
    for turn in range(warm_ups + rounds):
        mine, theirs = scenario.raypool(), scenario.peer() if scenario.peer else None
        if turn >= warm_ups:
            ours.append(mine)
            peers += [] if theirs is None else [theirs]
    ratios = [mine / theirs for mine, theirs in zip(ours, peers, strict=False)]
    return Figures(
        scenario,
        statistics.median(ours),
        statistics.median(peers) if peers else None,
        statistics.median(ratios) if ratios else None,
        ratios,
    )


def show(figures: list[Figures], rounds: int) -> None:
    """Print the table."""
    table = Table(title=f"raypool beside its peers, median of {rounds} interleaved rounds")
    for column in ("scenario", "raypool", "peer", "ratio (range)", "goal"):
        table.add_column(column)
    for one in figures:
        scenario = one.scenario
        peer = "" if one.peer is None else f"{_figure(one.peer)} {scenario.unit}"
        table.add_row(
            scenario.name,
            f"{_figure(one.raypool)} {scenario.unit}",
            f"{peer} ({scenario.peer_name})" if peer else "",
            "" if one.ratio is None else _range(one),
            scenario.goal,
        )
    Console().print(table)


def _figure(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def _range(one: Figures) -> str:
    return f"{one.ratio:.2f}x ({min(one.ratios):.2f}-{max(one.ratios):.2f})"
