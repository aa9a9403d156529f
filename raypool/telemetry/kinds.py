"""The events of a pool: every one that there is, and what it tells."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

EventName: TypeAlias = Literal[
    "prompt.start",
    "prompt.stop",
    "prompt.error",
    "event.received",
    "state.changed",
    "mailbox.queued",
    "halted",
    "resumed",
    "worker.started",
    "worker.died",
    "worker.replaced",
    "worker.stopped",
    "task.accepted",
    "task.completed",
    "task.failed",
    "task.cancelled",
    "task.retried",
    "task.hedged",
    "task.hedge_lost",
    "tool.called",
    "tool.failed",
    "conversation.shortened",
    "limit.refused",
    "limit.spent",
    "breaker.opened",
    "breaker.closed",
    "scale.up",
    "scale.down",
    "scale.held",
    "telemetry.dropped",
]

Unit: TypeAlias = Literal["count", "ms", "seconds", "USD", "name", "reason"]
"""What a field holds: a whole number, a duration, money, what somebody named, or why.

There is no unit for text: prompts, answers, arguments of tools and messages of errors, which
may quote them, are in no event, and neither are keys.
"""


class Field(msgspec.Struct, frozen=True):
    """A field of events; it means the same in all of them.

    Attributes:
        unit: what its value is.
        meaning: what it says.
    """

    unit: Unit
    meaning: str


class EventKind(msgspec.Struct, frozen=True):
    """One kind of event.

    Attributes:
        meaning: what has happened, in a line.
        fields: the names of the fields that it may have; `FIELDS` says what they mean.
    """

    meaning: str
    fields: tuple[str, ...] = ()


FIELDS: dict[str, Field] = {
    "added": Field("count", "workers that come"),
    "attempt": Field("count", "which attempt at the task's turn this is, from 1"),
    "attempts": Field("count", "attempts made so far"),
    "budget": Field("name", "which limit is spent: `usd` or `tokens`"),
    "cost_usd": Field("USD", "what it cost, where a price is known"),
    "count": Field("count", "how many were lost; left out where nobody knows"),
    "dropped": Field("count", "messages taken from the conversation"),
    "duration_ms": Field("ms", "how long it took"),
    "error_type": Field("name", "the class of the error, or the provider's name for it"),
    "held": Field("count", "tasks that the worker had and had not finished"),
    "input_tokens": Field("count", "tokens read"),
    "kept": Field("count", "messages left in the conversation"),
    "kind": Field("name", "the error that the task's future raises"),
    "model": Field("name", "the model that answered"),
    "node": Field("name", "the id of the Ray node"),
    "output_tokens": Field("count", "tokens written"),
    "pid": Field("count", "the id of the process"),
    "queued": Field("count", "how many wait now"),
    "reason": Field("reason", "why; an agent's own words where it decided"),
    "removed": Field("count", "workers that go"),
    "restarts": Field("count", "how often the worker's process was replaced"),
    "session": Field("name", "the conversation that the task named"),
    "state": Field("name", "the state from now on: `idle`, `processing` or `halted`"),
    "stop_reason": Field("name", "why the model stopped"),
    "tool": Field("name", "the tool's name"),
    "turn": Field("count", "its place in the task's chain, from 1"),
    "turns": Field("count", "exchanges with the backend"),
    "verdict": Field("name", "`refused`, `unreachable`, `transient`, `invalid` or `fatal`"),
    "wait_seconds": Field("seconds", "how long until it goes on"),
    "waited_seconds": Field("seconds", "how long its first turn had run without an answer"),
    "where": Field("name", "whose buffer was full: `worker`, `reader` or `handler`"),
    "workers": Field("count", "how many there are from now on"),
}

EVENTS: dict[EventName, EventKind] = {
    "prompt.start": EventKind("A turn begins.", ("turn", "attempt", "session")),
    "prompt.stop": EventKind(
        "A turn has an answer.",
        (
            "turn",
            "attempt",
            "session",
            "duration_ms",
            "model",
            "stop_reason",
            "input_tokens",
            "output_tokens",
            "cost_usd",
        ),
    ),
    "prompt.error": EventKind(
        "A turn ended without an answer: the backend failed, its time ran out, it was interrupted.",
        ("turn", "attempt", "session", "duration_ms", "kind", "error_type", "verdict"),
    ),
    "event.received": EventKind(
        "A notification has reached the worker; its agent handles it after the running turn.",
        ("queued",),
    ),
    "state.changed": EventKind("A worker's state is another.", ("state",)),
    "mailbox.queued": EventKind(
        "A task waits for its worker, which is busy or halted.", ("queued",)
    ),
    "halted": EventKind("A worker takes no more tasks: its agent decided so.", ("reason",)),
    "resumed": EventKind("A worker that was halted takes tasks again."),
    "worker.started": EventKind(
        "A worker's agent is ready.", ("node", "pid", "restarts", "duration_ms")
    ),
    "worker.died": EventKind("A worker's process ended by itself.", ("reason", "held")),
    "worker.replaced": EventKind("A new process takes a dead worker's place.", ("restarts",)),
    "worker.stopped": EventKind("A worker ended because it was told to.", ("reason",)),
    "task.accepted": EventKind("A task is committed to the ledger.", ("session",)),
    "task.completed": EventKind(
        "A task has ended with an answer, and its end is recorded.",
        (
            "attempts",
            "turns",
            "duration_ms",
            "model",
            "stop_reason",
            "input_tokens",
            "output_tokens",
            "cost_usd",
        ),
    ),
    "task.failed": EventKind(
        "A task has failed for good, and its end is recorded.",
        (
            "attempts",
            "turns",
            "duration_ms",
            "kind",
            "error_type",
            "input_tokens",
            "output_tokens",
            "cost_usd",
        ),
    ),
    "task.cancelled": EventKind("A task was cancelled, or skipped by its agent.", ("reason",)),
    "task.retried": EventKind(
        "A task's turn will be tried again.", ("attempts", "kind", "error_type", "wait_seconds")
    ),
    "task.hedged": EventKind(
        "A task is late, and this worker runs a second copy of it.", ("waited_seconds",)
    ),
    "task.hedge_lost": EventKind(
        "A worker has run a task in vain that another one has answered sooner.",
        ("input_tokens", "output_tokens", "cost_usd"),
    ),
    "tool.called": EventKind("A tool has answered the model.", ("tool", "turn", "duration_ms")),
    "tool.failed": EventKind(
        "A tool raised; the model is told so.", ("tool", "turn", "duration_ms", "error_type")
    ),
    "conversation.shortened": EventKind(
        "A conversation outgrew the model's context and lost its oldest turns.",
        ("session", "dropped", "kept"),
    ),
    "limit.refused": EventKind(
        "The provider has no capacity (429, 529), or cannot be reached; the whole pool waits.",
        ("error_type", "wait_seconds"),
    ),
    "limit.spent": EventKind(
        "The pool's budget is spent; it sends nothing more.", ("budget", "cost_usd")
    ),
    "breaker.opened": EventKind(
        "The pool sends nothing more but a probe now and then: no request succeeds any more.",
        ("error_type",),
    ),
    "breaker.closed": EventKind("A request has succeeded, or somebody says so: sending goes on."),
    "scale.up": EventKind("The pool grows.", ("workers", "added", "reason")),
    "scale.down": EventKind("The pool shrinks.", ("workers", "removed", "reason")),
    "scale.held": EventKind(
        "The pool does not grow as far as what waits would have it.", ("workers", "reason")
    ),
    "telemetry.dropped": EventKind(
        "Events were lost before this one: they came faster than they were read.",
        ("count", "where"),
    ),
}
"""What each event tells, beside its name, time, pool, worker, role and task."""
