"""Who still uses something: leases that their users renew, and that run out when they do not."""

from __future__ import annotations

from raypool.clock import Clock


class Leases:
    """The leases on one thing, by user.

    A lease runs out `seconds` after it was taken or last renewed, so a user that
    was killed stops counting by itself. Until the first lease is taken, the
    thing counts as used for as long as one lease lasts.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._renewed: dict[str | None, float] = {None: clock.monotonic()}

    def renew(self, user: str) -> None:
        """Take the lease of `user`, or make it last as long as a new one."""
        self._renewed.pop(None, None)
        self._renewed[user] = self._clock.monotonic()

    def release(self, user: str) -> None:
        """End the lease of `user` at once, if there is one."""
        self._renewed.pop(user, None)

    @property
    def is_over(self) -> bool:
        """Whether nobody holds a lease any more."""
        oldest = self._clock.monotonic() - self._seconds
        return not any(renewed > oldest for renewed in self._renewed.values())
