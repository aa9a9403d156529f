"""Given how an attempt failed: again after how long, or no more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tenacity

from raypool.config import RetryPolicy
from raypool.messages import Failure

REFUSED_LIMIT_SECONDS = 15 * 60.0


@dataclass
class Tries:
    """What a task has behind it.

    Attributes:
        turn: the last turn of the task's chain that has failed, from 1.
        attempts: attempts that were made at that turn; a refusal is none.
        earlier: attempts at the chain's other turns that have failed.
        refusals: how often the provider had no capacity, since the last attempt.
        refused_seconds: how long the task has waited for capacity in all.
        unreached_since: since when it waits for a provider that cannot be reached, by the clock
            that does not jump; `None` while it does not.
        is_last_call: it has waited for that as long as it may, and is tried once more.
        deaths: how many workers have died that had the task.
    """

    turn: int = 1
    attempts: int = 0
    earlier: int = 0
    refusals: int = 0
    refused_seconds: float = 0.0
    deaths: int = 0
    unreached_since: float | None = None
    is_last_call: bool = False

    @property
    def in_all(self) -> int:
        """Attempts at every turn."""
        return self.earlier + self.attempts

    @property
    def was_tried(self) -> bool:
        """Whether a worker may keep something of it."""
        return bool(self.in_all or self.refusals or self.unreached_since is not None)

    @property
    def may_wait(self) -> bool:
        """Whether the task may be refused once more."""
        return self.refused_seconds < REFUSED_LIMIT_SECONDS

    @property
    def may_miss(self) -> bool:
        """Whether the task may find nobody once more."""
        return not self.is_last_call

    def begin(self, turn: int) -> None:
        """Count attempts at that turn from now on, unless a later one was tried before.

        A chain that starts anew elsewhere so gets no more attempts than one that goes on.
        """
        if turn > self.turn:
            self.turn = turn
            self.earlier += self.attempts
            self.attempts = 0


class Retries:
    """Decides by a `RetryPolicy`; waits are exponential with full jitter.

    Full jitter: a wait is drawn evenly between nothing and the exponential bound
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._wait = tenacity.wait_random_exponential(
            multiplier=policy.initial_seconds, max=policy.max_seconds
        )

    def delay(self, tries: Tries, failure: Failure, now: float = 0.0) -> float | None:
        """Count `failure` into `tries`; seconds until the next attempt, `None` for no more.

        A wait that the provider asked for is never cut short. For a provider that cannot be
        reached the gate waits, which knows of the other tasks; the task's own wait is short.
        """
        tries.begin(failure.turn)
        if failure.verdict == "unreachable":
            if tries.unreached_since is None:
                tries.unreached_since = now
            return self._backoff(1) if tries.may_miss else None
        tries.unreached_since, tries.is_last_call = None, False
        if failure.verdict == "refused":
            return self._after_refusal(tries, failure)
        tries.attempts += 1
        tries.refusals = 0
        if failure.verdict != "transient" or tries.attempts >= self._policy.max_attempts:
            return None
        return max(self._backoff(tries.attempts), failure.retry_after or 0.0)

    def _after_refusal(self, tries: Tries, failure: Failure) -> float | None:
        if not tries.may_wait:
            return None
        tries.refusals += 1
        delay = max(self._backoff(tries.refusals), failure.retry_after or 0.0)
        tries.refused_seconds += delay
        return delay

    def survives(self, tries: Tries, *, was_running: bool) -> bool:
        """Count the death of a worker that had the task; whether it is run again.

        It is, however often that has happened, when it cannot have been running.
        """
        tries.deaths += 1
        return not was_running or tries.deaths < self._policy.max_deaths

    def company(self, tries: Tries, concurrency: int) -> float:
        """How many tasks a worker may have at once while this is one of them.

        A task whose worker has died goes with no more than run at the same time, and the last
        time by itself. So whatever kills its workers is counted, and fails alone.
        """
        if not tries.deaths:
            return math.inf
        return 1 if tries.deaths + 1 >= self._policy.max_deaths else concurrency

    def _backoff(self, count: int) -> float:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = count
        return self._wait(state)
