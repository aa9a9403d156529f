"""Exceptions of unknown code, classified: what each means for the task and for the pool."""

from __future__ import annotations

import traceback

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
        message=str(error),
        retry_after=_retry_after(error),
        traceback="".join(traceback.format_exception(error)),
        exception=error,
    )


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    try:
        return float(headers["retry-after"]) if headers else None
    except (KeyError, TypeError, ValueError):
        return None
