"""What a Messages API server says of its limits, in the headers of every answer.

Anthropic's documentation ("Rate limits", "Response headers") names them:
`anthropic-ratelimit-{requests,input-tokens,output-tokens,tokens}-{limit,remaining,reset}`, where
`reset`, in RFC 3339, is when all of it is there again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from raypool.provider_limits import Allowance, ProviderLimits

PREFIX = "anthropic-ratelimit"


def limits_in(headers: Mapping[str, str]) -> ProviderLimits | None:
    """The limits that `headers` tell; what is missing or makes no sense is left out."""
    told = {name: text for name, text in headers.items() if name.startswith(PREFIX)}
    if not told:
        return None
    limits = ProviderLimits(
        requests=_allowance(told, "requests"),
        input_tokens=_allowance(told, "input-tokens"),
        output_tokens=_allowance(told, "output-tokens"),
        tokens=_allowance(told, "tokens"),
    )
    return None if limits == ProviderLimits() else limits


def _allowance(told: Mapping[str, str], what: str) -> Allowance | None:
    limit = _amount(told.get(f"{PREFIX}-{what}-limit"))
    remaining = _amount(told.get(f"{PREFIX}-{what}-remaining"))
    reset_at = _time(told.get(f"{PREFIX}-{what}-reset"))
    if limit is None or remaining is None or reset_at is None:
        return None
    return Allowance(limit, remaining, reset_at)


def _amount(text: str | None) -> float | None:
    try:
        amount = float(text or "")
    except ValueError:
        return None
    return amount if 0 <= amount < math.inf else None


def _time(text: str | None) -> float | None:
    """Seconds since the epoch; a time without its zone could be any."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if time.tzinfo is None else time.timestamp()
