"""What became of each row, by its number, in a byte."""

from __future__ import annotations

from collections.abc import Iterator
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

    def take_changes(self) -> Iterator[tuple[int, bytes]]:
        """The chunks that have changed since they were last taken; finished ones are let go."""
        for chunk in sorted(self._changed):
            states = self._chunks[chunk]
            yield chunk, bytes(states)
            if is_finished(states):
                del self._chunks[chunk]
        self._changed.clear()


def is_finished(states: bytes | bytearray) -> bool:
    """Whether every row of a chunk has been dealt with."""
    return 0 not in states
