"""Opening a ledger in PostgreSQL: what its URL may be, what is refused, and what stays secret."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from raypool.config import PoolConfig
from raypool.errors import LedgerError
from raypool.ledgers import find_ledger, open_found
from raypool.postgres_connection import read_url, resolve
from raypool.postgres_ledger import PostgresLedger
from raypool.postgres_place import without_password
from raypool.postgres_schema import SCHEMA_VERSION
from raypool.records import AcceptedTask
from tests.postgres_server import ENCODED_PASSWORD, PASSWORD, USER, PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_url()


@contextmanager
def refused(match: str) -> Iterator[None]:
    """What happens here is a `LedgerError` that tells no password, nor does what caused it."""
    with pytest.raises(LedgerError, match=match) as raised:
        yield
    error: BaseException | None = raised.value
    while error is not None:
        assert PASSWORD not in str(error)
        assert ENCODED_PASSWORD not in str(error)
        error = error.__cause__


def admin_of(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection into the ledger's schema."""
    parameters, schema = read_url(url)
    return psycopg.connect(**parameters, options=f"-c search_path={schema}", autocommit=True)


class TestRefusals:
    def test_server_that_cannot_be_reached(self, url: str, postgres: PostgresServer) -> None:
        with refused("cannot be reached; see that it runs"):
            resolve(url.replace(f":{postgres.port}/", ":1/"))

    def test_host_that_has_no_address(self, url: str) -> None:
        with refused("cannot be reached; see that it runs"):
            resolve(url.replace("127.0.0.1", "nowhere.invalid"))

    def test_wrong_password(self, url: str) -> None:
        with refused("the password is wrong, or the user unknown"):
            resolve(url.replace(ENCODED_PASSWORD, f"{ENCODED_PASSWORD}x"))

    def test_no_password(self, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))

        with refused("asks for a password; put one into the URL, PGPASSWORD or ~/.pgpass"):
            resolve(url.replace(f":{ENCODED_PASSWORD}@", "@"))

    def test_missing_database(self, url: str) -> None:
        with refused("there is no such database; make it with `createdb`"):
            resolve(url.replace("/postgres?", "/nothing?"))

    def test_database_of_another_encoding(self, url: str, postgres: PostgresServer) -> None:
        with postgres.connect() as admin:
            admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")

        with refused("needs a database with the encoding UTF8, and this one has LATIN1"):
            resolve(url.replace("/postgres?", "/latin?"))

    def test_user_who_may_not_make_the_schema(self, url: str, postgres: PostgresServer) -> None:
        with postgres.connect() as admin:
            admin.execute("CREATE ROLE guest LOGIN PASSWORD 'a'")

        place = resolve(url.replace(f"{USER}:{ENCODED_PASSWORD}@", "guest:a@")).place

        with refused("GRANT CREATE ON DATABASE"):
            PostgresLedger(place)

    @pytest.mark.parametrize(
        ("step", "what"),
        [(1, "made by a newer raypool .*upgrade raypool"), (-1, "made by an older raypool")],
        ids=["newer", "older"],
    )
    def test_ledger_of_another_raypool(self, url: str, step: int, what: str) -> None:
        place = resolve(url).place
        PostgresLedger(place).close()
        with admin_of(url) as admin:
            admin.execute("UPDATE ledger SET version = %s", (SCHEMA_VERSION + step,))

        with refused(what):
            PostgresLedger(place)

        with admin_of(url) as admin:
            assert admin.execute("SELECT openings FROM ledger").fetchone() == (1,)

    @pytest.mark.parametrize("table", ["ledger", "tasks"])
    def test_schema_of_another_program_is_left_as_it_is(self, url: str, table: str) -> None:
        place = resolve(url).place
        with admin_of(url) as admin:
            admin.execute(f"CREATE SCHEMA {place.schema_name}")
            admin.execute(f"CREATE TABLE {table} (title TEXT)")

        with refused(r"give another .*\?schema=NAME"):
            PostgresLedger(place)

        with admin_of(url) as admin:
            found = admin.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace",
                (place.schema_name,),
            ).fetchall()
        assert found == [(table,)]

    def test_missing_extra_is_named(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [one for one in sys.modules if one.startswith("raypool.postgres_")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "psycopg", None)

        with refused(r"needs psycopg: pip install 'raypool\[postgres\]'"):
            find_ledger(url)


class TestUrls:
    @pytest.mark.parametrize(
        "password", [PASSWORD, "s3cret/of", "s3cret@of", "s3cret?of", "s3cret%zz"]
    )
    def test_password_that_is_not_encoded_is_refused_and_not_repeated(self, password: str) -> None:
        with pytest.raises(LedgerError, match="percent-encoded") as error:
            resolve(f"postgresql://ann:{password}@127.0.0.1:1/data/base")

        assert "s3c" not in str(error.value)
        assert error.value.__cause__ is None

    @pytest.mark.parametrize("schema", ["", "x" * 64])
    def test_schema_must_be_a_name(self, schema: str) -> None:
        with pytest.raises(LedgerError, match="must be a name of 1 to 63 bytes"):
            resolve(f"postgresql://127.0.0.1:1/db?schema={schema}")

    def test_schema_may_have_any_name(self, postgres: PostgresServer) -> None:
        place = resolve(f"{postgres.url}?schema=Night%20%22run%22%20%C3%BC").place

        ledger = PostgresLedger(place)

        assert place.schema_name == 'Night "run" ü'
        assert ledger.totals().unfinished == 0
        ledger.close()

    def test_options_of_libpq_are_kept(self) -> None:
        parameters, schema = read_url(
            "postgresql://h/db?sslmode=require&schema=x&application_name=a"
        )

        assert (parameters["sslmode"], parameters["application_name"], schema) == (
            "require",
            "a",
            "x",
        )

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("postgresql://ann:pw@h/db", "postgresql://ann:***@h/db"),
            ("--ledger=postgres://ann:p@w@h/db", "--ledger=postgres://ann:***@h/db"),
            ("postgresql://ann@h/db?password=pw&a=b", "postgresql://ann@h/db?password=***&a=b"),
            (
                "postgresql://h/db?sslpassword=a&password=b",
                "postgresql://h/db?sslpassword=***&password=***",
            ),
            ("postgresql://h:5432/db", "postgresql://h:5432/db"),
            ("--system=password=what?", "--system=password=what?"),
            ("run.db", "run.db"),
        ],
    )
    def test_password_is_masked_where_the_url_is_shown(self, text: str, shown: str) -> None:
        assert without_password(text) == shown


