"""What the recorder keeps in the ledger, and what of it the clients get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.desk import Desks
from raypool.group_commit import GroupCommit
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
    yield Office(file, ledger, desks, recorder, record)
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
