"""Amounts as people read them."""

from __future__ import annotations


def short(number: float) -> str:
    """`812`, `12.3k`, `4.56M`: three digits are enough where numbers move."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")):
        if number < limit:
            return f"{number / divisor:.3g}{unit}" if divisor > 1 else f"{number:.0f}"
    return f"{number / 1e9:.3g}G"


def dollars(amount: float) -> str:
    """`$0.00`, `$0.0042`, `$12.30`: small amounts keep two digits that count."""
    if amount == 0 or amount >= 0.1:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 0.0001 else "under $0.0001"
