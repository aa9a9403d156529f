"""Waiting for a provider that cannot be reached at all."""

from __future__ import annotations

from collections.abc import Callable

from raypool.clock import Clock
from raypool.config import RetryPolicy

PATIENCE_SECONDS = 15 * 60.0
"""How long a task waits for a provider that has been reached before."""

FIRST_PATIENCE_SECONDS = 120.0
"""How long a task waits for a provider that has never been reached: its address may be wrong."""

TALKING_SECONDS = 10.0
"""Nobody needs so long to connect: a probe that is still out then has reached somebody."""


class Outage:
    """While nobody can be reached, sends nothing but one probe now and then.

    It begins with the first request that finds nobody, and ends with the first probe that does.
    The waits between probes double, by the pool's retry policy.

    Attributes:
        on_change: is told of each beginning, by the type of the error, and of each end by `None`.
    """

    def __init__(self, clock: Clock, policy: RetryPolicy | None = None) -> None:
        policy = policy or RetryPolicy()
        self.on_change: Callable[[str | None], None] | None = None
        self._clock = clock
        self._first_wait = policy.initial_seconds
        self._longest_wait = policy.max_seconds
        self._wait = self._first_wait
        self._reason: str | None = None
        self._since = self._probe_at = 0.0
        self._probing_since: float | None = None
        self._was_reached = False

    @property
    def is_open(self) -> bool:
        """Whether nothing but a probe is sent."""
        return self._reason is not None

    def exhausts(self, unreached_since: float | None) -> bool:
        """Whether a task has waited long enough that found nobody at that time, and since."""
        if self._reason is None or unreached_since is None:
            return False
        patience = PATIENCE_SECONDS if self._was_reached else FIRST_PATIENCE_SECONDS
        return self._clock.monotonic() - unreached_since >= patience

    @property
    def why(self) -> str | None:
        """Why nothing is sent, and until when; `None` while the provider can be reached."""
        if self._reason is None:
            return None
        seconds = self._clock.monotonic() - self._since
        return (
            f"the provider has been out of reach for {seconds:.0f} s, and is waited for: "
            f"{self._reason}; {self._next_probe()}"
        )

    def opens_in(self) -> float:
        """Seconds until a probe may be sent, or the one that is out counts as an answer."""
        if self._reason is None:
            return 0.0
        now = self._clock.monotonic()
        if self._probing_since is not None:
            return max(0.0, self._probing_since + TALKING_SECONDS - now)
        return max(0.0, self._probe_at - now)

    def begin_probe(self) -> None:
        """While it is open, and `opens_in` is 0: what is sent now is the probe."""
        self._probing_since = self._clock.monotonic()

    def end_probe(self) -> None:
        """The probe has ended without saying anything: another one may be sent."""
        self._probing_since = None

    def wake(self) -> None:
        """Time has passed: a probe that is still out has reached somebody."""
        if self._probing_since is not None and not self.opens_in():
            self.close()

    def reach(self, *, is_probe: bool = False) -> None:
        """Somebody has answered; what was sent before the outage says nothing of its end."""
        self._was_reached = True
        if is_probe:
            self.close()

    def miss(self, error_type: str, message: str, *, is_probe: bool = False) -> None:
        """A request has found nobody."""
        was_open, now = self.is_open, self._clock.monotonic()
        if was_open and is_probe:
            self.end_probe()
        if was_open and (not is_probe or now < self._probe_at):
            return
        if was_open:
            self._wait = min(2 * self._wait, self._longest_wait)
        else:
            self._since, self._wait = now, self._first_wait
        self._reason = f"{error_type}: {message}"
        self._probe_at = now + self._wait
        if not was_open:
            self._tell(error_type)

    def close(self) -> None:
        """Send again, whatever was."""
        was_open = self.is_open
        self._reason = self._probing_since = None
        if was_open:
            self._tell(None)

    def _next_probe(self) -> str:
        if self._probing_since is not None:
            return "one task is tried now"
        seconds = self.opens_in()
        return f"one task is tried in {seconds:.0f} s" if seconds else "one task is tried next"

    def _tell(self, error_type: str | None) -> None:
        if self.on_change is not None:
            self.on_change(error_type)
