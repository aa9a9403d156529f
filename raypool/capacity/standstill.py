"""A reason to send nothing at all, whatever the limits allow."""

from __future__ import annotations


class Standstill:
    """What all gates of a pool are closed for, such as a ledger that cannot be written.

    Attributes:
        why: the reason, and what to do; `None` while there is none.
    """

    def __init__(self) -> None:
        self.why: str | None = None
