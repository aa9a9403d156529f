"""What a report says, as plain values: gathered by one module, drawn by another."""

from __future__ import annotations

from dataclasses import dataclass, field

from raypool.ledger import Totals
from raypool.report.latency import Bar, Latency
from raypool.setbacks import Setback
from raypool.usage import Usage


@dataclass(frozen=True)
class Moment:
    """What ended in one span of time.

    Attributes:
        since: when the span began, in milliseconds since the epoch.
        completed, failed, cancelled: how many tasks ended so.
        input_tokens: tokens read, cached ones included.
        output_tokens: tokens written.
        cost_usd: what is known of what they cost, in USD.
    """

    since: int
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True)
class Group:
    """The ended tasks of one role and one model.

    Attributes:
        role: the role of the workers that had them; `None` where no worker had.
        model: the model that answered; `None` where none did, or it has no name.
        completed, failed, cancelled: how many tasks ended so.
        usage: tokens spent on them.
        cost_usd: what is known of what they cost, in USD.
        unpriced: completed ones without a known price.
        latency: of the completed ones.
    """

    role: str | None
    model: str | None
    completed: int
    failed: int
    cancelled: int
    usage: Usage
    cost_usd: float
    unpriced: int
    latency: Latency


@dataclass(frozen=True)
class ErrorCount:
    """How many tasks have failed with one type of error.

    Attributes:
        kind: the name of the error class that their futures raised.
        type: the class of the exception, or the provider's name for the error.
        count: how many.
    """

    kind: str
    type: str
    count: int


@dataclass(frozen=True)
class Content:
    """What was asked and answered, shortened; only in a report that may show it."""

    prompt: str
    answer: str
    message: str


@dataclass(frozen=True)
class Line:
    """One ended task.

    Attributes:
        id: its name.
        state: how it ended.
        role, worker, model: who had it.
        attempts: how many attempts were made.
        completed_at: when it ended, in milliseconds since the epoch.
        duration_ms: how long its last turn ran.
        usage: tokens spent on it.
        cost_usd: what it cost in USD; `None` when no price is known.
        error: the type of its error.
        content: texts, where the report may show them.
    """

    id: str
    state: str
    role: str | None
    worker: str | None
    model: str | None
    attempts: int
    completed_at: int
    duration_ms: float | None
    usage: Usage
    cost_usd: float | None
    error: str | None
    content: Content | None = None


@dataclass(frozen=True)
class Listing:
    """Some tasks of many: the first of them, and how many there are in all."""

    lines: tuple[Line, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class Figures:
    """All that a report says.

    Attributes:
        pool: the name of the pool that the ledger belongs to.
        ledger: the name of the file that the figures come from.
        made_at: when they were gathered, in milliseconds since the epoch.
        totals: what the ledger holds, in sums.
        step_ms: the length of a moment's span, in milliseconds.
        moments: every span from the first ending or setback to the last, in order.
        latency: of all completed tasks.
        bars: how their durations are spread.
        groups: by role and model, the most expensive first.
        setback_step_ms: the length of a setback's span, in milliseconds.
        setbacks: what was asked again, in the order of time.
        errors: the most frequent first.
        slowest: the slowest first.
        failed: the last first.
        has_content: prompts, answers and messages of errors are shown.
    """

    pool: str
    ledger: str
    made_at: int
    totals: Totals = field(default_factory=Totals)
    step_ms: int = 1_000
    moments: tuple[Moment, ...] = ()
    latency: Latency = field(default_factory=Latency)
    bars: tuple[Bar, ...] = ()
    groups: tuple[Group, ...] = ()
    setback_step_ms: int = 10_000
    setbacks: tuple[Setback, ...] = ()
    errors: tuple[ErrorCount, ...] = ()
    slowest: Listing = field(default_factory=Listing)
    failed: Listing = field(default_factory=Listing)
    has_content: bool = False
