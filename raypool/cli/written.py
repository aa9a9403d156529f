"""Which rows have their line in the output, by what the lines say."""

from __future__ import annotations

from array import array

from raypool.cli.ids import HashTable, hash_of
from raypool.cli.states import State

_ASKED_BYTES = 4


class Written:
    """Rows by their ids, in about 20 bytes each."""

    def __init__(self) -> None:
        self._ids = HashTable()
        self._asked = array("I")
        self._has_failed = bytearray()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, row_id: str, digest: str, *, failed: bool) -> bool:
        """Note that a row has its line; `False` when it was noted before."""
        row = hash_of(row_id)
        if self._ids.find(row) is not None:
            return False
        self._ids.put(row)
        self._asked.append(_short(digest))
        self._has_failed.append(failed)
        return True

    def state(self, row_id: str, digest: str) -> State:
        """What became of a row that asks the same; `OTHER` when something else was asked."""
        place = self._ids.find(hash_of(row_id))
        if place is None:
            return State.NEW
        if self._asked[place] != _short(digest):
            return State.OTHER
        return State.FAILED if self._has_failed[place] else State.ANSWERED


def _short(digest: str) -> int:
    return int(digest[: 2 * _ASKED_BYTES], 16)
