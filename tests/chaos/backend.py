"""What answers in a chaos round, and notes from within what each turn comes to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from raypool.agent import SessionOptions
from raypool.backends import LocalBackend
from raypool.backends.base import Backend, Session
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content

TURN_SECONDS = 0.2
MODEL_MARK = "model"


def answer_to(question: str) -> str:
    """What the pool must answer."""
    return f"answer to {question}"


class ChaosBackend(Backend):
    """Answers each question with an answer that fits no other.

    A question whose id ends with `model` is put to the local model first, and fails when the model
    server does. Every turn leaves files in the directory `turns`, named after the question, the
    time, the process, and what has happened: `begun`, then `answered` or `failed`.
    """

    name = "chaos"
    model = "scripted"
    is_free = True

    def __init__(self, turns: str) -> None:
        self._turns = turns
        self._local = LocalBackend(slots=4, context_tokens=256)
        self._opening: asyncio.Lock | None = None
        self._is_open = False

    async def open(self) -> None:
        self._opening = asyncio.Lock()

    async def start(self, options: SessionOptions) -> Session:
        return _ChaosSession(self)

    async def close(self) -> None:
        await self._local.close()

    async def ask_model(self) -> ErrorEvent | None:
        """Have the local model say a word; the error, if it does not."""
        assert self._opening is not None
        async with self._opening:
            if not self._is_open:
                await self._local.open()
                self._is_open = True
        session = await self._local.start(SessionOptions(max_tokens=1))
        events = [event async for event in session.prompt("Hi")]
        return events[-1] if isinstance(events[-1], ErrorEvent) else None

    def note(self, question: str, what: str) -> None:
        """Leave a file that says so."""
        name = f"{question} {time.time_ns()} {os.getpid()} {what}"
        Path(self._turns, name).touch()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opening": None, "_is_open": False}


class _ChaosSession(Session):
    def __init__(self, backend: ChaosBackend) -> None:
        self._backend = backend

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        assert isinstance(prompt, str)
        self._backend.note(prompt, "begun")
        await asyncio.sleep(TURN_SECONDS)
        if prompt.endswith(MODEL_MARK):
            error = await self._backend.ask_model()
            if error is not None:
                self._backend.note(prompt, "failed")
                yield error
                return
        self._backend.note(prompt, "answered")
        yield TextEvent(answer_to(prompt))
        yield ResultEvent(model="scripted", cost_usd=0.0)
