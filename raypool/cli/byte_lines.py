"""The lines of a stream of bytes, and where each begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from raypool.cli.records import START, Place

BOM = b"\xef\xbb\xbf"


class ByteLines:
    """Lines as they are, each with its line feed; a byte order mark at the start is dropped.

    Attributes:
        place: where the next line begins.
    """

    def __init__(self, stream: BinaryIO, longest: int) -> None:
        self._stream = stream
        self._longest = longest
        self._offset, self._line = START

    @property
    def place(self) -> Place:
        return Place(self._offset, self._line)

    def start_at(self, place: Place) -> None:
        """Go on at a line that began there."""
        if place != self.place:
            self._stream.seek(place.offset)
            self._offset, self._line = place

    def __iter__(self) -> Iterator[bytes | None]:
        """Each line; `None` for one that is longer than `longest` bytes."""
        while piece := self._stream.readline(self._longest + 1):
            is_first = not self._offset
            self._offset += len(piece)
            self._line += 1
            if len(piece) > self._longest and not piece.endswith(b"\n"):
                self._skip_line()
                yield None
            else:
                yield piece.removeprefix(BOM) if is_first else piece

    def close(self) -> None:
        self._stream.close()

    def _skip_line(self) -> None:
        while piece := self._stream.readline(self._longest):
            self._offset += len(piece)
            if piece.endswith(b"\n"):
                return


def without_end(line: bytes) -> bytes:
    """A line without its line feed and the carriage return before it."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def utf8_problem(error: UnicodeDecodeError) -> str:
    """What is wrong with bytes that are not UTF-8."""
    return f"not valid UTF-8 (byte 0x{error.object[error.start]:02x} in column {error.start + 1})"
