"""The PostgreSQL ledger under faults: what it survives, and what it says."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from raypool import postgres_hold, postgres_session
from raypool.errors import LedgerError
from raypool.ledger import POOL_NAME, Extra, KnownTask
from raypool.postgres_connection import resolve
from raypool.postgres_ledger import PostgresLedger
from raypool.postgres_place import PostgresPlace
from raypool.postgres_rows import LAST_PLACES, LOAD_CONVERSATION
from raypool.records import AcceptedTask, Conversation, Ending
from tests.cut_line import Cut, CutLine
from tests.postgres_server import PostgresServer

WRITE_UNTIL_KILLED = """
import sys
from raypool.postgres_connection import resolve
from raypool.postgres_ledger import PostgresLedger
from raypool.records import AcceptedTask, Ending

ledger = PostgresLedger(resolve(sys.argv[1]).place.held_by_new_pool())
last = ledger.totals().last_number
while True:
    tasks = [AcceptedTask(last + n, f"task-{last + n}", "why?") for n in range(1, 21)]
    endings = [Ending(task.number, "completed", None, 1, 0) for task in tasks[:10]]
    ledger.write(tasks, endings)
    last += 20
    print(last, flush=True)
"""


def task(number: int) -> AcceptedTask:
    return AcceptedTask(number, f"task-{number}", "why?")


def ending(number: int, text: str | None = None) -> Ending:
    return Ending(number, "completed", "pool-1", 1, 1_700_000_000_000, text=text)


def place_of(url: str) -> PostgresPlace:
    return resolve(url).place.held_by_new_pool()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for a lock, nor for a server that is away."""
    monkeypatch.setattr(postgres_hold, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(postgres_session, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(postgres_session, "AGAIN_SECONDS", 0.05)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_url()


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    ledger = PostgresLedger(place_of(url))
    yield ledger
    ledger.close()


@pytest.fixture
def line(postgres: PostgresServer) -> Iterator[CutLine]:
    line = CutLine(postgres.port)
    yield line
    line.close()


@pytest.fixture
def far(url: str, line: CutLine) -> Iterator[PostgresLedger]:
    """A ledger at the other end of `line`."""
    ledger = PostgresLedger(place_of(line.through(url)))
    yield ledger
    ledger.close()


class TestKilledWriter:
    def test_everything_acknowledged_is_there_and_another_pool_may_open_it(self, url: str) -> None:
        command = [sys.executable, "-c", WRITE_UNTIL_KILLED, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            try:
                committed = [int(writer.stdout.readline()) for _ in range(50)]
            finally:
                writer.kill()
            committed += [int(line) for line in writer.stdout.read().split()]

        ledger = PostgresLedger(place_of(url))

        totals = ledger.totals()
        ended = [one.task.number for one in ledger.ended(0, 1_000_000)]
        assert totals.last_number >= committed[-1] >= 1000
        assert totals.completed == totals.unfinished == totals.last_number // 2
        assert ended == [n for n in range(1, totals.last_number + 1) if (n - 1) % 20 < 10]
        ledger.close()


class TestServerAway:
    def test_crash_of_the_server_is_waited_for(
        self, postgres: PostgresServer, ledger: PostgresLedger
    ) -> None:
        ledger.write([task(1), task(2)], [ending(1)])

        postgres.restart()

        assert ledger.find("task-1") == KnownTask(task(1), ending(1))
        ledger.record([ending(2)])
        assert ledger.totals().completed == 2

    def test_nothing_is_lost_or_doubled_while_the_server_crashes_again_and_again(
        self, postgres: PostgresServer, ledger: PostgresLedger
    ) -> None:
        has_crashed = threading.Event()
        acknowledged: list[int] = []

        def write() -> None:
            number = 0
            while not has_crashed.is_set():
                number += 1
                ledger.write([task(number)], [ending(number)], {}, Extra(turns=1))
                acknowledged.append(number)

        with ThreadPoolExecutor(1) as other:
            writing = other.submit(write)
            for _ in range(4):
                reached = len(acknowledged) + 5
                while len(acknowledged) < reached and not writing.done():
                    pass
                postgres.restart()
            has_crashed.set()
            writing.result()

        assert [one.task.number for one in ledger.ended(0, 1_000_000)] == acknowledged
        assert ledger.totals().completed == len(acknowledged)
        assert ledger.totals().extra == Extra(turns=len(acknowledged))

    def test_server_that_stays_away_is_an_error_until_it_is_back(
        self, hurry: None, far: PostgresLedger, line: CutLine
    ) -> None:
        far.accept([task(1)])
        line.kill()

        with pytest.raises(LedgerError, match="cannot be reached"):
            far.record([ending(1)])
        with pytest.raises(LedgerError, match="cannot be reached"):
            far.totals()
        line.mend()

        assert far.unfinished(0, 10) == [task(1)]
        far.record([ending(1)])
        assert far.totals().completed == 1

    def test_server_that_is_away_at_first_is_waited_for(
        self, url: str, line: CutLine, hurry: None
    ) -> None:
        place = place_of(line.through(url))
        line.kill()
        with ThreadPoolExecutor(1) as other:
            opening = other.submit(PostgresLedger, place, patience=60)
            with pytest.raises(LedgerError, match="cannot be reached"):
                PostgresLedger(place)
            line.mend()

            ledger = opening.result()

        assert ledger.totals().unfinished == 0
        ledger.close()


@pytest.mark.parametrize("cut", Cut)
class TestLostCommit:
    def test_write_is_done_once(self, far: PostgresLedger, line: CutLine, cut: Cut) -> None:
        far.accept([task(1)])
        line.cut = cut

        known = far.write([task(2)], [ending(1)], {}, Extra(turns=1))

        assert line.has_cut.wait(60)
        assert known == {}
        assert far.unfinished(0, 10) == [task(2)]
        assert far.totals().extra == Extra(turns=1)

    def test_write_that_failed_leaves_nothing_that_counts_twice(
        self, hurry: None, far: PostgresLedger, line: CutLine, cut: Cut
    ) -> None:
        far.accept([task(1)])
        line.cut, line.is_dead_once_cut = cut, True
        with pytest.raises(LedgerError, match="cannot be reached"):
            far.write([task(2), task(3)], [ending(1), ending(3)], {}, Extra(turns=1))
        line.mend()

        far.write([task(4)], [ending(1)], {}, Extra(turns=1))

        totals = far.totals()
        numbers = [one.task.number for one in far.ended(0, 10)]
        assert far.find("task-2") is None
        assert far.unfinished(0, 10) == [task(4)]
        assert (totals.unfinished, totals.completed) == (1, len(numbers))
        assert totals.extra == Extra(turns=1)
        assert numbers == ([1, 3] if cut is Cut.BEFORE_IT_IS_ANSWERED else [1])

    def test_what_it_may_have_left_is_not_read_before_it_is_taken_back(
        self, hurry: None, far: PostgresLedger, line: CutLine, cut: Cut
    ) -> None:
        line.cut, line.is_dead_once_cut = cut, True
        with pytest.raises(LedgerError, match="cannot be reached"):
            far.accept([task(1)])
        line.mend()

        with pytest.raises(LedgerError, match="whether its last write was kept"):
            far.find("task-1")

        far.set_meta("any", "write")
        assert far.find("task-1") is None


class TestHolding:
    def test_refusal_names_the_pool_that_has_it(
        self, hurry: None, url: str, ledger: PostgresLedger
    ) -> None:
        ledger.set_meta(POOL_NAME, "crew")

        with pytest.raises(LedgerError, match="in use by another pool, 'crew': connect to that"):
            PostgresLedger(place_of(url))

    def test_pools_share_a_database_by_schemas(
        self, postgres: PostgresServer, ledger: PostgresLedger
    ) -> None:
        other = PostgresLedger(place_of(postgres.new_url()))
        other.accept([task(1)])

        assert ledger.totals().unfinished == 0
        other.close()

    def test_pool_that_lost_it_to_another_says_so_for_good(
        self, hurry: None, url: str, far: PostgresLedger, line: CutLine
    ) -> None:
        far.accept([task(1)])
        line.kill()
        other = PostgresLedger(place_of(url))
        other.record([ending(1, "by the other")])
        line.mend()

        with pytest.raises(LedgerError, match="was lost to another pool"):
            far.record([ending(1, "too late")])
        other.close()
        with pytest.raises(LedgerError, match="was lost to another pool"):
            far.record([ending(1, "too late")])

        with closing(PostgresLedger(place_of(url))) as again:
            assert again.find("task-1") == KnownTask(task(1), ending(1, "by the other"))

    def test_dispatcher_that_comes_back_takes_it_from_the_one_before(
        self, hurry: None, url: str
    ) -> None:
        place = place_of(url)
        before = PostgresLedger(place)
        before.accept([task(1)])

        after = PostgresLedger(place)

        after.record([ending(1)])
        with pytest.raises(LedgerError, match="was lost to another pool"):
            before.accept([task(2)])
        before.close()
        after.accept([task(3)])
        after.close()


class TestFailures:
    def test_read_only_server_fails_the_write_and_reads_go_on(self, ledger: PostgresLedger) -> None:
        ledger.accept([task(1)])
        writer = ledger._session._writer.reach()
        writer.execute("SET default_transaction_read_only = on")

        with pytest.raises(LedgerError, match="is read-only; give the address of the primary"):
            ledger.record([ending(1)])

        assert ledger.unfinished(0, 10) == [task(1)]

    def test_full_disk_fails_the_write_and_the_next_goes_on(self, ledger: PostgresLedger) -> None:
        ledger.accept([task(1)])
        writer = ledger._session._writer.reach()
        writer.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file'; END $$"
        )
        writer.execute("CREATE TRIGGER no_room BEFORE INSERT ON endings EXECUTE FUNCTION no_room()")

        with pytest.raises(LedgerError, match="the server's disk is full; free some space"):
            ledger.write([task(2)], [ending(1)])

        assert ledger.unfinished(0, 10) == [task(1)]
        writer.execute("DROP TRIGGER no_room ON endings")
        ledger.write([task(2)], [ending(1)])
        assert ledger.totals().completed == 1

    def test_column_that_cannot_be_read_is_damage(self, ledger: PostgresLedger) -> None:
        ledger.accept([task(1)])
        ledger._session._writer.reach().execute("UPDATE tasks SET metadata = '{'")

        with pytest.raises(LedgerError, match="it is damaged; restore the last backup"):
            ledger.unfinished(0, 10)

    def test_error_names_the_place_without_its_password(self, ledger: PostgresLedger) -> None:
        with pytest.raises(LedgerError, match=r"'postgresql://raypool@127\.0\.0\.1:\d+/postgres"):
            ledger.record([ending(1)])


class TestTables:
    @pytest.mark.parametrize(
        ("query", "parameters"),
        [(LAST_PLACES, (["a", "b"],)), (LOAD_CONVERSATION, {"session": "a"})],
        ids=["session turns", "conversation"],
    )
    def test_sessions_are_found_without_reading_the_others(
        self, ledger: PostgresLedger, query: str, parameters: Any
    ) -> None:
        reader = ledger._session._reader.reach()
        plan = "\n".join(
            row[0] for row in reader.execute(f"EXPLAIN {query}".encode(), parameters).fetchall()
        )

        assert "session_turns" in plan
        assert "Seq Scan" not in plan

    def test_values_lie_in_columns_that_people_can_read(
        self, postgres: PostgresServer, ledger: PostgresLedger
    ) -> None:
        said = Conversation("a", [{"role": "user", "content": "one"}])
        ledger.write([task(1)], [Ending(1, "completed", "pool-1", 1, 0, conversation=said)])

        with postgres.connect() as other:
            schema = ledger._session._place.schema_name
            other.execute(f"SET search_path = {schema}")
            rows = other.execute(
                "SELECT id, prompt, state, worker FROM tasks JOIN endings USING (number)"
            ).fetchall()

        assert rows == [("task-1", "why?", "completed", "pool-1")]


@pytest.mark.parametrize(
    ("setting", "value"), [("synchronous_commit", "on"), ("tcp_keepalives_idle", "10")]
)
def test_writer_is_as_durable_and_as_soon_missed_as_promised(
    postgres: PostgresServer, setting: str, value: str
) -> None:
    with postgres.connect() as admin:
        admin.execute("ALTER ROLE raypool SET synchronous_commit = off")
        ledger = PostgresLedger(place_of(postgres.new_url()))
        writer = ledger._session._writer.reach()
        found = writer.execute(f"SHOW {setting}".encode()).fetchone()
        admin.execute("ALTER ROLE raypool RESET synchronous_commit")

    assert found == (value,)
    ledger.close()
