"""Connections to a ledger's PostgreSQL database, and what is said when it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from raypool.errors import LedgerError
from raypool.ledger import POOL_NAME, Unfit
from raypool.postgres_place import DEFAULT_SCHEMA, PostgresPlace

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

OLDEST_SERVER = 140000
CONNECT_SECONDS = 5
SILENCE_SECONDS = 10
PROBE_SECONDS = 5
PROBES = 3

_HOW_TO_WRITE = (
    "write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what is no letter or digit "
    "in the password percent-encoded ('@' as %40), or leave the password to PGPASSWORD or ~/.pgpass"
)

_OF_THIS_MACHINE = {"service", "servicefile", "passfile", "password"}

_DEFAULTS: Mapping[str, str | int] = {
    "application_name": "raypool",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": SILENCE_SECONDS,
    "keepalives_interval": PROBE_SECONDS,
    "keepalives_count": PROBES,
    "tcp_user_timeout": (SILENCE_SECONDS + PROBE_SECONDS * PROBES) * 1000,
    "target_session_attrs": "read-write",
}

_SETTINGS: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "tcp_keepalives_idle": str(SILENCE_SECONDS),
    "tcp_keepalives_interval": str(PROBE_SECONDS),
    "tcp_keepalives_count": str(PROBES),
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
    # Tables grow faster than their statistics; what is wanted always has an index.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

_SET = """
SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS setting (name, value)
UNION ALL
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
"""

_UNFIT = (psycopg.IntegrityError, psycopg.DataError, errors.ProgramLimitExceeded)

_WHAT_TO_DO: Mapping[type[Exception], str] = {
    errors.DiskFull: "the server's disk is full; free some space",
    errors.OutOfMemory: "the server is out of memory; look into its log",
    errors.TooManyConnections: "the server has no connection left; raise its max_connections",
    errors.ReadOnlySqlTransaction: "the server is read-only; give the address of the primary",
    errors.InsufficientPrivilege: (
        "its user may not; GRANT CREATE ON DATABASE lets it make the schema, which it then owns"
    ),
    errors.DuplicateTable: "the schema has other tables; give another one by ?schema=NAME",
    errors.UndefinedTable: "a table of the ledger is missing; restore the last backup",
    errors.UniqueViolation: "a number was used twice",
    errors.ForeignKeyViolation: "what ended was never accepted",
    errors.QueryCanceled: "the server has cut it off; raise the user's statement_timeout",
    errors.DataCorrupted: "it is damaged; restore the last backup",
    errors.IndexCorrupted: "it is damaged; REINDEX, or restore the last backup",
    msgspec.MsgspecError: "it is damaged; restore the last backup",
}

_WHY_NOT_CONNECTED: Mapping[str, str] = {
    "password authentication failed": "the password is wrong, or the user unknown",
    "no password supplied": "it asks for a password; put one into the URL, PGPASSWORD or ~/.pgpass",
    r"no pg_hba\.conf entry": "its pg_hba.conf does not let this machine, user or encryption in",
    'database ".*" does not exist': "there is no such database; make it with `createdb`",
    'role ".*" does not exist': "there is no such user; make it with `createuser`",
    "too many clients": "the server has no connection left; raise its max_connections",
    "read-only": "the server is read-only; give the address of the primary",
    "starting up": "the server is starting; try again",
}


class Unreachable(LedgerError):
    """Raised when there is no connection now; there may be one later."""


class Url(NamedTuple):
    """A ledger's URL, taken apart: what libpq is told, and the schema."""

    parameters: dict[str, Any]
    schema_name: str


def read_url(url: str) -> Url:
    """Take a ledger's URL apart; no message repeats what may be part of a password.

    Raises:
        LedgerError: it cannot be read; says how to write it.
    """
    head, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    schema_name = options.pop("schema", DEFAULT_SCHEMA)
    try:
        parameters = conninfo_to_dict(
            f"{head}?{urlencode(options, quote_via=quote)}" if options else head
        )
        is_clear = not any(
            "@" in str(parameters.get(part, "")) for part in ("host", "port", "dbname")
        )
        [int(port) for port in str(parameters.get("port") or 0).split(",")]
    except (psycopg.ProgrammingError, ValueError):
        is_clear = False
    if not is_clear:
        raise LedgerError(f"the ledger's URL cannot be read: {_HOW_TO_WRITE}") from None
    if not schema_name or len(schema_name.encode()) > 63 or "\0" in schema_name:
        raise LedgerError("the schema in the ledger's URL must be a name of 1 to 63 bytes")
    return Url(parameters, schema_name)


class Resolved(NamedTuple):
    """What a URL means: the place, whether a ledger is there, and the name of its pool, if any."""

    place: PostgresPlace
    is_there: bool
    pool: str | None


