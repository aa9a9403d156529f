"""How an agent's callbacks are called: one at a time, each where it belongs."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from raypool.agent import Agent, Halt, Prompt, Skip
from raypool.task import check_prompt
from raypool.threads import to_its_end

logger = logging.getLogger(__name__)

USER_ERRORS = (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError)
"""What the user's code may raise; a `CancelledError` may be its own."""

DECIDING = ("handle_response", "handle_error", "handle_event")


class Callbacks:
    """Calls the callbacks of one agent, never two at once.

    A `def` callback runs on the agent's own thread, so that a blocking one blocks
    nothing else; an `async` one runs on the event loop. When the caller of a `def` callback
    is cancelled, it goes on to its end first: nothing else of the agent may run beside it.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raypool-callbacks")
        self._one_at_a_time = asyncio.Lock()
        self._overridden = frozenset(
            name for name in vars(Agent) if callable(getattr(Agent, name)) and self._is_own(name)
        )

    @property
    def agent(self) -> Agent:
        """Whose callbacks they are."""
        return self._agent

    def is_overridden(self, name: str) -> bool:
        """Whether the agent has its own callback of that name."""
        return name in self._overridden

    async def call(self, name: str, *args: Any) -> Any:
        """What the callback returns, of the right kind; raises what it raises.

        Raises:
            TypeError: it returned what it must not; says what is expected, and what came.
        """
        if name not in self._overridden:
            return None
        returned = await self.run(getattr(self._agent, name), *args)
        _check_returned(name, returned)
        return returned

    async def call_quietly(self, name: str, *args: Any) -> Any:
        """What the callback returns; what it raises is logged and changes nothing."""
        if name not in self._overridden:
            return None
        try:
            return await self.call(name, *args)
        except USER_ERRORS:
            raise_if_cancelled()
            logger.exception("%s of worker %r raised; it changes nothing", name, self._agent.worker)
            return None

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What any function of the agent returns, run as its callbacks are."""
        async with self._one_at_a_time:
            with errors_only():
                return await self._returned(function, *args, **kwargs)

    def close(self) -> None:
        """Call nothing more; a callback that still runs is left alone."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _returned(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        returned = await to_its_end(self._thread, function, *args, **kwargs)
        return await returned if inspect.isawaitable(returned) else returned

    def _is_own(self, name: str) -> bool:
        callback = getattr(self._agent, name)
        return getattr(callback, "__func__", callback) is not getattr(Agent, name)


def raise_if_cancelled() -> None:
    """Go on with a cancellation by the caller; one by the user's code itself is an error."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def errors_only() -> Iterator[None]:
    """Has what the user's code raises be one of `USER_ERRORS`.

    A panic of an extension in Rust, for one, is no `Exception`, and would end the worker.
    """
    try:
        yield
    except (*USER_ERRORS, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _check_returned(name: str, returned: object) -> None:
    if name in DECIDING:
        _check_decision(name, returned)
    elif name == "pre_turn":
        _check_before_turn(returned)
    elif returned is not None and name not in ("init_agent", "snapshot"):
        raise TypeError(f"{name} must return nothing, got {_brief(returned)}")


def _check_decision(name: str, returned: object) -> None:
    if not isinstance(returned, Prompt | Halt | None):
        raise TypeError(
            f"{name} must return None (idle), Prompt(text) or Halt(reason), got {_brief(returned)}"
        )
    if isinstance(returned, Prompt):
        check_prompt(returned.text)
    elif returned is not None:
        _check_reason(returned)


def _check_before_turn(returned: object) -> None:
    if returned is None:
        return
    if isinstance(returned, Skip | Halt):
        _check_reason(returned)
        return
    if not isinstance(returned, str | list):
        raise TypeError(
            "pre_turn must return None (as it is), a prompt, Skip(reason) or Halt(reason), "
            f"got {_brief(returned)}"
        )
    check_prompt(returned)


def _check_reason(decision: Skip | Halt) -> None:
    if not isinstance(decision.reason, str):
        kind = type(decision).__name__
        raise TypeError(f"{kind}(reason) takes a text, got {_brief(decision.reason)}")


def _brief(value: object) -> str:
    """What came, without a text that may be a prompt's or an answer's."""
    return f"{value!r}" if isinstance(value, int | float) else type(value).__name__
