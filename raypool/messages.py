"""What client, dispatcher and worker say to each other, and how it travels.

Messages travel as MessagePack, and the dispatcher unpickles nothing in them. A client unpickles
what a worker has pickled for it: the exception of a failed turn, and the answer as the agent's
`output_type`; a worker, the class of the type that a client's task asks for.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.events import Event, Verdict
from raypool.ledger import EndedTask
from raypool.provider_limits import ProviderLimits
from raypool.records import AcceptedTask, Conversation, Ending
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
    session: str | None = None
    worker: str | None = None
    output_type: str | None = None
    stream: bool = False
    priority: int = 0
    tenant: str | None = None
    hedge_after: float | str | None = None
    race: str | None = None


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: why a task was not accepted, as an error's name and text."""

    ticket: int
    kind: str
    message: str


class Receipt(msgspec.Struct, array_like=True):
    """Dispatcher to client: what became of a batch, once it is committed.

    Attributes:
        workers: by ticket, the worker that each accepted task was given to.
        refusals: the tasks that were not accepted.
        epoch: which of the pool's dispatchers says so, counted from 1.
    """

    workers: list[tuple[int, str | None]]
    refusals: list[Refusal]
    epoch: int = 0


class Stopped(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: what a pool that has stopped leaves.

    Attributes:
        unfinished: accepted tasks without an ending in the ledger.
        unrecorded: those of them that had ended, and whose end could not be recorded.
        ledger_error: why that could not be.
    """

    unfinished: int
    unrecorded: int = 0
    ledger_error: str | None = None


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to worker: a task to run now, or as soon as a slot is free.

    Attributes:
        attempt: which attempt at the task's turn this is, from 1.
        session_turns: how many tasks its session has behind it.
        output_type: the digest of the type that the answer must be.
        streams: its text is wanted as it is generated.
        may_wait: a refusal of this attempt is waited for.
        exchanges: how many exchanges with the backend capacity is reserved for; the task pauses
            before the next one. `None`: as many as it takes.
        may_miss: that this attempt cannot reach the provider is waited for.
    """

    number: int
    id: str
    prompt: Content
    attempt: int = 1
    role: str | None = None
    metadata: Any = None
    timeout: float | None = None
    session: str | None = None
    session_turns: int = 0
    output_type: str | None = None
    streams: bool = False
    may_wait: bool = True
    exchanges: int | None = None
    may_miss: bool = True


class Notice(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to worker: what `Pool.notify` was given, under a number of its own.

    Attributes:
        is_from_agent: an agent of the pool has sent it: it belongs to the work of the one
            that it comes from, and is waited for with that.
        exchanges: of the turn that it leads to, as an `Assignment` has it.
    """

    number: int
    event: Any
    is_from_agent: bool = False
    exchanges: int | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What the last turn of a chain gave.

    Attributes:
        text: the answer.
        duration_ms: how long the turn ran.
        model: the model that answered.
        stop_reason: why it stopped.
        session_id: the conversation.
        events: what came of the turn; `None` when text and result are all there was.
        parsed: the answer as the agent's `output_type`, pickled for its client.
    """

    text: str
    duration_ms: float
    model: str | None = None
    stop_reason: str | None = None
    session_id: str | None = None
    events: list[Event] | None = None
    parsed: bytes | None = None


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
        turn: which turn of the task's chain failed, from 1.
        answers: the texts that did not fit the output type.
    """

    kind: str
    verdict: Verdict
    type: str
    message: str
    duration_ms: float = 0.0
    retry_after: float | None = None
    traceback: str = ""
    exception: bytes | None = None
    turn: int = 1
    answers: list[str] | None = None


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """Worker to dispatcher: the task that an agent's `handle_event` asked for."""

    id: str
    prompt: Content


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """Worker to dispatcher: an attempt has ended, or a notice is dealt with.

    Without an answer and a failure the task was cancelled, unless it `is_returned`.

    Attributes:
        usage: tokens since the task's last outcome.
        cost_usd: what they cost in USD; `None` when no price is known.
        turns: exchanges with the backend in the task's chain.
        is_returned: the task was not started: the worker takes no more, or it `is_called_back`.
        skipped: why the agent skipped the task.
        halt: why the worker takes no more tasks from now on.
        conversation: what the task adds to its session.
        snapshot: the agent's state after the task, as JSON.
        asked: the task that a notice has become.
        requests: exchanges with the backend since the task's last outcome.
        is_paused: the task goes on where it is once capacity is reserved for another exchange.
        limits: what the provider last said of its limits.
        is_called_back: the dispatcher wanted the task back, and the worker takes others.
    """

    number: int
    answer: Answer | None = None
    failure: Failure | None = None
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    turns: int = 0
    is_returned: bool = False
    skipped: str | None = None
    halt: str | None = None
    conversation: Conversation | None = None
    snapshot: str | None = None
    asked: Asked | None = None
    requests: int = 0
    is_paused: bool = False
    limits: ProviderLimits | None = None
    is_called_back: bool = False


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Worker to dispatcher: text that a task's turn has generated meanwhile."""

    number: int
    text: str


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Worker to dispatcher: what has ended, and what was generated, since the last one."""

    outcomes: list[Outcome]
    pieces: list[Piece] = []


class TicketText(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: text for the stream of the future with this ticket."""

    ticket: int
    text: str


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: a task has ended and its end is recorded, or it could not be.

    Attributes:
        ticket: the number by which the client knows the future.
        ending: how the task ended; `None` when the ledger could not be written.
        events: what its last turn yielded, where that is more than text and result.
        exception: what it failed with, pickled.
        ledger_error: why its end is not recorded.
        parsed: the answer as the agent's `output_type`, pickled.
        output_type: the digest of the type that the task asked its answer to be.
    """

    ticket: int
    ending: Ending | None
    events: list[Event] | None = None
    exception: bytes | None = None
    ledger_error: str | None = None
    parsed: bytes | None = None
    output_type: str | None = None


class Collected(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: deliveries since the last call, and whether there will be more.

    The texts were generated before the deliveries.

    Attributes:
        was_forgotten: deliveries may have been dropped: the client was away for too long, or
            the dispatcher that it knew has died.
        epoch: which of the pool's dispatchers says so, counted from 1.
    """

    deliveries: list[Delivery]
    has_stopped: bool = False
    texts: list[TicketText] = []
    was_forgotten: bool = False
    epoch: int = 0


class Found(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: one task as it is now; without an ending it is unfinished."""

    task: AcceptedTask
    ending: Ending | None = None
    state: State = "queued"
    worker: str | None = None
    attempts: int = 0


class Unfinished(msgspec.Struct, frozen=True, array_like=True):
    """Dispatcher to client: a worker that has unfinished tasks, and why it does not go on.

    The worker is `None` for the tasks that no worker has been given.

    Attributes:
        halted: why the worker takes no tasks; `None` while it does.
        blocked: why it is sent none; `None` while it may be.
    """

    worker: str | None
    count: int
    halted: str | None = None
    blocked: str | None = None


class PoolInfo(msgspec.Struct, frozen=True):
    """Dispatcher to client: what does not change while the pool runs.

    Attributes:
        name: the pool's name.
        namespace: the Ray namespace of its actors.
        roles: the roles that tasks may name.
        max_pending: how many tasks a client may have unfinished.
        keeps_ledger: its ledger outlives it.
    """

    name: str
    namespace: str
    roles: tuple[str, ...]
    max_pending: int
    keeps_ledger: bool


class Terms(msgspec.Struct, frozen=True):
    """What a worker's turns are limited and priced by; told once, as it is ready.

    Attributes:
        provider: where its turns go, as the URL of a server; empty when nobody limits them.
        key: the fingerprint of the key that limits are counted by.
        model: the model that answers.
        max_tokens: the most output tokens of an exchange; `None` when nobody knows.
        overhead_tokens: about how many input tokens an exchange has beside the conversation:
            the system prompt and the tools.
        is_priced: what the model costs is known.
        backend: the name of the backend's class.
    """

    provider: str = ""
    key: str = ""
    model: str | None = None
    max_tokens: int | None = None
    overhead_tokens: int = 0
    is_priced: bool = False
    backend: str = ""

    @property
    def answers(self) -> str:
        """What answers: the model, or where nobody knows one the backend, by name."""
        return self.model or self.backend


class HeldTask(msgspec.Struct, frozen=True, array_like=True):
    """Worker to dispatcher: a task that it has begun, and which attempt at its turn it was at."""

    number: int
    id: str
    attempt: int

    @classmethod
    def of(cls, work: Assignment) -> HeldTask:
        """The task of an assignment."""
        return cls(work.number, work.id, work.attempt)


class Rejoined(msgspec.Struct, frozen=True):
    """Worker to dispatcher: what it has, for one that comes after another that has died.

    Attributes:
        terms: what its turns are limited and priced by.
        begun: tasks whose turn runs, or has ended without that being confirmed.
        kept: tasks that wait in the middle.
        notices: what its agent was notified of, and is not known to have dealt with.
        halted: why it takes no more tasks; `None` while it does.
        last_number: the highest number that a task or a notice has come with.
    """

    terms: Terms
    begun: list[HeldTask]
    kept: list[HeldTask]
    notices: list[Notice]
    halted: str | None
    last_number: int


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    Attributes:
        node: the id of the Ray node it runs on.
        pid: the id of its process.
        running: the numbers of the tasks whose turn runs now.
        queued: tasks of started envelopes whose turn has not started.
        finished: attempts ended since the process started.
        halted: why it takes no more tasks; `None` while it does.
    """

    node: str
    pid: int
    running: list[int]
    queued: int
    finished: int
    halted: str | None = None


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
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_notice = msgspec.msgpack.Decoder(Notice).decode
decode_deliveries = msgspec.msgpack.Decoder(list[Delivery]).decode
decode_collected = msgspec.msgpack.Decoder(Collected).decode


decode_ended = msgspec.msgpack.Decoder(list[EndedTask]).decode
decode_found = msgspec.msgpack.Decoder(Found).decode


def encode(message: object) -> bytes:
    """A message, or a list of them, as it travels."""
    return _encode(message)
