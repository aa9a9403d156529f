"""Numbers as people read them."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 row`, `1,240 rows`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def short(number: float) -> str:
    """`812`, `12.3k`, `4.56M`: three digits are enough while numbers move."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")):
        if number < limit:
            return f"{number / divisor:.3g}{unit}" if divisor > 1 else f"{number:.0f}"
    return f"{number / 1e9:.3g}G"


def dollars(amount: float) -> str:
    """`$0.00`, `$0.0042`, `$12.30`: small amounts keep two digits that count."""
    if amount == 0 or amount >= 0.1:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 0.0001 else "under $0.0001"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `5 h 7 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
