"""Figures as people read them."""

from __future__ import annotations

from raypool.amounts import dollars, short

__all__ = ["count", "dollars", "duration", "percent", "short"]


def count(number: int) -> str:
    """`1,240`."""
    return f"{number:,}"


def percent(part: int, whole: int) -> str:
    """`97.3 %`; never 100 when something is missing, never 0 when something is there."""
    if not whole:
        return "–"
    share = 100 * part / whole
    rounded = round(share, 1)
    if rounded == 100 and part < whole:
        return "over 99.9 %"
    if rounded == 0 and part:
        return "under 0.1 %"
    return f"{rounded:g} %"


def duration(milliseconds: float) -> str:
    """`0.42 ms`, `812 ms`, `4.33 s`, `3 min 20 s`, `5 h 7 min`, `2 d 3 h`."""
    if milliseconds < 999.5:
        return f"{milliseconds:.3g} ms"
    seconds = milliseconds / 1000
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