class TestWhatTravels:
    def test_environment_of_this_machine_goes_along(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = urlsplit(url)
        monkeypatch.setenv("PGHOST", parts.hostname or "")
        monkeypatch.setenv("PGPORT", str(parts.port))
        monkeypatch.setenv("PGUSER", USER)
        monkeypatch.setenv("PGPASSWORD", PASSWORD)

        place = resolve(f"postgresql:///postgres?{parts.query}").place
        for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD"):
            monkeypatch.delenv(name)

        PostgresLedger(place).close()

    def test_password_file_of_this_machine_goes_along(
        self, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "pgpass"
        file.write_text(f"*:*:*:{USER}:{PASSWORD.replace(':', chr(92) + ':')}\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))

        place = resolve(url.replace(f":{ENCODED_PASSWORD}@", "@")).place
        monkeypatch.delenv("PGPASSFILE")

        PostgresLedger(place).close()

    def test_nothing_that_is_printed_has_the_password(self, url: str) -> None:
        found = find_ledger(url)
        config = PoolConfig(name="crew", size=1, ledger=found.shown, postgres=found.postgres)

        printed = f"{found!r} {found} {config!r} {config} {config.model_dump()!r}"

        assert PASSWORD not in printed
        assert ENCODED_PASSWORD not in printed
        assert config.ledger is not None
        assert config.ledger.startswith(f"postgresql://{USER}@127.0.0.1:")

    def test_what_was_found_can_be_opened(self, url: str) -> None:
        ledger = open_found(find_ledger(url))
        ledger.set_meta("pool_name", "crew")
        ledger.accept([AcceptedTask(1, "a", "why?")])
        ledger.close()

        assert find_ledger(url).pool == "crew"
