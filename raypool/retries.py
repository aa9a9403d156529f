"""Given how an attempt failed: again after how long, or no more."""

from __future__ import annotations

from dataclasses import dataclass

import tenacity

from raypool.config import RetryPolicy
from raypool.messages import Failure

REFUSED_LIMIT_SECONDS = 15 * 60.0


@dataclass
class Tries:
    """What a task has behind it.

    Attributes:
        attempts: attempts that were made; a refusal is none.
        refusals: how often the provider had no capacity, since the last attempt.
        refused_seconds: how long the task has waited for capacity in all.
    """

    attempts: int = 0
    refusals: int = 0
    refused_seconds: float = 0.0


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

    def delay(self, tries: Tries, failure: Failure) -> float | None:
        """Count `failure` into `tries`; seconds until the next attempt, `None` for no more.

        A wait that the provider asked for is never cut short.
        """
        if failure.verdict == "refused":
            return self._after_refusal(tries, failure)
        tries.attempts += 1
        tries.refusals = 0
        if failure.verdict != "transient" or tries.attempts >= self._policy.max_attempts:
            return None
        return max(self._backoff(tries.attempts), failure.retry_after or 0.0)

    def _after_refusal(self, tries: Tries, failure: Failure) -> float | None:
        tries.refusals += 1
        delay = max(self._backoff(tries.refusals), failure.retry_after or 0.0)
        tries.refused_seconds += delay
        return delay if tries.refused_seconds <= REFUSED_LIMIT_SECONDS else None

    def _backoff(self, count: int) -> float:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = count
        return self._wait(state)
