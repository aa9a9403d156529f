"""Stopping to send when no request can succeed."""

from __future__ import annotations

from collections.abc import Callable

from raypool.clock import Clock

FATAL_IN_A_ROW = 3
FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 600.0


class Breaker:
    """A circuit breaker: opens after three fatal failures in a row, closes after a success.

    While it is open nothing is sent but, after 30 s, one probe; each probe that fails doubles
    the wait, up to ten minutes (https://martinfowler.com/bliki/CircuitBreaker.html).

    Attributes:
        on_change: is told of each opening, by the type of the last error, and of each closing
            by `None`.
    """

    def __init__(self, clock: Clock) -> None:
        self.on_change: Callable[[str | None], None] | None = None
        self._clock = clock
        self._failures = 0
        self._reason: str | None = None
        self._wait = FIRST_WAIT_SECONDS
        self._probe_at = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether nothing but a probe is sent."""
        return self._reason is not None

    @property
    def why(self) -> str | None:
        """Why nothing is sent, and what to do; `None` while it is closed."""
        if self._reason is None:
            return None
        return (
            f"sending has stopped after {self._failures} fatal errors in a row, the last one: "
            f"{self._reason}; what waits stays. Mend the cause and call pool.resume_sending(); "
            f"{self._next_probe()}"
        )

    def opens_in(self) -> float | None:
        """Seconds until a probe may be sent; `None` while one is under way."""
        if self._reason is None:
            return 0.0
        return None if self._is_probing else max(0.0, self._probe_at - self._clock.monotonic())

    def begin_probe(self) -> None:
        """While it is open, and `opens_in` is 0: what is sent now is the probe."""
        self._is_probing = True

    def end_probe(self) -> None:
        """The probe has ended without saying anything: another one may be sent."""
        self._is_probing = False

    def succeed(self) -> None:
        """A request was answered."""
        self._failures = 0
        if self._reason is not None:
            self.close()

    def fail(self, error_type: str, message: str, *, is_probe: bool = False) -> bool:
        """A request has failed as any would; whether its task waits, instead of failing.

        It does when the breaker was open: it was the probe, or sent before the opening.
        """
        self._failures += 1
        if self._reason is not None:
            if is_probe:
                self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)
                self._rest(error_type, message)
            return True
        if self._failures >= FATAL_IN_A_ROW:
            self._rest(error_type, message)
            self._tell(error_type)
        return False

    def close(self) -> None:
        """Send again, whatever was."""
        was_open = self.is_open
        self._failures, self._reason = 0, None
        self._wait, self._is_probing = FIRST_WAIT_SECONDS, False
        if was_open:
            self._tell(None)

    def _rest(self, error_type: str, message: str) -> None:
        self._reason = f"{error_type}: {message}"
        self._is_probing = False
        self._probe_at = self._clock.monotonic() + self._wait

    def _next_probe(self) -> str:
        seconds = self.opens_in()
        if seconds is None:
            return "one task is tried now"
        return f"one task is tried in {seconds:.0f} s" if seconds else "one task is tried next"

    def _tell(self, error_type: str | None) -> None:
        if self.on_change is not None:
            self.on_change(error_type)
