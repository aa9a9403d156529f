"""What a run has done so far, in numbers."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Any

from raypool.cli.lines import BAD_ROW
from raypool.clock import Clock, SystemClock
from raypool.response import TaskResult
from raypool.usage import Usage

RATE_WINDOW_SECONDS = 30.0


class Tally:
    """Counts the rows of a run as they end; any thread may count.

    Attributes:
        answered: rows answered in this run.
        failed: rows of the input that have an error now, whenever it came.
        earlier: rows that an earlier run had finished.
        skipped: rows that were left out.
        cut: answers that `max_tokens` cut short.
        usage: tokens of the rows that ended in this run.
        cost_usd: what the answers with a known price cost, in USD.
        unpriced: answers whose price is not known.
        maybe_billed: turns of earlier runs that may have been billed though no answer came.
        reasons: how often each type of error came in this run.
        example: the first error of each type, in full.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.answered = 0
        self.failed = 0
        self.earlier = 0
        self.skipped = 0
        self.cut = 0
        self.usage = Usage()
        self.cost_usd = 0.0
        self.unpriced = 0
        self.maybe_billed = 0
        self.reasons: Counter[str] = Counter()
        self.example: dict[str, str] = {}
        self._ended = 0
        self._clock = clock or SystemClock()
        self._started = self._clock.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """Rows that have their line in the output."""
        return self.earlier + self._ended

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return self._clock.monotonic() - self._started

    def add(self, result: TaskResult) -> None:
        """Count a row that was asked."""
        with self._lock:
            self.usage += result.usage
            self.cost_usd += result.cost_usd or 0.0
            if result.state == "completed":
                self._add_answer(result)
            else:
                kind = result.error.type if result.error else "TaskCancelled"
                message = result.error.message if result.error else ""
                self._add_failure(kind, f"id {result.id!r}: {message}")

    def add_bad_row(self, message: str) -> None:
        """Count a row that could not be asked."""
        with self._lock:
            self._add_failure(BAD_ROW, message)

    def add_earlier(self, *, failed: bool) -> None:
        """Count a row that an earlier run had finished."""
        with self._lock:
            self.earlier += 1
            self.failed += failed

    def add_finished(self, answered: int, failed: int) -> None:
        """Count rows that an earlier run had finished."""
        with self._lock:
            self.earlier += answered + failed
            self.failed += failed

    def add_skipped(self) -> None:
        """Count a row that is left out."""
        with self._lock:
            self.skipped += 1

    def begin_pace(self) -> None:
        """Measure the pace from now on: what came before was not answering."""
        with self._lock:
            self._samples = deque([(self._clock.monotonic(), self._ended)])

    def figures(self) -> dict[str, Any]:
        """What was counted, for programs; the cost is `None` when no price is known."""
        with self._lock:
            usage = self.usage
            is_known = self.unpriced < self.answered or not self.answered
            return {
                "answered": self.answered,
                "failed": self.failed,
                "earlier": self.earlier,
                "skipped": self.skipped,
                "cut": self.cut,
                "input_tokens": usage.total_tokens - usage.output_tokens,
                "output_tokens": usage.output_tokens,
                "cost_usd": self.cost_usd if is_known else None,
                "unpriced": self.unpriced,
                "maybe_billed": self.maybe_billed,
                "seconds": self.seconds,
            }

    def rows_per_second(self) -> float:
        """The pace of the last half minute; 0 while nothing has ended."""
        now = self._clock.monotonic()
        with self._lock:
            if now - self._samples[-1][0] >= 1.0:
                self._samples.append((now, self._ended))
            while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_SECONDS:
                self._samples.popleft()
            since, ended_then = self._samples[0]
            return (self._ended - ended_then) / (now - since) if now > since else 0.0

    def _add_answer(self, result: TaskResult) -> None:
        self._ended += 1
        self.answered += 1
        self.cut += result.stop_reason == "max_tokens"
        self.unpriced += result.cost_usd is None

    def _add_failure(self, kind: str, example: str) -> None:
        self._ended += 1
        self.failed += 1
        self.reasons[kind] += 1
        self.example.setdefault(kind, example)
