"""One event, and how events travel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from raypool.clock import Clock
from raypool.telemetry.kinds import EventName

MAX_TEXT_LENGTH = 512


class TelemetryEvent(msgspec.Struct, frozen=True):
    """Something that has happened in a pool.

    Attributes:
        name: what has happened: `prompt.start`, `task.failed`, …
        at: when, in milliseconds since the epoch.
        pool: the pool's name.
        worker: the worker that it is about.
        role: that worker's role.
        task: the id of the task that it is about.
        fields: what else is known; `raypool.telemetry.EVENTS` lists it for each name.
    """

    name: str
    at: int
    pool: str
    worker: str | None = None
    role: str | None = None
    task: str | None = None
    fields: dict[str, Any] = {}

    def __repr__(self) -> str:
        about = {"pool": self.pool, "worker": self.worker, "role": self.role, "task": self.task}
        known = {key: value for key, value in {**about, **self.fields}.items() if value is not None}
        described = " ".join(f"{key}={value!r}" for key, value in known.items())
        return f"<{_time_of_day(self.at)} {self.name} {described}>"


def new_event(
    clock: Clock,
    name: EventName,
    fields: dict[str, Any],
    *,
    pool: str,
    worker: str | None = None,
    role: str | None = None,
    task: str | None = None,
) -> TelemetryEvent:
    """An event of this moment; fields that are `None` are left out, long texts are cut."""
    known = {key: _plain(value) for key, value in fields.items() if value is not None}
    return TelemetryEvent(name, round(clock.time() * 1000), pool, worker, role, task, known)


def encode_events(events: list[TelemetryEvent]) -> bytes:
    """Events as they travel between processes."""
    return msgspec.msgpack.encode(events)


decode_events = msgspec.msgpack.Decoder(list[TelemetryEvent]).decode
"""The events that `encode_events` packed."""


def _plain(value: object) -> object:
    """A number, or a short text that can be sent: telemetry never breaks what it tells of."""
    if isinstance(value, bool | int | float):
        return value
    text = str(value)[:MAX_TEXT_LENGTH]
    return text if text.isascii() else text.encode(errors="replace").decode()


def _time_of_day(at: int) -> str:
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return f"{moment:%H:%M:%S}.{at % 1000:03}"
