"""Parting what there is among those who want some of it."""

from __future__ import annotations

from collections.abc import Sequence


def fair_parts(total: float, demands: Sequence[float]) -> list[float]:
    """What each gets of `total`: max-min fair by demand, and an equal part of what is left over.

    Whoever wants no more than an equal part gets what it wants; the others get equal parts of
    what these leave.
    """
    parts = [0.0] * len(demands)
    left = total
    open_ends = len(demands)
    for place in sorted(range(len(demands)), key=lambda place: demands[place]):
        parts[place] = min(demands[place], left / open_ends)
        left -= parts[place]
        open_ends -= 1
    spare = left / len(demands) if demands else 0.0
    return [part + spare for part in parts]
