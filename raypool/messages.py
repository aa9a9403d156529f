"""What client, dispatcher and worker say to each other, and how it travels.

Messages travel as MessagePack: nothing that comes over the wire is unpickled, but for
the exception of a failed turn, which its client unpickles.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.events import Event, Verdict
from raypool.records import Ending
from raypool.task import Content
from raypool.usage import Usage


class Submission(msgspec.Struct, frozen=True, array_like=True):
    """Client to dispatcher: a task, under the number by which the client knows its future."""

    ticket: int
    id: str
    prompt: Content
    role: str | None = None
    metadata: Any = None
    timeout: float | None = None


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: why a task was not accepted, as an error's name and text."""

    ticket: int
    kind: str
    message: str


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: what became of a batch, once it is committed.

    Attributes:
        workers: by ticket, the worker that each accepted task was given to.
        refusals: the tasks that were not accepted.
    """

    workers: list[tuple[int, str | None]]
    refusals: list[Refusal]


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to worker: a task to run now, or as soon as a slot is free."""

    number: int
    id: str
    prompt: Content
    attempt: int = 1
    role: str | None = None
    metadata: Any = None
    timeout: float | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a finished turn gave; `events` is `None` when text and result are all there was."""

    text: str
    usage: Usage
    duration_ms: float
    model: str | None = None
    stop_reason: str | None = None
    session_id: str | None = None
    cost_usd: float | None = None
    events: list[Event] | None = None


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """How a turn failed.

    Attributes:
        kind: the name of the error class that the task's future would raise.
        verdict: what it means for the task and for the pool.
        type: the class name of the exception, or the provider's error type.
        message: what it said.
        duration_ms: how long the turn ran.
        retry_after: seconds the provider asked to wait.
        traceback: the traceback as text.
        exception: the exception, pickled, where it pickles.
    """

    kind: str
    verdict: Verdict
    type: str
    message: str
    duration_ms: float = 0.0
    retry_after: float | None = None
    traceback: str = ""
    exception: bytes | None = None


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """Worker to dispatcher: an attempt has ended; neither means that it was cancelled."""

    number: int
    answer: Answer | None = None
    failure: Failure | None = None


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: a task has ended, and its end is recorded."""

    ticket: int
    id: str
    ending: Ending
    events: list[Event] | None = None
    exception: bytes | None = None


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    Attributes:
        node: the id of the Ray node it runs on.
        pid: the id of its process.
        running: turns that run now.
        queued: tasks of started envelopes whose turn has not started.
        finished: attempts ended since the process started.
    """

    node: str
    pid: int
    running: int
    queued: int
    finished: int


_encode = msgspec.msgpack.Encoder().encode

decode_submissions = msgspec.msgpack.Decoder(list[Submission]).decode
decode_receipt = msgspec.msgpack.Decoder(Receipt).decode
decode_assignments = msgspec.msgpack.Decoder(list[Assignment]).decode
decode_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode
decode_deliveries = msgspec.msgpack.Decoder(list[Delivery]).decode


def encode(message: object) -> bytes:
    """A message, or a list of them, as it travels."""
    return _encode(message)
