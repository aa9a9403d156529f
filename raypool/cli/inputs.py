"""Finding and opening what is asked."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from raypool.cli.csv_table import DELIMITERS, CsvTable
from raypool.cli.json_lines import JsonLines, TextLines
from raypool.cli.parquet_table import ParquetTable
from raypool.cli.problem import Problem
from raypool.cli.records import Format, Origin, Reader

STREAM = "-"
STDIN = 0
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_NOT_TEXT = (".json", ".gz", ".zst", ".xz", ".bz2", ".zip", ".xlsx", ".db", ".ledger")


class Input:
    """An input that can be read.

    Attributes:
        origin: how messages name it.
        format: what its records are.
        size: its bytes in all, of Parquet its rows; `None` when nobody can know.
        path: its file; `None` for a stream.
    """

    def __init__(self, name: str, row_format: Format, stream: BinaryIO | None = None) -> None:
        self.format = row_format
        self.path = None if stream else name
        self.origin = Origin("stdin" if name == STREAM else name, _unit(row_format))
        self._stream = stream
        self.size = self._size()

    def open(self) -> Reader:
        """Begin to read; a stream can be read once.

        Raises:
            OSError: it cannot be read any more.
            Problem: its header cannot be read.
        """
        if self.format == "parquet":
            assert self.path is not None
            return ParquetTable(self.path)
        stream = self._stream or Path(self.path or "").open("rb")  # noqa: SIM115 - the reader's
        if self.format in DELIMITERS:
            return CsvTable(stream, self.origin.name, DELIMITERS[self.format])
        return JsonLines(stream) if self.format == "jsonl" else TextLines(stream)

    def stamp(self) -> list[object]:
        """What tells whether a file is what it was."""
        found = Path(self.path or "").stat()
        return [str(Path(self.path or "").resolve()), self.format, found.st_size, found.st_mtime_ns]

    def _size(self) -> int | None:
        if self._stream is not None:
            return None
        if self.format == "parquet":
            assert self.path is not None
            table = ParquetTable(self.path)
            table.close()
            return table.rows
        return Path(self.path or "").stat().st_size


def open_inputs(
    names: Sequence[str], row_format: Format | None, written: Collection[Path] = ()
) -> list[Input]:
    """The inputs that `names` are: files, patterns as `data/*.jsonl`, or `-` for stdin.

    What the run itself has `written` is in no pattern.

    Raises:
        Problem: one cannot be read, or nobody said what its lines are.
    """
    if STREAM in names:
        if len(names) > 1:
            raise Problem("- is stdin, and is read alone; cat FILE… | raypool run - joins files")
        return [_stdin(row_format)]
    own = {path.resolve() for path in written}
    paths = [path for name in names for path in _paths(name, own)]
    return [_file(path, row_format) for path in dict.fromkeys(paths)]


def _paths(name: str, own: Collection[Path]) -> list[str]:
    if not glob.has_magic(name) or Path(name).exists():
        if Path(name).resolve() in own:
            raise Problem(
                f"{name} is written by this run; choose another output (-o), or --retry-failed to "
                "ask failed rows again"
            )
        return [name]
    matches = glob.iglob(name, recursive=True)  # noqa: PTH207 - Path's takes no absolute ones
    found = sorted(
        path for path in matches if Path(path).is_file() and Path(path).resolve() not in own
    )
    if not found:
        raise Problem(f"no file is named {name}")
    return found


def _file(path: str, row_format: Format | None) -> Input:
    row_format = row_format or _format_of(Path(path))
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - a pipe stays open, since it ends otherwise
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return Input(path, row_format, stream)
        with stream:
            return Input(path, row_format)
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from error


def _stdin(row_format: Format | None) -> Input:
    if row_format == "parquet":
        raise Problem("Parquet cannot be read from a stream; write it to a file")
    try:
        stream = os.fdopen(STDIN, "rb", closefd=False)
        return Input(STREAM, row_format or _format_of_stream(stream), stream)
    except OSError as error:
        raise Problem(f"cannot read stdin: {error.strerror}") from error


def _format_of(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix in _NOT_TEXT:
        raise Problem(
            f"{path} is none of JSON lines (.jsonl, .ndjson), CSV, TSV and Parquet, and its lines "
            "would be asked as they stand; --format jsonl or --format text says that this is meant"
        )
    return _SUFFIXES.get(suffix, "text")


def _format_of_stream(stream: BufferedReader) -> Format:
    """JSON lines when the first character opens an object."""
    first = stream.peek(1).lstrip(b"\xef\xbb\xbf \t\r\n")
    return "jsonl" if first.startswith(b"{") else "text"


def _unit(row_format: Format) -> str:
    return "row" if row_format == "parquet" else "line"
