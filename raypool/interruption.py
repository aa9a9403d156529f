"""How a program learns that it is told to end, and what it then gives its running turns."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

GRACE_SECONDS = 30.0
SIGNALS_RAISE = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C raises, and SIGTERM by the handler that Ray installs."""

_INSTALLER = "ray._private.worker"
_sigterm_came = threading.Event()


def is_interruption(error: BaseException | None) -> bool:
    """Whether a program that ends with `error` was told to: by Ctrl-C, SIGTERM or cancellation.

    `asyncio.run` cancels its coroutine at Ctrl-C.
    """
    is_told = isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
    return is_told or _sigterm_came.is_set()


def notice_sigterm() -> None:
    """Remember SIGTERM when it comes; then it does what it did, which is to exit.

    What it raises does not tell: Ray changes the status of the exit. Where the handler is
    the program's own, and not Ray's, it is left alone.
    """
    handler = signal.getsignal(signal.SIGTERM)
    is_rays = getattr(handler, "__module__", None) == _INSTALLER
    if not is_rays or threading.current_thread() is not threading.main_thread():
        return

    def remember(number: int, frame: FrameType | None) -> None:
        _sigterm_came.set()
        assert callable(handler)
        handler(number, frame)

    signal.signal(signal.SIGTERM, remember)
