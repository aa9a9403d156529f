"""The ledger in a SQLite file."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from raypool import ledger_rows, sqlite_sessions
from raypool import sqlite_rows as rows
from raypool.lane import Lane
from raypool.ledger import (
    NO_EXTRA,
    NO_PROGRESS,
    POOL_NAME,
    EndedTask,
    Extra,
    KnownTask,
    Ledger,
    Progress,
    SentTask,
    Totals,
)
from raypool.ledger_rows import LoadedRow
from raypool.records import AcceptedTask, Death, Ending
from raypool.setbacks import Setback
from raypool.sqlite_file import SqliteFile, ledger_errors, open_beside
from raypool.sqlite_statements import change, in_pieces, insert, only_value, row_of, value_or_none
from raypool.unicode import unicode_text

_FRESH_DIRECTORY_PREFIX = "raypool-"

K = TypeVar("K")


class SqliteLedger(Ledger):
    """The ledger in a SQLite file, made when it is missing, held until `close`.

    What is committed survives the death of every process, and of the machine: `synchronous` is
    FULL, since a task is accepted when it is committed and an answer was paid for. That costs one
    `fsync` per transaction, which the tasks of a group share. A temporary ledger is gone with its
    pool anyway, so it has `synchronous` OFF: it survives processes, not the machine.

    Others may read the file at any time, as `sqlite3 -readonly` does.

    Args:
        path: the file; `None` makes a temporary one in a fresh directory.
        temporary: remove the file on `close`.

    Raises:
        LedgerError: the file cannot be used, or another pool uses it.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, temporary: bool = False
    ) -> None:
        self._is_temporary = temporary or path is None
        self._file = SqliteFile(
            _fresh_path() if path is None else Path(path).absolute(),
            temporary=self._is_temporary,
        )

    @staticmethod
    def peek_name(path: str | os.PathLike[str]) -> str | None:
        """The name of the pool that the ledger at `path` belongs to, also while one has it.

        `None` when there is no such file, or no pool has named itself in it.

        Raises:
            LedgerError: the file cannot be read, or is not a ledger.
        """
        path = Path(path).absolute()
        with ledger_errors(path):
            if not path.exists() or path.stat().st_size == 0:
                return None
            with closing(open_beside(path)) as reader:
                name: str | None = value_or_none(reader, rows.READ_META, (POOL_NAME,))
                return name

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def write(
        self,
        tasks: Sequence[AcceptedTask],
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
        progress: Progress = NO_PROGRESS,
    ) -> dict[int, KnownTask]:
        with self._transaction() as writer:
            left_out = _accept(writer, tasks) if tasks else {}
            if progress.sent:
                _note_sent(writer, progress.sent)
            if progress.deaths:
                insert(
                    writer, rows.ADD_DEATHS, [ledger_rows.death_row(one) for one in progress.deaths]
                )
            if endings:
                _record(writer, endings)
            if snapshots:
                _keep_snapshots(writer, snapshots)
            if extra != NO_EXTRA:
                writer.execute(rows.ADD_EXTRA, ledger_rows.extra_row(extra))
            return _load_by_number(writer, left_out)

    def find(self, task_id: str) -> KnownTask | None:
        return self.find_all([task_id]).get(task_id)

    def find_all(self, task_ids: Sequence[str]) -> dict[str, KnownTask]:
        with ledger_errors(self.path):
            numbers = _find_numbers(self._file.reader, task_ids)
            return _load_by_number(self._file.reader, numbers)

    def unfinished(self, after: int, limit: int) -> list[AcceptedTask]:
        with ledger_errors(self.path):
            page = self._page(rows.LOAD_UNFINISHED, after, limit)
            return [ledger_rows.accepted_task(loaded.task) for loaded in page]

    def unfinished_in(self, lane: Lane | None, after: int, limit: int) -> list[AcceptedTask]:
        names = {} if lane is None else lane._asdict()
        query = rows.LOAD_BOUND if lane is None else rows.LOAD_LANE
        with ledger_errors(self.path):
            page = self._page(query, after, limit, **names)
            return [ledger_rows.accepted_task(loaded.task) for loaded in page]

    def lanes(self) -> dict[Lane, int]:
        with ledger_errors(self.path):
            return dict(rows.decode_lanes(only_value(self._file.reader, rows.READ_LANES)))

    def ended(self, after: int, limit: int) -> list[EndedTask]:
        with ledger_errors(self.path):
            page = self._page(rows.LOAD_ENDED, after, limit)
            return [ledger_rows.ended_task(loaded) for loaded in page]

    def totals(self) -> Totals:
        with ledger_errors(self.path):
            return read_totals(self._file.reader)

    def requeue_failed(self) -> int:
        with self._transaction() as writer:
            requeued = writer.execute(rows.REQUEUE_FAILED).rowcount
            writer.execute(rows.FORGET_DEATHS_OF_FAILED)
            writer.execute(ledger_rows.FORGET_FAILED)
            writer.execute(ledger_rows.KEEP_COST_OF_FAILED)
            writer.execute(rows.FORGET_FAILED_TOTALS)
        return requeued

    def sent(self) -> list[SentTask]:
        with ledger_errors(self.path):
            text = only_value(self._file.reader, rows.READ_SENT)
            workers = rows.decode_workers(text)
            known = _load_by_number(self._file.reader, {number: number for number in workers})
        return [SentTask(known[number].task, workers[number]) for number in sorted(known)]

    def deaths(self, number: int | None = None) -> list[Death]:
        one = number is not None
        query, parameters = (rows.READ_DEATHS_OF_TASK, (number,)) if one else (rows.READ_DEATHS, ())
        with ledger_errors(self.path):
            return [Death(*row) for row in self._file.reader.execute(query, parameters).fetchall()]

    def restate(self, fingerprints: Mapping[int, bytes]) -> None:
        with self._transaction() as writer:
            change(writer, rows.RESTATE, list(fingerprints.items()))

    def session_turns(self, sessions: Sequence[str]) -> dict[str, int]:
        with ledger_errors(self.path):
            return sqlite_sessions.last_places(self._file.reader, sessions)

    def conversation(self, session: str) -> list[dict[str, Any]]:
        with ledger_errors(self.path):
            return sqlite_sessions.conversation(self._file.reader, session)

    def snapshot(self, worker: str) -> str | None:
        return self._read(rows.READ_SNAPSHOT, worker)

    def output_type(self, digest: str) -> str | None:
        return self._read(rows.READ_OUTPUT_TYPE, digest)

    def keep_output_type(self, digest: str, schema_json: str) -> None:
        with self._transaction() as writer:
            writer.execute(rows.KEEP_OUTPUT_TYPE, (digest, unicode_text(schema_json)))

    def add_setbacks(self, setbacks: Sequence[Setback]) -> None:
        table = [(one.since, one.kind, unicode_text(one.type), one.count) for one in setbacks]
        with self._transaction() as writer:
            insert(writer, rows.ADD_SETBACKS, table)

    def setbacks(self, span_ms: int) -> list[Setback]:
        with ledger_errors(self.path):
            return read_setbacks(self._file.reader, span_ms)

    def meta(self, key: str) -> str | None:
        return self._read(rows.READ_META, key)

    def set_meta(self, key: str, value: str) -> None:
        with self._transaction() as writer:
            writer.execute(rows.WRITE_META, (key, value))

    def close(self) -> None:
        self._file.close()
        if self._is_temporary:
            _remove(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        writer = self._file.writer
        with ledger_errors(self.path):
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            finally:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")

    def _read(self, query: str, key: str) -> str | None:
        with ledger_errors(self.path):
            text: str | None = value_or_none(self._file.reader, query, (key,))
            return text

    def _page(self, query: str, after: int, limit: int, **names: Any) -> list[LoadedRow]:
        def load(after: int, step: int) -> tuple[list[LoadedRow], int]:
            parameters = {"after": after, "limit": step, **names}
            text = only_value(self._file.reader, query, parameters)
            return rows.decode_loaded(text), len(text)

        return ledger_rows.read_page(load, after, limit)


def read_totals(reader: sqlite3.Connection) -> Totals:
    """What a ledger holds, in sums."""
    return ledger_rows.totals_of(reader.execute(rows.READ_TOTALS).fetchone())


def read_setbacks(reader: sqlite3.Connection, span_ms: int) -> list[Setback]:
    """What was asked again, summed by spans of so many milliseconds."""
    text = only_value(reader, rows.READ_SETBACKS, {"span": span_ms})
    return [Setback(*row) for row in rows.decode_setbacks(text)]


def _accept(writer: sqlite3.Connection, tasks: Sequence[AcceptedTask]) -> dict[int, int]:
    """Insert the tasks with new ids; the others' numbers, with those stored under their ids."""
    stored = _find_numbers(writer, [task.id for task in tasks])
    new, left_out = ledger_rows.new_tasks(tasks, stored)
    insert(writer, rows.INSERT_TASKS, [ledger_rows.task_row(task) for task in new])
    numbers = (_numbers_json(task.number for task in new),)
    writer.execute(rows.ADD_LANES, numbers)
    writer.execute(rows.ADD_UNFINISHED, numbers)
    return left_out


def _record(writer: sqlite3.Connection, endings: Sequence[Ending]) -> None:
    last_position = only_value(writer, rows.LAST_POSITION)
    insert(writer, rows.INSERT_ENDINGS, [ledger_rows.ending_row(ending) for ending in endings])
    numbers = _numbers_json(ending.number for ending in endings)
    writer.execute(rows.DROP_UNFINISHED, (numbers,))
    writer.execute(rows.FORGET_SENT, (numbers,))
    writer.execute(rows.ADD_TO_TOTALS, (last_position,))
    sqlite_sessions.add_conversations(writer, endings, last_position)


def _note_sent(writer: sqlite3.Connection, sent: Mapping[int, int | None]) -> None:
    writer.execute(rows.NOTE_SENT, (msgspec.json.encode(sent).decode(),))
    taken_back = [number for number, worker in sent.items() if worker is None]
    if taken_back:
        writer.execute(rows.FORGET_SENT, (_numbers_json(taken_back),))


def _keep_snapshots(writer: sqlite3.Connection, snapshots: Mapping[str, str]) -> None:
    table = [(worker, unicode_text(snapshot)) for worker, snapshot in snapshots.items()]
    insert(writer, rows.KEEP_SNAPSHOTS, table)


def _find_numbers(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
    """The numbers of the tasks that are stored under `ids`, by id."""
    found: dict[str, int] = {}
    for piece in in_pieces(ids):
        text = only_value(connection, f"{rows.FIND_NUMBERS} {row_of(len(piece))}", piece)
        found |= rows.decode_numbers(text)
    return found


def _load_by_number(connection: sqlite3.Connection, numbers: Mapping[K, int]) -> dict[K, KnownTask]:
    """What is stored under each of `numbers`, by the key that the number has there."""
    if not numbers:
        return {}
    text = only_value(connection, rows.LOAD, {"numbers": _numbers_json(set(numbers.values()))})
    known = [ledger_rows.known_task(loaded) for loaded in rows.decode_loaded(text)]
    by_number = {stored.task.number: stored for stored in known}
    return {key: by_number[number] for key, number in numbers.items()}


def _numbers_json(numbers: Iterable[int]) -> str:
    return msgspec.json.encode(list(numbers)).decode()


def _fresh_path() -> Path:
    with ledger_errors(Path(tempfile.gettempdir())):
        return Path(tempfile.mkdtemp(prefix=_FRESH_DIRECTORY_PREFIX)) / "ledger.db"


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if path.parent.name.startswith(_FRESH_DIRECTORY_PREFIX):
        with suppress(OSError):
            path.parent.rmdir()
