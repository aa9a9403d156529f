"""Exceptions of unknown code, classified: what each means for the task and for the pool."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from raypool.events import ErrorEvent, Verdict

REFUSED_STATUSES = frozenset({429, 529})
TRANSIENT_STATUSES = frozenset({408, 409})
FATAL_STATUSES = frozenset({401, 402, 403, 404})


def verdict_of_status(status: int) -> Verdict:
    """What an HTTP status of 400 or above means, where nothing else is known."""
    if status in REFUSED_STATUSES:
        return "refused"
    if status in TRANSIENT_STATUSES or status >= 500:
        return "transient"
    return "fatal" if status in FATAL_STATUSES else "invalid"


def verdict_of_exception(error: BaseException) -> Verdict:
    """By the exception's `status_code` where it has one; any other may pass on another attempt."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return verdict_of_status(status)
    return "transient"


def error_event(error: BaseException, verdict: Verdict | None = None) -> ErrorEvent:
    """The event that `error` is; `verdict=None` decides by the exception."""
    return ErrorEvent(
        verdict=verdict or verdict_of_exception(error),
        error_type=type(error).__name__,
        message=words_of(error),
        retry_after=_retry_after(error),
        traceback="".join(traceback.format_exception(error)),
        exception=error,
    )


def words_of(error: BaseException) -> str:
    """What an exception says; its kind for one that says nothing, as time-outs often do."""
    return str(error) if str(error).strip() else f"{type(error).__name__}, without a message"


def retry_after_seconds(headers: Mapping[str, str] | None) -> float | None:
    """How long a provider asks to wait: `retry-after-ms`, or `retry-after` (seconds or a date)."""
    if not headers:
        return None
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _seconds(text)
    return seconds if seconds is not None else _seconds_until(text)


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return retry_after_seconds(headers) if isinstance(headers, Mapping) else None


def _seconds(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _seconds_until(date: str | None) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
