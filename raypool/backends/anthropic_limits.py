"""What a Messages API server says of its limits, in the headers of every answer.

Anthropic's documentation ("Rate limits", "Response headers") names them:
`anthropic-ratelimit-{requests,input-tokens,output-tokens,tokens}-{limit,remaining,reset}`, where
`reset`, in RFC 3339, is when all of it is there again, by the server's clock, which `date` tells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from raypool.provider_limits import Allowance, ProviderLimits

PREFIX = "anthropic-ratelimit"
CLOCKS_AGREE_SECONDS = 5.0
"""`date` is in whole seconds, and some pass on the way: it shows no smaller difference."""


def limits_in(headers: Mapping[str, str]) -> ProviderLimits | None:
    """The limits that `headers` tell; what is missing or makes no sense is left out."""
    told = {name: text for name, text in headers.items() if name.startswith(PREFIX)}
    if not told:
        return None
    ahead = _seconds_ahead(headers.get("date"))
    limits = ProviderLimits(
        requests=_allowance(told, "requests", ahead),
        input_tokens=_allowance(told, "input-tokens", ahead),
        output_tokens=_allowance(told, "output-tokens", ahead),
        tokens=_allowance(told, "tokens", ahead),
    )
    return None if limits == ProviderLimits() else limits


def _allowance(told: Mapping[str, str], what: str, ahead: float) -> Allowance | None:
    limit = _amount(told.get(f"{PREFIX}-{what}-limit"))
    remaining = _amount(told.get(f"{PREFIX}-{what}-remaining"))
    reset_at = _time(told.get(f"{PREFIX}-{what}-reset"))
    if not limit or remaining is None or reset_at is None:
        return None  # a server that allows nothing at all refuses what it is sent
    return Allowance(limit, remaining, reset_at - ahead)


def _amount(text: str | None) -> float | None:
    try:
        amount = float(text or "")
    except ValueError:
        return None
    return amount if 0 <= amount < math.inf else None


def _time(text: str | None) -> float | None:
    """Seconds since the epoch; a time without its zone could be any."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


def _seconds_ahead(date: str | None) -> float:
    """How far the server's clock is ahead of ours; 0 when nobody can tell."""
    try:
        ahead = parsedate_to_datetime(date or "").timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return ahead if abs(ahead) > CLOCKS_AGREE_SECONDS else 0.0
