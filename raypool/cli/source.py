"""Finding and opening what is asked."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple

from raypool.cli.problem import Problem
from raypool.cli.rows import Format

STREAM = "-"
STDIN = 0
_JSONL = (".jsonl", ".ndjson")
_NEITHER = (".csv", ".tsv", ".json", ".parquet", ".gz", ".zst", ".xz", ".bz2", ".zip")


class Source(NamedTuple):
    """An input that is open.

    Attributes:
        stream: its bytes.
        format: what its lines are.
        size: its bytes in all; `None` when nobody can know.
    """

    stream: BinaryIO
    format: Format
    size: int | None

    def close(self) -> None:
        """Close a file; a stream stays open, since a thread may still wait in it."""
        if self.size is not None:
            self.stream.close()


def open_source(name: str, row_format: Format | None) -> Source:
    """Open the file `name`, or stdin for `-`.

    Raises:
        Problem: it cannot be read, or nobody said what its lines are.
    """
    if name != STREAM and row_format is None:
        row_format = _format_of(Path(name))
    try:
        stream = _open(name)
    except OSError as error:
        raise Problem(f"cannot read {name}: {error.strerror}") from error
    found = os.fstat(stream.fileno())
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    return Source(stream, row_format or _format_of_stream(stream), size)


def _open(name: str) -> BufferedReader:
    return os.fdopen(STDIN, "rb") if name == STREAM else Path(name).open("rb")


def _format_of(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix in _NEITHER:
        raise Problem(
            f"{path} is not JSON lines (.jsonl, .ndjson), and its lines would be asked as they "
            "stand; --format jsonl or --format text says that this is meant"
        )
    return "jsonl" if suffix in _JSONL else "text"


def _format_of_stream(stream: BufferedReader) -> Format:
    """JSON lines when the first character opens an object."""
    first = stream.peek(1).lstrip(b"\xef\xbb\xbf \t\r\n")
    return "jsonl" if first.startswith(b"{") else "text"
