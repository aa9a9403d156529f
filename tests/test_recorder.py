"""What the recorder keeps in the ledger, and what of it the clients get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, NoReturn

import msgspec
import pytest
import pytest_asyncio

from raypool.capacity.budget import BudgetBook, Cost
from raypool.clock import FakeClock
from raypool.config import Budget, RetryPolicy
from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.ledger import Extra
from raypool.messages import Delivery
from raypool.recorder import Ended, Recorder
from raypool.records import AcceptedTask, Conversation, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.task_record import TaskRecord
from raypool.telemetry import Broadcast
from raypool.usage import Usage
from raypool.window import Window

pytestmark = pytest.mark.asyncio

MESSAGES = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]


class Office(NamedTuple):
    """A recorder between a ledger and the desks, with one task under way.

    Attributes:
        file: the ledger's database.
        record: the task under way, which a client waits for by ticket 5.
    """

    file: SqliteLedger
    ledger: GroupCommit
    desks: Desks
    recorder: Recorder
    record: TaskRecord
    tally: Tally

    async def delivered(self) -> list[Delivery]:
        return await self.desks.of("mine").collect(0.0)


@pytest_asyncio.fixture
async def office() -> AsyncIterator[Office]:
    file, clock = SqliteLedger(), FakeClock()
    ledger, desks = GroupCommit(file), Desks(clock)
    desks.of("mine")
    roster = Roster([WorkerRecord("crew-1", "chemist", lambda: Window(64))])
    scheduler = Scheduler(roster, RoundRobin(), Retries(RetryPolicy()), clock)
    record = TaskRecord(AcceptedTask(1, "a", "why?", output_type="sha256:abc"))
    record.watchers.append(("mine", 5))
    scheduler.reserve(record)
    await ledger.accept([record.task])
    tally, broadcast = Tally(file.totals()), Broadcast(clock, "crew")
    recorder = Recorder(ledger, scheduler, desks, tally, broadcast)
    yield Office(file, ledger, desks, recorder, record, tally)
    await ledger.close()


def ending(conversation: Conversation | None = None) -> Ending:
    return Ending(1, "completed", "crew-1", 1, 0, text="because", conversation=conversation)


async def test_conversation_goes_into_the_ledger_and_not_to_the_client(office: Office) -> None:
    conversation = Conversation("user-42", MESSAGES)

    await office.recorder.record([Ended(office.record, ending(conversation))])

    assert office.file.conversation("user-42") == MESSAGES
    assert await office.delivered() == [Delivery(5, ending(), output_type="sha256:abc")]


async def test_snapshots_are_kept_with_the_endings(office: Office) -> None:
    await office.recorder.record([Ended(office.record, ending())], {"crew-1": '{"seen": 1}'})

    assert office.file.snapshot("crew-1") == '{"seen": 1}'
    assert office.file.totals().completed == 1


async def test_snapshot_that_cannot_be_kept_is_logged(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    await office.ledger.close()

    await office.recorder.record([], {"crew-1": '{"seen": 1}'})

    assert "the snapshots of 1 workers: the ledger is closed" in caplog.text


async def test_parsed_answer_and_the_type_that_was_asked_for_come_with_the_delivery(
    office: Office,
) -> None:
    await office.recorder.record([Ended(office.record, ending(), parsed=b"pickle")])

    (delivery,) = await office.delivered()
    assert (delivery.parsed, delivery.output_type) == (b"pickle", "sha256:abc")


async def test_what_a_loser_and_a_second_copy_cost_is_in_the_ledger(office: Office) -> None:
    office.tally.add_in_vain(Usage(10, 5), 0.5)
    beaten = msgspec.structs.replace(ending(), state="cancelled", usage=Usage(2, 1), cost_usd=0.25)

    assert office.recorder.is_behind
    await office.recorder.record([Ended(office.record, beaten, was_in_vain=True)])

    totals = office.file.totals()
    assert (totals.cost_usd, totals.usage) == (0.75, Usage(12, 6))
    assert (totals.extra.turns, totals.extra.turns_usd) == (2, 0.75)
    assert not office.recorder.is_behind
    after = Tally(totals)
    assert (after.extra_turns, after.extra_cost_usd) == (2, 0.75)
    assert (after.cost_usd, after.input_tokens) == (office.tally.cost_usd, 12)


async def test_what_a_budget_keeps_is_in_the_ledger_beside_what_was_told(office: Office) -> None:
    book = BudgetBook(Budget(usd=1.0))
    book.on_kept = office.tally.keep
    book.keep(Cost.of(0.25, 100), Cost.of(0.125, 150))

    await office.recorder.record([])

    totals = office.file.totals()
    assert (totals.extra.kept_usd, totals.extra.kept_tokens) == (0.125, 0)
    assert totals.cost_usd == 0


async def test_what_was_spent_is_recorded_with_what_comes_next_when_it_cannot_be_at_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.tally.add_in_vain(Usage(10, 5), 0.5)
    with monkeypatch.context() as broken:
        broken.setattr(office.file, "write", _refuse)
        failed = asyncio.Event()
        office.recorder.on_failure = failed.set
        recording = asyncio.create_task(office.recorder.record([]))
        await failed.wait()
    office.tally.add_in_vain(Usage(1), None)

    await asyncio.gather(recording, office.recorder.record([]))

    assert office.file.totals().extra == Extra(
        turns=2, turns_usd=0.5, usage=Usage(11, 5), usage_usd=0.5
    )


def _refuse(*_: object) -> NoReturn:
    raise LedgerError("the disk is full")
