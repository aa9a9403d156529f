"""Functions of the user's on threads, and what becomes of one whose caller is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


async def to_its_end(
    threads: ThreadPoolExecutor, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """What a function returns on one of `threads`; a cancellation is raised once it has ended."""
    called = threads.submit(_called, function, *args, **kwargs)
    running = asyncio.wrap_future(called)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if called.cancel():
            raise
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # it is not what the caller waits for any more
        raise


async def by_itself(function: Callable[..., Any], **kwargs: Any) -> Any:
    """What a function returns on a thread of its own; when the caller is cancelled, it is left."""
    called: Future[Any] = Future()
    called.set_running_or_notify_cancel()

    def run() -> None:
        try:
            called.set_result(_called(function, **kwargs))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            called.set_exception(error)

    threading.Thread(target=run, name="raypool-tool", daemon=True).start()
    return await asyncio.wrap_future(called)


def _called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """No future can hold a `StopIteration`: who awaits it would wait for ever."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{function!r} raised StopIteration") from error
