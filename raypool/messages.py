"""What client, dispatcher and worker say to each other, and how it travels.

Messages travel as MessagePack: nothing that comes over the wire is unpickled, but for
the exception of a failed turn, which its client unpickles.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.events import Event, Verdict
from raypool.ledger import EndedTask
from raypool.records import AcceptedTask, Ending
from raypool.task import Content, State
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
    """Dispatcher to client: a task has ended and its end is recorded, or it could not be.

    Attributes:
        ticket: the number by which the client knows the future.
        ending: how the task ended; `None` when the ledger could not be written.
        events: what its last turn yielded, where that is more than text and result.
        exception: what it failed with, pickled.
        ledger_error: why its end is not recorded.
    """

    ticket: int
    ending: Ending | None
    events: list[Event] | None = None
    exception: bytes | None = None
    ledger_error: str | None = None


class Collected(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: deliveries since the last call, and whether there will be more."""

    deliveries: list[Delivery]
    has_stopped: bool = False


class Found(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: one task as it is now; without an ending it is unfinished."""

    task: AcceptedTask
    ending: Ending | None = None
    state: State = "queued"
    worker: str | None = None
    attempts: int = 0


class PoolInfo(msgspec.Struct, frozen=True):
    """Dispatcher to client: what does not change while the pool runs.

    Attributes:
        name: the pool's name.
        namespace: the Ray namespace of its actors.
        roles: by worker, its role.
        max_pending: how many tasks a client may have unfinished.
        keeps_ledger: its ledger outlives it.
    """

    name: str
    namespace: str
    roles: dict[str, str]
    max_pending: int
    keeps_ledger: bool


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    Attributes:
        node: the id of the Ray node it runs on.
        pid: the id of its process.
        running: the numbers of the tasks whose turn runs now.
        queued: tasks of started envelopes whose turn has not started.
        finished: attempts ended since the process started.
    """

    node: str
    pid: int
    running: list[int]
    queued: int
    finished: int


def _plain(value: object) -> str | float:
    """A text or a number of a derived class, as `numpy.str_`, travels as a plain one."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise NotImplementedError(f"{type(value).__name__} is not what a message can hold")


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode

decode_submissions = msgspec.msgpack.Decoder(list[Submission]).decode
decode_receipt = msgspec.msgpack.Decoder(Receipt).decode
decode_assignments = msgspec.msgpack.Decoder(list[Assignment]).decode
decode_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode
decode_collected = msgspec.msgpack.Decoder(Collected).decode


decode_ended = msgspec.msgpack.Decoder(list[EndedTask]).decode
decode_found = msgspec.msgpack.Decoder(Found).decode


def encode(message: object) -> bytes:
    """A message, or a list of them, as it travels."""
    return _encode(message)
