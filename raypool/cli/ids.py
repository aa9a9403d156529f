"""An id for every row, in few bytes each: ten million rows need 150 MB."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

FIRST_SLOTS = 1 << 12
MOST_FULL = 0.6


def hash_of(text: str) -> int:
    """64 bits that stand for a text, in every run the same; never 0.

    Among ten million texts two have the same once in 400,000 runs.
    """
    return (
        int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) or 1
    )


class HashTable:
    """Hashes in the order in which they were put, found again by open addressing.

    What was put is kept in one array and its positions in another, which is rebuilt as it grows:
    12 to 17 bytes for each.
    """

    def __init__(self) -> None:
        self.hashes = array("Q")
        self._slots = array("I", [0]) * FIRST_SLOTS
        self._used = 0

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, wanted: int) -> int | None:
        """The position of a hash; `None` when it was not put."""
        position = self._slots[self._slot_of(wanted)]
        return position - 1 if position else None

    def put(self, new: int) -> None:
        """Put a hash that was not put yet at the next position; 0 only takes the position."""
        self.hashes.append(new)
        if new:
            self._slots[self._slot_of(new)] = len(self.hashes)
            self._used += 1
            if self._used > MOST_FULL * len(self._slots):
                self._rebuild()

    def load(self, pieces: Iterator[bytes]) -> None:
        """Put what earlier tables had, as bytes of their arrays."""
        for piece in pieces:
            self.hashes.frombytes(piece)
        self._rebuild()

    def _slot_of(self, wanted: int) -> int:
        """Where a hash is, or would be put."""
        slots, hashes = self._slots, self.hashes
        last = len(slots) - 1
        slot = wanted & last
        while (position := slots[slot]) and hashes[position - 1] != wanted:
            slot = (slot + 1) & last
        return slot

    def _rebuild(self) -> None:
        size = len(self._slots)
        while len(self.hashes) >= MOST_FULL * size:
            size *= 2
        self._slots = array("I")  # before the new one: there must not be both
        slots = array("I", [0]) * size
        last = size - 1
        self._used = 0
        for position, one in enumerate(self.hashes, start=1):
            if one:
                slot = one & last
                while slots[slot]:
                    slot = (slot + 1) & last
                slots[slot] = position
                self._used += 1
        self._slots = slots


class Ids:
    """Gives every row an id of its own, whatever ids others have; rows are numbered from 0."""

    def __init__(self) -> None:
        self.table = HashTable()

    def first_with(self, row_id: str) -> int | None:
        """The number of the row that has that id; `None` when none has."""
        return self.table.find(hash_of(row_id))

    def take(self, row_id: str) -> None:
        """The next row has that id, which no row has."""
        self.table.put(hash_of(row_id))

    def take_none(self) -> None:
        """The next row has no id, since it cannot be asked."""
        self.table.put(0)

    def free_id(self, digest: str) -> str:
        """The request's digest with the lowest occurrence number that is free: `9f2c…-1`."""
        free = 1
        while self._is_taken(digest, free):
            free *= 2
        taken = free // 2
        while free - taken > 1:
            middle = (free + taken) // 2
            if self._is_taken(digest, middle):
                taken = middle
            else:
                free = middle
        return f"{digest}-{free}"

    def _is_taken(self, digest: str, occurrence: int) -> bool:
        return self.first_with(f"{digest}-{occurrence}") is not None
