"""What became of each row, by its number, in a byte."""

from __future__ import annotations

from enum import IntEnum

CHUNK = 4_096
"""Rows that are kept together."""


class State(IntEnum):
    """What became of a row: all but `NEW` and `OTHER` have been dealt with."""

    NEW = 0
    ANSWERED = 1
    FAILED = 2
    REFUSED = 3
    SKIPPED = 4
    OTHER = 5


class States:
    """The states of rows by number; chunks of rows that are all dealt with take no memory."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}
        self._changed: set[int] = set()
        self._finished: set[int] = set()

    def of(self, number: int) -> State:
        """What became of a row that is in no finished chunk."""
        chunk = self._chunks.get(number // CHUNK)
        return State.NEW if chunk is None else State(chunk[number % CHUNK])

    def set(self, number: int, state: State) -> None:
        """Note what became of a row."""
        chunk = self._chunks.setdefault(number // CHUNK, bytearray(CHUNK))
        chunk[number % CHUNK] = state
        self._changed.add(number // CHUNK)

    def load(self, chunk: int, states: bytes) -> None:
        """Take in a chunk of an earlier run."""
        self._chunks[chunk] = bytearray(states)
        if is_finished(states):
            self._finished.add(chunk)

    def take_changes(self, read: int) -> list[tuple[int, bytes]]:
        """The chunks that have changed since they were last taken.

        Those that are finished are let go once nobody asks for their rows any more: when a row
        of a later chunk is among the `read` first rows, which were read in order.
        """
        changes = [(chunk, bytes(self._chunks[chunk])) for chunk in sorted(self._changed)]
        self._changed.clear()
        self._finished.update(chunk for chunk, states in changes if is_finished(states))
        for chunk in [one for one in self._finished if (one + 1) * CHUNK < read]:
            self._finished.remove(chunk)
            del self._chunks[chunk]
        return changes


def is_finished(states: bytes | bytearray) -> bool:
    """Whether every row of a chunk has been dealt with."""
    return 0 not in states
