"""What every ledger promises, held against anything that hypothesis can think of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, ClassVar, TypeAlias, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raypool.ledger import KnownTask, Ledger
from raypool.postgres_connection import Connection, resolve
from raypool.postgres_ledger import PostgresLedger
from raypool.postgres_session import Counts, Written
from raypool.records import AcceptedTask, Conversation, Ending, EndState, StoredCause
from raypool.sqlite_ledger import SqliteLedger
from raypool.usage import Usage
from tests.postgres_server import PostgresServer

NewLedger: TypeAlias = Callable[[], Ledger]


EMPTY_AT_FIRST = (
    "tasks",
    "unfinished",
    "lanes",
    "sent",
    "deaths",
    "endings",
    "session_turns",
    "snapshots",
    "output_types",
)


class WipedLedger(PostgresLedger):
    """A ledger that is empty again, rather than closed, and so takes a millisecond to make."""

    open: ClassVar[WipedLedger]

    def close(self) -> None:
        self._session.write(wiped)


def wiped(writer: Connection, counts: Counts) -> Written:
    for table in (
        "tasks",
        "unfinished",
        "endings",
        "session_turns",
        "snapshots",
        "output_types",
        "sent",
        "deaths",
    ):
        writer.execute(f"DELETE FROM {table}")
    for sums in ("totals", "extra"):
        writer.execute(f"CREATE TEMP TABLE IF NOT EXISTS new_{sums} AS SELECT * FROM {sums}")
        writer.execute(f"DELETE FROM {sums}")
        writer.execute(f"INSERT INTO {sums} SELECT * FROM new_{sums}")
    return Written(None, Counts(0, 0, 0))


@pytest.fixture(scope="module", autouse=True)
def open_ledger(postgres: PostgresServer) -> Iterator[None]:
    place = resolve(postgres.new_url()).place
    ledger = WipedLedger.open = WipedLedger(place.held_by_new_pool())
    ledger.close()
    yield
    PostgresLedger.close(ledger)


NEW_LEDGERS = [
    pytest.param(SqliteLedger, id="temporary sqlite"),
    pytest.param(lambda: WipedLedger.open, id="postgres"),
]


def task(number: int, task_id: str) -> AcceptedTask:
    return AcceptedTask(number, task_id, "why?")


def ending(number: int, state: EndState, text: str) -> Ending:
    return Ending(number, state, "pool-1", 1, 1_700_000_000_000, text=text)


SESSIONS = ["x", "y", "z"]
WORKERS = ["pool-1", "pool-2"]

texts = st.text(max_size=40)
names = st.none() | texts
amounts = st.none() | st.floats(min_value=0, allow_nan=False)
counts = st.integers(0, 2**40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.just("user"), "content": texts | st.lists(json_values)}),
    min_size=1,
    max_size=3,
)
tasks = st.builds(
    AcceptedTask,
    number=st.integers(1, 2**63 - 1),
    id=st.text(min_size=1, max_size=40),
    prompt=texts | messages,
    role=names,
    metadata=json_values,
    timeout=amounts,
    session=names,
    worker=names,
    output_type=names,
    priority=st.integers(-1_000_000, 1_000_000),
    tenant=names,
    hedge_after=st.none() | st.sampled_from(["p1", "p95"]) | st.floats(1e-9, 1e9),
    race=names,
)
endings = st.builds(
    Ending,
    number=st.just(0),
    state=st.sampled_from(get_args(EndState)),
    worker=names,
    attempts=counts,
    completed_at=counts,
    duration_ms=amounts,
    text=names,
    usage=st.builds(Usage, counts, counts, counts, counts),
    model=names,
    stop_reason=names,
    session_id=names,
    cost_usd=amounts,
    cause=st.none() | st.builds(StoredCause, texts, texts, texts, texts),
    turns=counts,
    answers=st.none() | st.lists(texts, max_size=3),
)
conversations = st.builds(Conversation, texts, messages, st.booleans())


@pytest.mark.parametrize("new_ledger", NEW_LEDGERS)
@settings(deadline=None, max_examples=200)
@given(task=tasks, ending=endings)
def test_any_task_and_ending_come_back_as_they_were(
    new_ledger: NewLedger, task: AcceptedTask, ending: Ending
) -> None:
    ending = msgspec.structs.replace(ending, number=task.number)
    with closing(new_ledger()) as ledger:
        ledger.write([task], [ending])

        assert ledger.find(task.id) == KnownTask(task, ending)


@pytest.mark.parametrize("new_ledger", NEW_LEDGERS)
@settings(deadline=None, max_examples=100)
@given(conversation=conversations, snapshot=texts, schema=texts)
def test_any_payload_comes_back_as_it_was(
    new_ledger: NewLedger, conversation: Conversation, snapshot: str, schema: str
) -> None:
    told = msgspec.structs.replace(ending(1, "completed", ""), conversation=conversation)
    with closing(new_ledger()) as ledger:
        ledger.write([task(1, "a")], [told], {"pool-1": snapshot})
        ledger.keep_output_type("digest", schema)

        assert ledger.conversation(conversation.session) == conversation.messages
        assert ledger.session_turns([conversation.session]) == {conversation.session: 1}
        assert ledger.snapshot("pool-1") == snapshot
        assert ledger.output_type("digest") == schema


class Model:
    """A ledger in three lines a method."""

    def __init__(self) -> None:
        self.tasks: dict[str, AcceptedTask] = {}
        self.endings: dict[int, Ending] = {}
        self.said: list[Conversation] = []
        self.snapshots: dict[str, str] = {}

    def write(
        self, tasks: list[AcceptedTask], endings: list[Ending], snapshots: dict[str, str]
    ) -> dict[int, KnownTask]:
        stored = {one.number: self.tasks.setdefault(one.id, one) for one in tasks}
        for one in endings:
            self.record(one)
        self.snapshots |= snapshots
        return {
            number: KnownTask(one, self.endings.get(one.number))
            for number, one in stored.items()
            if one.number != number
        }

    def record(self, told: Ending) -> None:
        if told.number not in self.endings:
            self.endings[told.number] = msgspec.structs.replace(told, conversation=None)
            if told.conversation and told.state == "completed":
                self.said.append(told.conversation)

    def session_turns(self, session: str) -> int:
        return sum(one.session == session for one in self.said)

    def conversation(self, session: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        for one in self.said:
            if one.session == session:
                messages = one.messages if one.is_whole else messages + one.messages
        return messages

    def requeue_failed(self) -> int:
        failed = [number for number, one in self.endings.items() if one.state == "failed"]
        for number in failed:
            del self.endings[number]
        return len(failed)

    def unfinished(self) -> list[AcceptedTask]:
        return [one for one in self.tasks.values() if one.number not in self.endings]

    def count(self, state: EndState) -> int:
        return sum(one.state == state for one in self.endings.values())


ids = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), max_size=6)
session_names = st.sampled_from(SESSIONS)
ends = st.lists(
    st.tuples(
        st.integers(0, 100),
        st.sampled_from(get_args(EndState)),
        st.none() | st.builds(Conversation, session_names, messages, st.booleans()),
    ),
    max_size=6,
)
last_snapshots = st.dictionaries(st.sampled_from(WORKERS), texts)


class LedgerHistory(RuleBasedStateMachine):
    """Any history of writes leaves in a ledger what it leaves in the model."""

    new_ledger: NewLedger

    def __init__(self) -> None:
        super().__init__()
        self.ledger = type(self).new_ledger()
        self.model = Model()
        self.last_number = 0

    @rule(ids=ids, ends=ends, snapshots=last_snapshots)
    def write(
        self,
        ids: list[str],
        ends: list[tuple[int, EndState, Conversation | None]],
        snapshots: dict[str, str],
    ) -> None:
        tasks = [task(self.last_number + place, one) for place, one in enumerate(ids, 1)]
        endings = [self.some_ending(*one) for one in ends if self.model.tasks]
        self.last_number += len(tasks)

        known = self.ledger.write(tasks, endings, snapshots)

        assert known == self.model.write(tasks, endings, snapshots)

    @rule()
    def requeue_failed(self) -> None:
        assert self.ledger.requeue_failed() == self.model.requeue_failed()

    @invariant()
    def holds_the_same_tasks(self) -> None:
        ended = [one.ending for one in self.ledger.ended(0, 100)]

        assert self.ledger.unfinished(0, 100) == self.model.unfinished()
        assert ended == list(self.model.endings.values())

    @invariant()
    def counts_the_same_tasks(self) -> None:
        totals = self.ledger.totals()

        assert totals.unfinished == len(self.model.unfinished())
        assert totals.completed == self.model.count("completed")
        assert totals.failed == self.model.count("failed")
        assert totals.cancelled == self.model.count("cancelled")

    @invariant()
    def has_the_same_sessions(self) -> None:
        turns = {session: self.model.session_turns(session) for session in SESSIONS}

        assert self.ledger.session_turns(SESSIONS) == {k: n for k, n in turns.items() if n}
        for session in SESSIONS:
            assert self.ledger.conversation(session) == self.model.conversation(session)

    @invariant()
    def keeps_the_same_snapshots(self) -> None:
        for worker in WORKERS:
            assert self.ledger.snapshot(worker) == self.model.snapshots.get(worker)

    def some_ending(
        self, choice: int, state: EndState, conversation: Conversation | None
    ) -> Ending:
        numbers = [one.number for one in self.model.tasks.values()]
        told = ending(numbers[choice % len(numbers)], state, f"{self.last_number} {choice}")
        return msgspec.structs.replace(told, conversation=conversation)

    def teardown(self) -> None:
        self.ledger.close()


class SqliteHistory(LedgerHistory):
    new_ledger = SqliteLedger


class PostgresHistory(LedgerHistory):
    new_ledger = staticmethod(lambda: WipedLedger.open)


TestAnyHistoryOfSqlite = SqliteHistory.TestCase
TestAnyHistoryOfSqlite.settings = settings(deadline=None, max_examples=60, stateful_step_count=12)
TestAnyHistoryOfPostgres = PostgresHistory.TestCase
TestAnyHistoryOfPostgres.settings = settings(TestAnyHistoryOfSqlite.settings, max_examples=25)


@pytest.mark.parametrize("new_ledger", NEW_LEDGERS)
@settings(deadline=None, max_examples=30)
@given(
    states=st.lists(st.sampled_from(get_args(EndState)), min_size=1, max_size=8),
    size=st.integers(1, 8),
)
def test_first_ending_wins_in_whatever_calls_they_come(
    new_ledger: NewLedger, states: list[EndState], size: int
) -> None:
    told = [ending(1, state, str(place)) for place, state in enumerate(states)]
    with closing(new_ledger()) as ledger:
        ledger.accept([task(1, "a")])

        for start in range(0, len(told), size):
            ledger.record(told[start : start + size])

        assert [one.ending for one in ledger.ended(0, 10)] == told[:1]