def resolve(url: str) -> Resolved:
    """What `url` and this machine's environment mean.

    What PGPASSWORD and its like, `~/.pgpass` and the service file say here goes along, so that
    other machines need none of it.

    Raises:
        LedgerError: the URL cannot be read, or the database cannot be used.
    """
    parameters, schema_name = read_url(url)
    place = PostgresPlace(
        shown=_shown(parameters, schema_name),
        connection=SecretStr(make_conninfo(**parameters)),
        schema_name=schema_name,
    )
    connection = connect(place)
    with connection, postgres_errors(place):
        found = connection.info.get_parameters()
        kept = {key: value for key, value in found.items() if key not in _OF_THIS_MACHINE}
        kept |= {"dbname": connection.info.dbname, "user": connection.info.user}
        if connection.info.password:
            kept["password"] = connection.info.password
        is_there, pool = has_tables(connection), read_name(connection)
    resolved = PostgresPlace(
        shown=_shown(kept, schema_name),
        connection=SecretStr(make_conninfo(**kept)),
        schema_name=schema_name,
    )
    return Resolved(resolved, is_there, pool)


def has_tables(connection: Connection) -> bool:
    """Whether the schema has a ledger, or another program's table of that name."""
    return connection.execute("SELECT to_regclass('ledger')").fetchone() != (None,)


def read_name(connection: Connection) -> str | None:
    """The name of the pool whose ledger it is; `None` when there is no ledger, or no name."""
    if connection.execute("SELECT to_regclass('meta')").fetchone() == (None,):
        return None
    found = connection.execute("SELECT value FROM meta WHERE key = %s", (POOL_NAME,)).fetchone()
    return found[0] if found else None


def connect(place: PostgresPlace, *, only_reads: bool = False) -> Connection:
    """A connection to the place, in the ledger's schema; each statement commits by itself.

    Raises:
        LedgerError: says why there is none, and what to do.
    """
    given: dict[str, Any] = conninfo_to_dict(place.connection.get_secret_value())
    try:
        connection = psycopg.connect(**{**_DEFAULTS, **given}, autocommit=True)
    except psycopg.OperationalError as error:
        raise _not_connected(place, error) from None
    with closed_on_error(connection), postgres_errors(place):
        _refuse_server(place, connection)
        settings = dict(_SETTINGS)
        settings["search_path"] = sql.Identifier(place.schema_name).as_string()
        if only_reads:
            settings["default_transaction_read_only"] = "on"
        names, values = list(settings), list(settings.values())
        connection.execute(_SET, (names, values))
    return connection


@contextmanager
def closed_on_error(connection: Connection) -> Iterator[None]:
    """Close the connection when what follows fails."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


@contextmanager
def postgres_errors(place: PostgresPlace) -> Iterator[None]:
    """Turn what psycopg and the decoder raise about `place` into `LedgerError`."""
    try:
        yield
    except (psycopg.Error, msgspec.MsgspecError) as error:
        raise ledger_error(place, error) from error


def ledger_error(place: PostgresPlace, error: Exception) -> LedgerError:
    """What to say of an error of psycopg or the decoder."""
    what = next((it for kind, it in _WHAT_TO_DO.items() if isinstance(error, kind)), None)
    if what is None and isinstance(error, psycopg.OperationalError):
        what = "its server has gone away, and is asked again with the next call"
    kind = Unfit if isinstance(error, _UNFIT) else LedgerError
    return kind(
        f"the ledger {place.shown!r} failed: {what or 'see the cause'} ({_first_line(error)})"
    )


def _not_connected(place: PostgresPlace, error: Exception) -> Unreachable:
    text = _one_line(str(error))
    why = next(
        (what for sign, what in _WHY_NOT_CONNECTED.items() if re.search(sign, text)),
        "its server cannot be reached; see that it runs, and that the URL has its address",
    )
    return Unreachable(f"the ledger {place.shown!r} cannot be opened: {why} ({text})")


def _refuse_server(place: PostgresPlace, connection: Connection) -> None:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise LedgerError(
            f"the ledger {place.shown!r} needs PostgreSQL {OLDEST_SERVER // 10000} or newer, and "
            f"its server is {version // 10000}"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise LedgerError(
            f"the ledger {place.shown!r} needs a database with the encoding UTF8, and this one "
            f"has {encoding}; make one with `createdb -E UTF8 -T template0`"
        )


def _shown(parameters: Mapping[str, Any], schema_name: str) -> str:
    user, host, port = (parameters.get(part) or "" for part in ("user", "host", "port"))
    address = f"{quote(str(user), safe='')}@" if user else ""
    address += quote(str(host), safe=",:[]")
    address += f":{port}" if port else ""
    shown = f"postgresql://{address}/{quote(str(parameters.get('dbname') or ''), safe='')}"
    return shown if schema_name == DEFAULT_SCHEMA else f"{shown}?schema={quote(schema_name)}"


def _first_line(error: Exception) -> str:
    diagnosis = getattr(error, "diag", None)
    return (diagnosis and diagnosis.message_primary) or _one_line(str(error))


def _one_line(text: str) -> str:
    return " ".join(text.split())
