"""A ledger's SQLite file: opened by one pool at a time, and only when it is a ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from raypool.errors import LedgerError
from raypool.file_hold import FileHold
from raypool.ledger import Unfit
from raypool.sqlite_schema import SCHEMA

APPLICATION_ID = int.from_bytes(b"rayp", "big")
SCHEMA_VERSION = 3
OLDEST_SQLITE = (3, 37, 0)
BUSY_SECONDS = 5.0

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_PLACE = slice(68, 72)
_APPLICATION_ID_BYTES = b"rayp"
_WRITER_CACHE_KIB = 64 * 1024

_UNFIT = (sqlite3.IntegrityError, sqlite3.DataError)

_WHAT_TO_DO: dict[int | type[OSError], str] = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it is read-only; make the file and its directory writable",
    sqlite3.SQLITE_BUSY: "another program has locked it; end what that program does with it",
    sqlite3.SQLITE_CORRUPT: "it is damaged; `sqlite3 LEDGER .recover` saves what can be read",
    sqlite3.SQLITE_NOTADB: "it is not a raypool ledger; give another path",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; give the path of a file in a writable directory",
    sqlite3.SQLITE_IOERR: "its disk fails; look into the system's log",
    sqlite3.SQLITE_CONSTRAINT: "a number was used twice, or what ended was never accepted",
    FileNotFoundError: "its directory does not exist; make it first",
    NotADirectoryError: "its directory is a file; give another path",
    IsADirectoryError: "it is a directory; give the path of a file in it",
    PermissionError: "it may not be written; make the file and its directory writable",
}


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite, the system and the decoder raise about `path` into `LedgerError`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        raise _ledger_error(path, _WHAT_TO_DO.get(code), error) from error
    except OSError as error:
        raise _ledger_error(path, _WHAT_TO_DO.get(type(error)), error) from error
    except msgspec.MsgspecError as error:
        raise _ledger_error(path, _WHAT_TO_DO[sqlite3.SQLITE_CORRUPT], error) from error


def _ledger_error(path: Path, what: str | None, error: Exception) -> LedgerError:
    kind = Unfit if isinstance(error, _UNFIT) else LedgerError
    return kind(f"the ledger {str(path)!r} failed: {what or 'see the cause'} ({error})")


class SqliteFile:
    """An open ledger file.

    Attributes:
        path: where it is.
        writer: the connection that writes; for one thread at a time, as `reader` is.
        reader: a connection that only reads, also while `writer` is in a transaction.

    Raises:
        LedgerError: the file cannot be used, or another pool uses it. A file that is not a ledger,
            or a newer raypool's, is left as it is.
    """

    def __init__(self, path: Path, *, temporary: bool) -> None:
        self.path = path
        with ledger_errors(path), ExitStack() as undo:
            hold = FileHold(path)
            undo.callback(hold.release)
            _refuse_foreign_header(path, hold.first_bytes(_HEADER_BYTES))
            self.writer = _connect(path, "rw")
            undo.callback(self.writer.close)
            _tune(self.writer, temporary=temporary)
            _prepare(path, self.writer)
            self.reader = _connect(path, "ro")
            undo.callback(self.reader.close)
            self._closing = undo.pop_all()

    def close(self) -> None:
        """Close the connections, then let another pool have the file."""
        with ledger_errors(self.path):
            self._closing.close()


def open_beside(path: Path) -> sqlite3.Connection:
    """A connection that reads the ledger at `path` whether or not a pool has it."""
    if not path.is_file():
        raise _foreign(path)
    with ExitStack() as undo:
        connection = _connect(path, "ro")
        undo.callback(connection.close)
        if _pragma(connection, "application_id") != APPLICATION_ID:
            raise _foreign(path)
        _refuse_other_version(path, connection)
        undo.pop_all()
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _tune(connection: sqlite3.Connection, *, temporary: bool) -> None:
    connection.execute(f"PRAGMA synchronous = {'OFF' if temporary else 'FULL'}")
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    _refuse_old_sqlite(sqlite3.sqlite_version_info)
    _refuse_other_version(path, connection)
    if _pragma(connection, "user_version") == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA}"
            f"PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    _look_into_tables(connection)
    if _pragma(connection, "journal_mode = WAL") != "wal":
        raise LedgerError(
            f"the ledger {str(path)!r} lies on a file system that SQLite's WAL mode cannot use; "
            "give a path on a local disk"
        )


def _look_into_tables(connection: sqlite3.Connection) -> None:
    """Read a row of each table, so that coarse damage is found before anything is written."""
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (table,) in tables:
        connection.execute(f'SELECT * FROM "{table}" LIMIT 1').fetchone()  # noqa: S608


def _refuse_foreign_header(path: Path, header: bytes) -> None:
    is_ours = header.startswith(_MAGIC) and header[_APPLICATION_ID_PLACE] == _APPLICATION_ID_BYTES
    if header and not is_ours:
        raise _foreign(path)


def _refuse_old_sqlite(version: tuple[int, ...]) -> None:
    if version < OLDEST_SQLITE:
        raise LedgerError(
            f"a ledger needs SQLite {_dotted(OLDEST_SQLITE)} or newer, and this Python has "
            f"{_dotted(version)}: use a Python from uv, conda or python.org, which bring their own"
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _refuse_other_version(path: Path, connection: sqlite3.Connection) -> None:
    version = _pragma(connection, "user_version")
    if 0 < version < SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger {str(path)!r} was made by an older raypool (version {version} of its "
            f"tables; this one knows {SCHEMA_VERSION}): finish it with that one, or give another "
            "path"
        )
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger {str(path)!r} was made by a newer raypool (version {version} of its "
            f"tables; this one knows {SCHEMA_VERSION}): upgrade raypool"
        )


def _foreign(path: Path) -> LedgerError:
    return LedgerError(
        f"{str(path)!r} is not a raypool ledger; it was left as it is: give another path"
    )


def _pragma(connection: sqlite3.Connection, pragma: str) -> Any:
    return connection.execute(f"PRAGMA {pragma}").fetchone()[0]
