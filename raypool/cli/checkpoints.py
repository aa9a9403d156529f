"""Where a run has come to, so that the next one needs to read neither all rows nor all results.

An index beside the output, in SQLite: for every chunk of rows where it begins, the hashes of its
rows' ids, and what became of each row; and how long the output was then. It may be lost: then a
run reads the whole output and input again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from raypool.cli.rows import Beginning
from raypool.cli.states import is_finished

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY,
    beginning TEXT,  -- JSON: row, input, offset, line
    ids BLOB,        -- 8 bytes a row; NULL while not all of its rows were read
    states BLOB      -- a byte a row
);
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_BEGIN = (
    "INSERT INTO chunks (number, beginning) VALUES (?, ?)"
    " ON CONFLICT (number) DO UPDATE SET beginning = excluded.beginning"
)
_SET_IDS = "UPDATE chunks SET ids = ? WHERE number = ?"
_SET_STATES = (
    "INSERT INTO chunks (number, states) VALUES (?, ?)"
    " ON CONFLICT (number) DO UPDATE SET states = excluded.states"
)
_KEEP = "INSERT INTO kept VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class Sizes(NamedTuple):
    """How long the files were, in bytes, with every row that is noted as dealt with.

    Attributes:
        output: the output.
        failed: the file of failed rows.
    """

    output: int
    failed: int


class Checkpoint(msgspec.Struct):
    """What an earlier run has left.

    Attributes:
        sizes: how long its files were.
        beginning: where the first chunk begins that is not finished.
        finished: the states of the rows before it, chunk by chunk.
        unfinished: the states of the rows from there on, by chunk.
    """

    sizes: Sizes
    beginning: Beginning
    finished: list[bytes]
    unfinished: dict[int, bytes]


class Checkpoints:
    """The index of one output; what goes wrong with it only costs the next run time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: sqlite3.Connection | None = None
        self._is_broken = False

    def load(self, stamp: Any) -> Checkpoint | None:
        """What was kept of the same inputs, read alike; `None` when nothing was."""
        if not self._path.exists():
            return None
        try:
            file = self._open()
            kept = dict(file.execute("SELECT key, value FROM kept"))
            if kept.get("stamp") != _json([VERSION, stamp]) or "sizes" not in kept:
                return None
            return self._checkpoint(msgspec.json.decode(kept["sizes"], type=Sizes))
        except (sqlite3.Error, msgspec.MsgspecError):
            return None

    def ids(self, number: int) -> Iterator[bytes]:
        """The hashes of the ids of the first `number` chunks."""
        query = "SELECT ids FROM chunks WHERE number < ? ORDER BY number"
        for (ids,) in self._open().execute(query, (number,)):
            yield ids

    def begin(self, stamp: Any) -> None:
        """Start anew, for these inputs."""
        try:
            self.discard()
            file = self._open()
            with file:
                file.execute(_KEEP, ("stamp", _json([VERSION, stamp])))
        except sqlite3.Error:
            self._is_broken = True

    def save(
        self,
        sizes: Sizes,
        beginnings: Mapping[int, Beginning],
        ids: Iterable[tuple[int, bytes]],
        states: Sequence[tuple[int, bytes]],
    ) -> None:
        """Keep what has changed, all of it or nothing."""
        if self._is_broken:
            return
        try:
            file = self._open()
            with file:
                file.executemany(_BEGIN, [(k, _json(one)) for k, one in beginnings.items()])
                file.executemany(_SET_IDS, ((blob, k) for k, blob in ids))
                file.executemany(_SET_STATES, states)
                file.execute(_KEEP, ("sizes", _json(sizes)))
        except sqlite3.Error:
            # What this one has lost the next one would lack.
            self._is_broken = True
            self.discard()

    def discard(self) -> None:
        """Keep nothing any more, as far as the disk lets it."""
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._path}{suffix}").unlink()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> sqlite3.Connection:
        if self._file is None:
            self._file = sqlite3.connect(self._path, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.executescript(_SCHEMA)
        return self._file

    def _checkpoint(self, sizes: Sizes) -> Checkpoint | None:
        finished: list[bytes] = []
        unfinished: dict[int, bytes] = {}
        beginning: Beginning | None = None
        query = "SELECT number, beginning, ids IS NOT NULL, states FROM chunks ORDER BY number"
        for number, begins, has_ids, states in self._open().execute(query):
            if beginning is None:
                if number != len(finished) or begins is None:
                    break
                beginning = msgspec.json.decode(begins, type=Beginning)
                if has_ids and states is not None and is_finished(states):
                    finished.append(states)
                    beginning = None
                    continue
            if states is not None:
                unfinished[number] = states
        return beginning and Checkpoint(sizes, beginning, finished, unfinished)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
