"""What a program that is told to end gives its running turns."""

from __future__ import annotations

import asyncio
import signal

GRACE_SECONDS = 30.0
SIGNALS_RAISE = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C raises, and SIGTERM by the handler that Ray installs."""


def is_interruption(error: BaseException | None) -> bool:
    """Whether a program ends because it was told to: by Ctrl-C, by SIGTERM, or by cancellation.

    `asyncio.run` cancels its coroutine at Ctrl-C. At SIGTERM Ray's handler exits with the
    signal's number.
    """
    if isinstance(error, SystemExit):
        return error.code == signal.SIGTERM
    return isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
