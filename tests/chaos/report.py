"""What rounds have come to, as tables in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from tests.chaos.rounds import MOMENTS, Verdict
from tests.chaos.stage import VICTIMS

Cells: TypeAlias = tuple[str, ...]


def line(number: int, verdict: Verdict) -> str:
    """A round."""
    remarks = (
        f"{'' if verdict.is_seen else '; not seen'}{verdict.trouble and '; '}{verdict.trouble}"
    )
    return (
        f"{number}: {verdict.victim}, {verdict.moment}: {verdict.kills} kills "
        f"({verdict.workers} workers), "
        f"{verdict.asked} tasks, {verdict.missing} missing, {verdict.twice} twice, "
        f"{verdict.wrong} wrong; {verdict.again} turns again, {verdict.allowed} allowed, "
        f"{verdict.needless} needless; "
        f"{verdict.seconds:.1f} s{remarks}"
    )


def tables(verdicts: Sequence[Verdict]) -> str:
    """Kills by what and when, and what they have cost."""
    kills: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in verdicts:
        kills[one.victim, one.moment] += one.kills
    rows: list[Cells] = [("killed", *MOMENTS, "in all")]
    rows += [
        (victim, *(str(kills[victim, moment]) for moment in MOMENTS), _kills_of(verdicts, victim))
        for victim in VICTIMS
    ]
    costs: list[Cells] = [
        (
            "killed",
            "rounds",
            "tasks",
            "missing",
            "twice",
            "wrong",
            "turns again",
            "allowed",
            "needless",
        )
    ]
    costs += [_costs(one, [it for it in verdicts if it.victim == one]) for one in VICTIMS]
    costs += [_costs("in all", verdicts)]
    return f"{_table(rows)}\n\n{_table(costs)}"


def _kills_of(verdicts: Sequence[Verdict], victim: str) -> str:
    return str(sum(one.kills for one in verdicts if one.victim == victim))


def _costs(victim: str, verdicts: Sequence[Verdict]) -> Cells:
    sums = (
        len(verdicts),
        sum(one.asked for one in verdicts),
        sum(one.missing for one in verdicts),
        sum(one.twice for one in verdicts),
        sum(one.wrong for one in verdicts),
        sum(one.again for one in verdicts),
        sum(one.allowed for one in verdicts),
        sum(one.needless for one in verdicts),
    )
    return (victim, *map(str, sums))


def _table(rows: Sequence[Cells]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = f"|{' --- |' * len(rows[0])}"
    return "\n".join([head, rule, *body])
