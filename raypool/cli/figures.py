"""Numbers as people read them."""

from __future__ import annotations

from raypool.amounts import dollars, short

__all__ = ["count", "dollars", "duration", "short"]


def count(number: int, noun: str) -> str:
    """`1 row`, `1,240 rows`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `5 h 7 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
