"""The sole use of a ledger in PostgreSQL, between pools and across lost connections."""

from __future__ import annotations

import hashlib

import psycopg
from psycopg import errors, sql

from raypool.errors import LedgerError
from raypool.postgres_connection import Connection, has_tables, read_name
from raypool.postgres_place import PostgresPlace
from raypool.postgres_schema import BEGIN_LEDGER, SCHEMA, SCHEMA_VERSION

LOCK_SECONDS = 3.0

_END_EARLIER = """
SELECT pg_terminate_backend(held.pid) FROM pg_locks AS held JOIN ledger ON ledger.backend = held.pid
WHERE held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted
    AND (held.classid::bigint << 32 | held.objid::bigint) = %s
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ledger.holder = %s AND held.pid <> pg_backend_pid()
"""

_TAKE = """
UPDATE ledger SET holder = %s, backend = pg_backend_pid(), openings = openings + 1
RETURNING openings
"""


class PostgresHold:
    """The sole use of a ledger: an advisory lock, which its server frees when the holder dies.

    A connection that is lost loses the lock, and another pool may take it before it is taken
    again. So every opening of the ledger has a number, and a hold whose number is not the last
    one is over for good.
    """

    def __init__(self, place: PostgresPlace) -> None:
        self._place = place
        self._number: int | None = None
        self._is_over = False

    def take(self, connection: Connection) -> None:
        """Have `connection` hold the ledger, which is made when it is missing.

        Raises:
            LedgerError: another pool has it, or has had it since this hold was first taken; or
                what is there is no ledger that this raypool knows.
            psycopg.Error: the database fails.
        """
        if self._is_over:
            raise self._lost_to_another()
        exists = has_tables(connection)
        if exists:
            self._refuse_other_version(connection)
            connection.execute(_END_EARLIER, (self._key, self._place.holder))
        self._lock(connection)
        with connection.transaction():
            if not exists and not has_tables(connection):
                self._make(connection)
            self._refuse_other_version(connection)
            if self._number is None:
                (self._number,) = _only_row(connection.execute(_TAKE, (self._place.holder,)))
            else:
                self._take_again(connection)

    def _lock(self, connection: Connection) -> None:
        timeout = f"{LOCK_SECONDS * 1000:.0f}"
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (timeout,))
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (self._key,))
        except errors.LockNotAvailable:
            raise self._in_use(connection) from None
        connection.execute("SELECT set_config('lock_timeout', '0', false)")

    def _take_again(self, connection: Connection) -> None:
        (number,) = _only_row(connection.execute("SELECT openings FROM ledger FOR UPDATE"))
        if number != self._number:
            raise self._lost_to_another()
        connection.execute("UPDATE ledger SET backend = pg_backend_pid()")

    def _make(self, connection: Connection) -> None:
        schema = self._place.schema_name
        found = connection.execute(
            "SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)
        ).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(SCHEMA)
        connection.execute(BEGIN_LEDGER, (SCHEMA_VERSION,))

    def _refuse_other_version(self, connection: Connection) -> None:
        try:
            (version,) = _only_row(connection.execute("SELECT version FROM ledger"))
        except (errors.UndefinedColumn, TypeError):
            raise LedgerError(
                f"{self._place.shown!r} has a table 'ledger' that is not raypool's; it was left "
                "as it is: give another schema by ?schema=NAME"
            ) from None
        if version == SCHEMA_VERSION:
            return
        age, remedy = (
            "an older",
            "finish it with that one, or give another schema by ?schema=NAME",
        )
        if version > SCHEMA_VERSION:
            age, remedy = ("a newer", "upgrade raypool")
        raise LedgerError(
            f"the ledger {self._place.shown!r} was made by {age} raypool (version {version} of "
            f"its tables; this one knows {SCHEMA_VERSION}): {remedy}"
        )

    def _in_use(self, connection: Connection) -> LedgerError:
        if self._number is not None:
            return self._lost_to_another()
        name = read_name(connection)
        return LedgerError(
            f"the ledger {self._place.shown!r} is in use by another pool"
            f"{'' if name is None else f', {name!r}'}: connect to that pool, stop it, or give "
            "another schema by ?schema=NAME"
        )

    def _lost_to_another(self) -> LedgerError:
        self._is_over = True
        return LedgerError(
            f"the ledger {self._place.shown!r} was lost to another pool while its server could not "
            "be reached: stop this pool, and connect to the other one"
        )

    @property
    def _key(self) -> int:
        digest = hashlib.sha256(f"raypool {self._place.schema_name}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def _only_row(cursor: psycopg.Cursor[tuple[int, ...]]) -> tuple[int, ...]:
    row = cursor.fetchone()
    if row is None:
        raise TypeError("no row")
    return row
