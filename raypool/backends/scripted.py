"""A backend without a model: for tests, dry runs and benchmarks."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeAlias

from raypool.agent import SessionOptions
from raypool.backends.base import Backend, Session
from raypool.backends.dialogue import Message, as_messages, text_of
from raypool.backends.faults import error_event
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.usage import Usage

Reply: TypeAlias = str | Exception
Replies: TypeAlias = Mapping[str, Reply] | Callable[[str], Reply | Awaitable[Reply]] | None

MODEL = "scripted"


class ScriptedBackend(Backend):
    """Answers from a script.

    `replies` is `None` (echo the prompt), a mapping from prompt to reply (a
    prompt that is not in it is an error), or a callable, `def` or `async`, that
    takes the prompt's text and returns the reply. A reply that is an exception,
    or a callable that raises one, makes the turn fail with it. A `def` callable
    runs on a thread, so that it may block.

    `latency` is how long a turn takes, in seconds, or a callable from the
    prompt's text to seconds.

    The script sees each prompt alone, without the conversation before it. It calls no tools;
    a reply fits an output type when it is the JSON of one.
    """

    name = "scripted"
    model = MODEL
    is_free = True

    def __init__(
        self, replies: Replies = None, *, latency: float | Callable[[str], float] = 0.0
    ) -> None:
        if not (replies is None or isinstance(replies, Mapping) or callable(replies)):
            raise TypeError(
                f"replies must be None, a mapping or a callable, got {type(replies).__name__}"
            )
        self.replies = replies
        self.latency = latency

    async def start(self, options: SessionOptions) -> Session:
        return _ScriptedSession(self, list(options.messages))

    async def reply(self, text: str) -> Reply:
        """The script's answer to `text`; raises what the script raises."""
        if self.replies is None:
            return text
        if isinstance(self.replies, Mapping):
            return self.replies[text]
        if inspect.iscoroutinefunction(self.replies):
            answer: Reply | Awaitable[Reply] = self.replies(text)
        else:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(None, _called, self.replies, text)
        return await answer if inspect.isawaitable(answer) else answer


def _called(
    script: Callable[[str], Reply | Awaitable[Reply]], text: str
) -> Reply | Awaitable[Reply]:
    """No future can hold a `StopIteration`: who awaits it would wait for ever."""
    try:
        return script(text)
    except StopIteration as error:
        raise RuntimeError("the script raised StopIteration") from error


class _ScriptedSession(Session):
    """A turn costs microseconds: messages are made of prompts and replies when they are read."""

    def __init__(self, backend: ScriptedBackend, messages: list[Message]) -> None:
        self._backend = backend
        self._messages = messages
        self._unread: list[tuple[Content, str]] = []

    @property
    def messages(self) -> list[Message]:  # type: ignore[override]  # nobody sets them
        """The conversation so far."""
        if self._unread:
            self._messages = list(self._messages)
            for prompt, reply in self._unread:
                answer = {"role": "assistant", "content": reply}
                self._messages += [*as_messages(prompt), answer]
            self._unread = []
        return self._messages

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        text = prompt_text(prompt)
        latency = self._backend.latency
        seconds = latency(text) if callable(latency) else latency
        if seconds > 0:
            await asyncio.sleep(seconds)
        if isinstance(self._backend.replies, Mapping) and text not in self._backend.replies:
            yield _not_in_script(text)
            return
        try:
            reply = await self._backend.reply(text)
        except Exception as error:  # noqa: BLE001 - whatever the script raises
            yield error_event(error)
            return
        if isinstance(reply, str):
            yield TextEvent(reply)
            self._unread.append((prompt, reply))
            yield ResultEvent(model=MODEL, usage=_word_usage(text, reply), cost_usd=0.0)
        elif isinstance(reply, Exception):
            yield error_event(reply)
        else:
            yield _wrong_reply(reply)


def prompt_text(prompt: Content) -> str:
    """The text of a prompt; of messages, the text of the last one."""
    if isinstance(prompt, str):
        return prompt
    return text_of(prompt[-1]["content"])


def _word_usage(prompt: str, reply: str) -> Usage:
    """A word is a token here: enough to see that tokens are counted."""
    return Usage(len(prompt.split()), len(reply.split()))


def _not_in_script(text: str) -> ErrorEvent:
    return ErrorEvent(
        verdict="invalid",
        error_type="KeyError",
        message=f"the script has no reply to this prompt of {len(text)} characters",
    )


def _wrong_reply(reply: object) -> ErrorEvent:
    return ErrorEvent(
        verdict="invalid",
        error_type="TypeError",
        message=f"a scripted reply must be a str or an Exception, got {type(reply).__name__}",
    )
