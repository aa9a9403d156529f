"""A ledger's two connections to PostgreSQL, which come back by themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import psycopg

from raypool.errors import LedgerError
from raypool.postgres_connection import (
    Connection,
    Unreachable,
    closed_on_error,
    connect,
    ledger_error,
    postgres_errors,
)
from raypool.postgres_hold import PostgresHold
from raypool.postgres_place import PostgresPlace

PATIENCE_SECONDS = 10.0
AGAIN_SECONDS = 0.2
MOST_LOSSES = 3

T = TypeVar("T")

_READ_COUNTS = "SELECT writes, last_position, unfinished FROM ledger"
_KEEP_COUNTS = """
UPDATE ledger SET writes = %s, last_position = %s, unfinished = %s WHERE writes = %s
"""


class Counts(NamedTuple):
    """What the writer knows of the ledger without asking.

    Attributes:
        writes: how many transactions were committed.
        last_position: the highest ever given to an ending.
        unfinished: how many tasks have no ending.
    """

    writes: int
    last_position: int
    unfinished: int


class Written(NamedTuple):
    """What a transaction has done, to be committed.

    Attributes:
        result: what its caller gets.
        counts: what is so once it is committed.
        undo: takes back what must not be there twice, when nobody could know in time that it
            was committed.
    """

    result: Any
    counts: Counts
    undo: Callable[[Connection, Counts], Written] | None = None


Change = Callable[[Connection, Counts], Written]


class Line:
    """A connection that is made anew when it was lost.

    It waits for a server that is away for `PATIENCE_SECONDS` from when it was lost; from then on
    each use asks once. Belongs to one thread at a time.
    """

    def __init__(self, connect: Callable[[], Connection], closing: threading.Event) -> None:
        self._connect = connect
        self._closing = closing
        self._connection: Connection | None = None
        self._gives_up_at = 0.0

    def open(self, patience: float) -> None:
        """Connect for the first time; see `reach`."""
        self._gives_up_at = time.monotonic() + patience
        self.reach()

    def reach(self) -> Connection:
        """The connection, made anew if it was lost.

        Raises:
            LedgerError: there is none, or another pool has the ledger.
        """
        if self._connection is not None and self._connection.closed:
            self._connection.close()
            self._connection = None
            self._gives_up_at = time.monotonic() + PATIENCE_SECONDS
        while self._connection is None:
            try:
                self._connection = self._connect()
            except Unreachable:
                if time.monotonic() > self._gives_up_at or self._closing.wait(AGAIN_SECONDS):
                    raise
        return self._connection

    def close(self) -> None:
        """Close it for good."""
        if self._connection is not None:
            self._connection.close()


class PostgresSession:
    """A ledger's connections: one writes and holds it, the other reads, each for one thread.

    A write that a lost connection cuts off is done again, and never twice: every transaction
    counts itself in the ledger, so the count tells whether one has been committed whose
    acknowledgement was lost. While the server is away for longer than `PATIENCE_SECONDS` nobody
    can know. Then the write has failed, and what it must not leave behind is taken back before
    the next one.
    """

    def __init__(self, place: PostgresPlace, patience: float = 0.0) -> None:
        """Open the ledger, waiting so many seconds for a server that is away.

        Raises:
            LedgerError: it cannot be used, or another pool uses it.
        """
        self._place = place
        self._hold = PostgresHold(place)
        self._closing = threading.Event()
        self._counts = Counts(0, 0, 0)
        self._doubtful: Written | None = None
        self._writer = Line(self._connect_writer, self._closing)
        self._reader = Line(partial(connect, place, only_reads=True), self._closing)
        try:
            self._writer.open(patience)
            self._reader.open(patience)
        except BaseException:
            self.close()
            raise

    def write(self, change: Change) -> Any:
        """Commit what `change` does, once; its result.

        Raises:
            LedgerError: nothing of it is there, now or from before the next write on.
        """
        self._ensure_open()
        for _ in range(MOST_LOSSES):
            writer = self._writer.reach()
            with suppress(_Lost):
                self._settle_doubt(writer)
                return self._transact(writer, change)
        raise LedgerError(
            f"the ledger {self._place.shown!r} failed: its server has gone away {MOST_LOSSES} "
            "times while it wrote; look into its log"
        )

    def read(self, question: Callable[[Connection], T]) -> T:
        """What `question` finds.

        Raises:
            LedgerError: it cannot be asked; or what is there may be taken back by the next write.
        """
        self._ensure_open()
        doubtful = self._doubtful
        if doubtful is not None and doubtful.undo is not None:
            raise LedgerError(
                f"the ledger {self._place.shown!r} is read once it can be written again: until "
                "then nobody knows whether its last write was kept"
            )
        for _ in range(MOST_LOSSES):
            reader = self._reader.reach()
            try:
                with postgres_errors(self._place):
                    return question(reader)
            except LedgerError as error:
                if not reader.closed:
                    raise
                lost = error
        raise lost

    def close(self) -> None:
        """Let another pool have the ledger; a second call does nothing."""
        self._closing.set()
        self._reader.close()
        self._writer.close()

    def _ensure_open(self) -> None:
        if self._closing.is_set():
            raise LedgerError(f"the ledger {self._place.shown!r} is closed")

    def _connect_writer(self) -> Connection:
        connection = connect(self._place)
        with closed_on_error(connection):
            try:
                self._hold.take(connection)
                self._counts = Counts(*connection.execute(_READ_COUNTS).fetchone() or ())
            except psycopg.Error as error:
                failure = ledger_error(self._place, error)
                raise Unreachable(str(failure)) if connection.closed else failure from error
        return connection

    def _transact(self, writer: Connection, change: Change) -> Any:
        before, commits = self._counts, False
        try:
            writer.execute("BEGIN", prepare=False)
            written = change(writer, before)
            after = written.counts._replace(writes=before.writes + 1)
            written = written._replace(counts=after)
            self._keep_counts(writer, before, after)
            commits = True
            writer.execute("COMMIT", prepare=False)
        except BaseException as error:
            if writer.closed and isinstance(error, psycopg.Error):
                if commits:
                    return self._after_lost_commit(written)
                raise _Lost from error
            _roll_back(writer)
            if isinstance(error, (psycopg.Error, msgspec.MsgspecError)):
                raise ledger_error(self._place, error) from error
            raise
        self._counts = after
        return written.result

    def _keep_counts(self, writer: Connection, before: Counts, after: Counts) -> None:
        if writer.execute(_KEEP_COUNTS, (*after, before.writes)).rowcount != 1:
            raise LedgerError(f"the ledger {self._place.shown!r} was changed by another program")

    def _after_lost_commit(self, written: Written) -> Any:
        """Its result, if it has been committed; waits for the server, which alone knows."""
        try:
            self._writer.reach()
        except LedgerError:
            self._doubtful = self._doubtful or written
            raise
        if self._counts.writes == written.counts.writes:
            return written.result
        raise _Lost

    def _settle_doubt(self, writer: Connection) -> None:
        doubtful = self._doubtful
        if doubtful is None:
            return
        if self._counts.writes == doubtful.counts.writes and doubtful.undo is not None:
            self._transact(writer, doubtful.undo)
        self._doubtful = None


class _Lost(Exception):
    """The connection was lost, and nothing was committed."""


def _roll_back(writer: Connection) -> None:
    with suppress(psycopg.Error):
        if not writer.closed:
            writer.execute("ROLLBACK")
