"""Any model of any library, as a function."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from raypool.agent import SessionOptions
from raypool.backends.base import Backend, Session
from raypool.backends.faults import error_event
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.response import Response
from raypool.task import Content

Function: TypeAlias = Callable[[Content, SessionOptions], Awaitable[str | Response]]
Retryable: TypeAlias = Callable[[Exception], bool]


class FunctionBackend(Backend):
    """Answers with `await fn(prompt, options)`, a `str` or a `Response`.

    `fn` gets the prompt as the task has it, and the whole conversation as a list
    of messages from its second turn on. What it raises fails the turn;
    `retryable` tells whether another attempt may help. Without it, an
    exception with a `status_code` (as most client libraries raise) is judged by
    that, and every other gets its attempts.
    """

    name = "function"

    def __init__(self, fn: Function, *, retryable: Retryable | None = None) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise TypeError(f"fn must be an async function of (prompt, options), got {fn!r}")
        self.fn = fn
        self.retryable = retryable

    async def start(self, options: SessionOptions) -> Session:
        return _FunctionSession(self, options)


class _FunctionSession(Session):
    def __init__(self, backend: FunctionBackend, options: SessionOptions) -> None:
        self._backend = backend
        self._options = options
        self._history: list[dict[str, object]] = []

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        asked = self._with_history(prompt)
        try:
            answer = await self._backend.fn(asked, self._options)
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            yield self._failure(error)
            return
        if isinstance(answer, str):
            answer = Response(text=answer)
        if not isinstance(answer, Response):
            yield _wrong_answer(answer)
            return
        yield TextEvent(answer.text)
        self._remember(prompt, answer.text)
        yield ResultEvent(
            model=answer.model,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )

    def _with_history(self, prompt: Content) -> Content:
        return [*self._history, *_messages(prompt)] if self._history else prompt

    def _remember(self, prompt: Content, text: str) -> None:
        self._history += [*_messages(prompt), {"role": "assistant", "content": text}]

    def _failure(self, error: Exception) -> ErrorEvent:
        if self._backend.retryable is None:
            return error_event(error)
        return error_event(error, "transient" if self._backend.retryable(error) else "invalid")


def _messages(prompt: Content) -> list[dict[str, object]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _wrong_answer(answer: object) -> ErrorEvent:
    return ErrorEvent(
        verdict="invalid",
        error_type="TypeError",
        message=f"fn must return a str or a Response, got {type(answer).__name__}",
    )
