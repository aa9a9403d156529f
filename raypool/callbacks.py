"""How an agent's callbacks are called: one at a time, each where it belongs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raypool.agent import Agent


class Callbacks:
    """Calls the callbacks of one agent, never two at once.

    A `def` callback runs on the agent's own thread, so that a blocking one blocks
    nothing else; an `async` one runs on the event loop.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raypool-callbacks")
        self._one_at_a_time = asyncio.Lock()

    def is_overridden(self, name: str) -> bool:
        """Whether the agent has its own callback of that name."""
        callback = getattr(self._agent, name)
        return getattr(callback, "__func__", callback) is not getattr(Agent, name)

    async def call(self, name: str, *args: Any) -> Any:
        """What the callback returns; raises what it raises."""
        callback = getattr(self._agent, name)
        async with self._one_at_a_time:
            if inspect.iscoroutinefunction(callback):
                return await callback(*args)
            loop = asyncio.get_running_loop()
            returned = await loop.run_in_executor(self._thread, _called, callback, *args)
            return await returned if inspect.isawaitable(returned) else returned

    def close(self) -> None:
        """Call nothing more; a callback that still runs is left alone."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _called(callback: Callable[..., Any], *args: Any) -> Any:
    """No future can hold a `StopIteration`: who awaits it would wait for ever."""
    try:
        return callback(*args)
    except StopIteration as error:
        raise RuntimeError("the callback raised StopIteration") from error
