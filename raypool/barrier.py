"""Waiting for the futures that were open at one moment."""

from __future__ import annotations


class Barrier:
    """Counts down as the futures with a ticket up to `last_ticket` resolve."""

    def __init__(self, last_ticket: int, left: int) -> None:
        self._last_ticket = last_ticket
        self.left = left

    def resolved(self, ticket: int) -> None:
        """Note that the future with that ticket has resolved."""
        self.left -= ticket <= self._last_ticket
