"""Which ledger a user means, and opening it, whatever the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from raypool.config import PoolConfig
from raypool.errors import LedgerError
from raypool.file_hold import InUse
from raypool.ledger import Ledger
from raypool.postgres_place import PostgresPlace, is_postgres
from raypool.sqlite_ledger import SqliteLedger

if TYPE_CHECKING:
    from raypool.postgres_ledger import PostgresLedger

RETURN_SECONDS = 60.0
"""How long a dispatcher that comes back waits for a server that is away."""

GOING_SECONDS = 10.0
"""How long a pool whose program is gone may still have its name and its ledger."""

AGAIN_SECONDS = 0.2


class FoundLedger(NamedTuple):
    """A ledger that a user has named.

    Attributes:
        shown: its absolute path, or its URL without a password.
        is_there: whether it exists.
        postgres: where it is in PostgreSQL; `None` for a file.
        pool: the name of the pool that it belongs to; `None` when no pool has had it.
    """

    shown: str
    is_there: bool
    postgres: PostgresPlace | None
    pool: str | None


def find_ledger(ledger: object) -> FoundLedger:
    """What `ledger` means here: a path, or the URL of a PostgreSQL database.

    Raises:
        TypeError: it is neither.
        LedgerError: it cannot be read.
    """
    if is_postgres(ledger):
        return _find_postgres(ledger)
    if not isinstance(ledger, (str, Path)) or not str(ledger):
        raise TypeError(f"ledger must be a path or a postgresql:// URL, got {ledger!r}")
    path = Path(ledger).absolute()
    return FoundLedger(str(path), path.exists(), None, SqliteLedger.peek_name(path))


def open_ledger(config: PoolConfig, *, goes_on: bool) -> Ledger:
    """The ledger of a pool, whose dispatcher `goes_on` after one that has died, or does not.

    Raises:
        LedgerError: it cannot be used, or another pool uses it.
    """
    if config.postgres is not None:
        patience = RETURN_SECONDS if goes_on else 0.0
        return _postgres_ledger()(config.postgres, patience=patience)
    path = config.ledger or config.temporary_ledger
    return _open_file(path, temporary=config.ledger is None)


def open_found(found: FoundLedger) -> Ledger:
    """A ledger that a user has named, for a program that is no pool.

    Raises:
        LedgerError: it cannot be used, or a pool uses it.
    """
    if found.postgres is not None:
        return _postgres_ledger()(found.postgres)
    return _open_file(found.shown)


def _open_file(path: str | None, *, temporary: bool = False) -> SqliteLedger:
    """The ledger in a file, once a pool that is about to end has let go of it."""
    until_let_go = Retrying(
        retry=retry_if_exception_type(InUse),
        wait=wait_fixed(AGAIN_SECONDS),
        stop=stop_after_delay(GOING_SECONDS),
        reraise=True,
    )
    return until_let_go(SqliteLedger, path, temporary=temporary)


def _find_postgres(url: str) -> FoundLedger:
    _postgres_ledger()
    from raypool.postgres_connection import resolve  # noqa: PLC0415 - psycopg is optional

    place, is_there, pool = resolve(url)
    return FoundLedger(place.shown, is_there, place.held_by_new_pool(), pool)


def _postgres_ledger() -> type[PostgresLedger]:
    try:
        from raypool.postgres_ledger import PostgresLedger  # noqa: PLC0415 - psycopg is optional
    except ImportError as error:
        raise LedgerError(
            f"a ledger in PostgreSQL needs psycopg: pip install 'raypool[postgres]' ({error})"
        ) from None
    return PostgresLedger
