"""Tasks in and endings out, through a real ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from msgspec import structs

from raypool.capacity.standstill import Standstill
from raypool.clock import FakeClock
from raypool.config import RetryPolicy
from raypool.desk import Desks
from raypool.errors import LedgerError
from raypool.events import Event, ResultEvent, ToolUseEvent
from raypool.fingerprints import Fingerprints
from raypool.group_commit import GroupCommit
from raypool.intake import Intake
from raypool.ledger import NO_EXTRA, NO_PROGRESS, Extra, KnownTask, Progress
from raypool.messages import Answer, Asked, Delivery, Outcome, Receipt, Refusal, Submission
from raypool.output_type import OutputType, pack_output_type
from raypool.recorder import Ended, Recorder
from raypool.records import AcceptedTask, Conversation, Ending
from raypool.retries import Retries
from raypool.roster import Roster, WorkerRecord
from raypool.routing import RoundRobin
from raypool.scheduler import Scheduler
from raypool.sessions import Sessions
from raypool.settling import Decided
from raypool.sqlite_ledger import SqliteLedger
from raypool.tally import Tally
from raypool.telemetry import Broadcast, TelemetryEvent
from raypool.usage import Usage
from raypool.window import Window

pytestmark = pytest.mark.asyncio

MODEL = "a-model"


class FailingLedger(SqliteLedger):
    """A ledger whose writes or reads fail while it is told so, or wait for a gate."""

    failure: LedgerError | None = None
    read_failure: LedgerError | None = None

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def write(
        self,
        tasks: Sequence[AcceptedTask],
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
        progress: Progress = NO_PROGRESS,
    ) -> dict[int, KnownTask]:
        failure = self.failure
        self.entered.set()
        self.gate.wait()
        if failure is not None:
            raise failure
        return super().write(tasks, endings, snapshots, extra, progress)

    def session_turns(self, sessions: Sequence[str]) -> dict[str, int]:
        if self.read_failure is not None:
            raise self.read_failure
        return super().session_turns(sessions)


class Office:
    """What a dispatcher connects, without workers that run.

    Attributes:
        file: the ledger's database.
        tally: what has ended and is recorded.
    """

    def __init__(self, size: int = 2, *, model: str | None = MODEL) -> None:
        self.file = FailingLedger()
        self.ledger = GroupCommit(self.file)
        clock = FakeClock()
        self.desks = Desks(clock)
        self.broadcast = Broadcast(clock, "crew")
        self.workers = [
            WorkerRecord(f"crew-{n}", "chemist", lambda: Window(64)) for n in (1, 2)[:size]
        ]
        self.scheduler = Scheduler(
            Roster(self.workers), RoundRobin(), Retries(RetryPolicy()), clock
        )
        self.fingerprints = Fingerprints()
        if model is not None:
            self.fingerprints.know("chemist", model)
        self.tally = Tally(self.file.totals())
        self._connect(last_number=0)
        for client in ("mine", "yours"):
            self.desks.of(client)

    async def accept(self, *submissions: Submission, client: str = "mine") -> Receipt:
        receipt, ended = await self.intake.accept(client, list(submissions))
        await self.record(ended)
        return receipt

    async def record(self, ended: list[Ended]) -> None:
        """Record endings, and those of the tasks that follow and end at once."""
        while ended:
            ended = await self.recorder.record(ended)

    async def run_all(self) -> None:
        """Have every worker answer every task with the prompt, also those that follow."""
        while ended := self.answer_all():
            await self.record(ended)

    def answer_all(self) -> list[Ended]:
        """Have every worker answer what it has; how that ended, unrecorded."""
        ended = []
        for worker in self.workers:
            while records := self.scheduler.take(worker):
                for record in records:
                    settled = self.scheduler.settle(worker, self._answer(record.task))
                    assert isinstance(settled, Decided)
                    ended.append(Ended(*settled))
        return ended

    def _answer(self, task: AcceptedTask) -> Outcome:
        text = f"re: {task.prompt}"
        added = None
        if task.session is not None:
            messages: list[dict[str, Any]] = [
                {"role": "user", "content": task.prompt},
                {"role": "assistant", "content": text},
            ]
            added = Conversation(task.session, messages)
        return Outcome(task.number, Answer(text, 7.5), usage=Usage(1, 2), conversation=added)

    async def delivered(self, client: str = "mine") -> dict[int, str | None]:
        """By ticket, the text of each ending that waits for a client."""
        deliveries = await self.desks.of(client).collect(0.0)
        return {one.ticket: one.ending.text if one.ending else None for one in deliveries}

    async def restart(self, model: str | None = MODEL) -> Office:
        """What a later start on the same ledger finds, which has no tasks in its scheduler.

        `model` is what answers then; `None` when no worker has said so yet.
        """
        later = Office(model=model)
        await later.ledger.close()
        later.file, later.ledger = self.file, self.ledger
        later.tally = Tally(self.file.totals())
        later._connect(self.file.totals().last_number)
        return later

    async def events(self) -> list[TelemetryEvent]:
        """What has happened since it was watched first."""
        return await self.broadcast.next("watcher", 0.0)

    def _connect(self, last_number: int) -> None:
        self.standstill = Standstill()
        self.recorder = Recorder(
            self.ledger,
            self.scheduler,
            self.desks,
            self.tally,
            self.broadcast,
            standstill=self.standstill,
        )
        self.intake = Intake(
            self.ledger,
            self.scheduler,
            self.desks,
            self.broadcast,
            last_number=last_number,
            fingerprints=self.fingerprints,
            deaths=self.file.deaths(),
        )


@pytest_asyncio.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    yield office
    await office.ledger.close()


def ask(ticket: int, task_id: str | None = None, prompt: Any = "why?") -> Submission:
    return Submission(ticket, task_id or f"task-{ticket}", prompt)


async def test_accepted_tasks_are_committed_and_given_to_workers(office: Office) -> None:
    receipt = await office.accept(ask(1), ask(2), ask(3))

    assert receipt == Receipt([(1, "crew-1"), (2, "crew-2"), (3, "crew-1")], [])
    assert [task.id for task in office.file.unfinished(0, 9)] == ["task-1", "task-2", "task-3"]
    assert office.intake.last_number == 3


async def test_last_assigned_task_is_the_last_that_was_committed(office: Office) -> None:
    await office.accept(ask(1), ask(2))
    accepting = asyncio.create_task(office.accept(ask(3)))
    await asyncio.sleep(0)

    assert (office.intake.last_number, office.intake.last_assigned) == (3, 2)
    await accepting
    assert office.intake.last_assigned == 3


async def test_nothing_is_given_to_a_worker_before_it_is_committed(office: Office) -> None:
    accepting = asyncio.create_task(office.accept(ask(1)))
    await asyncio.sleep(0)

    assert office.scheduler.unfinished == 1
    assert office.scheduler.take(office.workers[0]) == []
    await accepting
    assert len(office.scheduler.take(office.workers[0])) == 1


async def test_whole_submission_is_kept(office: Office) -> None:
    prompt = [{"role": "user", "content": "why?"}]

    await office.accept(Submission(1, "a", prompt, "chemist", {"row": 1}, 5.0))

    fingerprint = office.fingerprints.of(Submission(1, "a", prompt, "chemist"))
    assert office.file.find("a") == KnownTask(
        AcceptedTask(1, "a", prompt, "chemist", {"row": 1}, 5.0, fingerprint=fingerprint)
    )


async def test_batches_of_many_clients_keep_the_order_in_which_they_came(office: Office) -> None:
    await asyncio.gather(
        *(
            office.accept(*(ask(n) for n in range(batch * 10, batch * 10 + 10)), client=client)
            for batch, client in enumerate(["mine", "yours"] * 5)
        )
    )

    ids = [task.id for task in office.file.unfinished(0, 1_000)]
    assert ids == [f"task-{n}" for n in range(100)]
    for worker in office.workers:
        numbers = [record.number for record in worker.line.clear()]
        assert numbers == sorted(numbers)


async def test_ending_is_recorded_before_its_client_gets_it(office: Office) -> None:
    await office.accept(ask(1))

    await office.run_all()

    [ended] = office.file.ended(0, 9)
    assert (ended.task.id, ended.ending.text) == ("task-1", "re: why?")
    assert await office.delivered() == {1: "re: why?"}
    assert office.scheduler.unfinished == 0
    assert office.tally.ended == {"completed": 1, "failed": 0, "cancelled": 0}
    assert (office.tally.input_tokens, office.tally.output_tokens) == (1, 2)


async def test_clients_get_what_their_tasks_yielded_and_raised(office: Office) -> None:
    await office.accept(ask(1))
    [record] = office.scheduler.take(office.workers[0])
    settled = office.scheduler.settle(office.workers[0], Outcome(1, Answer("42", 7.5)))
    assert isinstance(settled, Decided)
    events: list[Event] = [ToolUseEvent("call", "search", {}), ResultEvent()]

    await office.recorder.record([Ended(record, settled[1], events, b"pickle")])

    [delivery] = await office.desks.of("mine").collect(0.0)
    assert delivery == Delivery(1, settled[1], events, b"pickle")


async def test_id_that_is_under_way_joins_its_task(office: Office) -> None:
    await office.accept(ask(1, "a"))

    receipt = await office.accept(ask(7, "a"), client="yours")
    await office.run_all()

    assert receipt == Receipt([(7, "crew-1")], [])
    assert await office.delivered("mine") == {1: "re: why?"}
    assert await office.delivered("yours") == {7: "re: why?"}
    assert office.tally.ended["completed"] == 1


async def test_id_that_has_ended_is_answered_from_the_ledger(office: Office) -> None:
    await office.accept(ask(1, "a"))
    await office.run_all()

    receipt = await office.accept(ask(7, "a"), client="yours")

    assert receipt == Receipt([(7, "crew-1")], [])
    assert await office.delivered("yours") == {7: "re: why?"}
    assert office.scheduler.unfinished == 0
    assert office.tally.ended["completed"] == 1


async def test_id_twice_in_a_batch_is_one_task_with_two_futures(office: Office) -> None:
    receipt = await office.accept(ask(1, "a"), ask(2, "a"), ask(3, "b"))
    await office.run_all()

    assert sorted(receipt.workers) == [(1, "crew-1"), (2, "crew-1"), (3, "crew-2")]
    assert await office.delivered() == {1: "re: why?", 2: "re: why?", 3: "re: why?"}
    assert office.tally.ended["completed"] == 2


async def test_id_from_two_clients_at_once_is_one_task_with_two_futures(office: Office) -> None:
    receipts = await asyncio.gather(
        office.accept(ask(1, "a")), office.accept(ask(1, "a"), client="yours")
    )
    await office.run_all()

    assert [receipt.workers for receipt in receipts] == [[(1, "crew-1")], [(1, "crew-1")]]
    assert await office.delivered("mine") == {1: "re: why?"}
    assert await office.delivered("yours") == {1: "re: why?"}
    assert office.tally.ended["completed"] == 1


async def test_ended_id_twice_in_a_batch_is_answered_twice(office: Office) -> None:
    await office.accept(ask(1, "a"))
    await office.run_all()
    await office.delivered()

    receipt = await office.accept(ask(2, "a"), ask(3, "a"))

    assert sorted(receipt.workers) == [(2, "crew-1"), (3, "crew-1")]
    assert await office.delivered() == {2: "re: why?", 3: "re: why?"}


async def test_ended_id_from_two_clients_at_once_is_answered_to_both(office: Office) -> None:
    await office.accept(ask(1, "a"))
    await office.run_all()
    await office.delivered()

    await asyncio.gather(office.accept(ask(2, "a")), office.accept(ask(2, "a"), client="yours"))

    assert await office.delivered("mine") == {2: "re: why?"}
    assert await office.delivered("yours") == {2: "re: why?"}


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (ask(2, "a", "how?"), "prompt"),
        (Submission(2, "a", "why?", "historian"), "role"),
        (Submission(2, "a", "why?", session="user-42"), "session"),
        (Submission(2, "a", "why?", output_type="sha256:abc"), "output type"),
    ],
    ids=["prompt", "role", "session", "output type"],
)
@pytest.mark.parametrize("when", ["under way", "ended", "same batch", "at once"])
async def test_other_question_under_a_known_id_is_refused(
    office: Office, when: str, other: Submission, differing: str
) -> None:
    first = ask(1, "a")
    if when == "same batch":
        receipt = await office.accept(first, other)
    elif when == "at once":
        _, receipt = await asyncio.gather(office.accept(first), office.accept(other))
    else:
        await office.accept(first)
        if when == "ended":
            await office.run_all()
        receipt = await office.accept(other)
    await office.run_all()

    [refusal] = receipt.refusals
    assert (refusal.ticket, refusal.kind) == (2, "InvalidTask")
    assert refusal.message == (
        f"the ledger has a task 'a' with another {differing}; "
        "give this one another id, or the pool another ledger"
    )
    assert await office.delivered() == {1: "re: why?"}


async def test_answer_of_another_model_is_no_answer_to_the_same_question(office: Office) -> None:
    await office.accept(ask(1, "a"))
    await office.run_all()
    later = await office.restart(model="another-model")

    receipt = await later.accept(ask(2, "a"), ask(3, "a", "how?"))

    assert [refusal.message.partition(";")[0] for refusal in receipt.refusals] == [
        "the ledger has a task 'a' with another model",
        "the ledger has a task 'a' with another prompt",
    ]
    assert await later.delivered() == {}
    assert (await (await later.restart()).accept(ask(4, "a"))).refusals == []


async def test_unfinished_task_is_asked_of_the_models_of_a_later_pool(office: Office) -> None:
    await office.accept(ask(1, "a"), ask(2, "b"))
    later = await office.restart(model="another-model")
    await later.intake.resume(later.file.unfinished(0, 1))

    receipt = await later.accept(ask(3, "a"), ask(4, "b"))
    await later.run_all()

    assert receipt.refusals == []
    assert await later.delivered() == {3: "re: why?", 4: "re: why?"}
    back = await later.restart()
    [of_a, of_b] = (await back.accept(ask(5, "a"), ask(6, "b"))).refusals
    assert of_a.message.startswith("the ledger has a task 'a' with another model; ")
    assert of_b.message.startswith("the ledger has a task 'b' with another model; ")


async def test_deaths_count_on_in_a_later_run_and_are_all_told(office: Office) -> None:
    await office.accept(ask(1, "a"))
    [record] = office.scheduler.take(office.workers[0])
    office.scheduler.worker_died(office.workers[0], "out of memory")
    await office.recorder.note(Progress(deaths=record.deaths))
    later = await office.restart()

    await later.intake.resume(later.file.unfinished(0, 1))
    for worker, why in zip(later.workers, ("killed", "lost"), strict=True):
        [record] = later.scheduler.take(worker)
        decided = later.scheduler.worker_died(worker, why, is_coming_back=True)

    [(_, ending)] = decided
    assert ending.cause is not None
    assert ending.cause.kind == "WorkerDied"
    first, *told = ending.cause.message.splitlines()
    assert first == "3 workers have died with the task:"
    assert [line.partition(" ")[2] for line in told] == [
        "worker 'crew-1' died: out of memory",
        "worker 'crew-1' died: killed",
        "worker 'crew-2' died: lost",
    ]


async def test_task_that_comes_before_any_worker_is_asked_of_the_model_that_comes() -> None:
    office = Office(model=None)
    await office.accept(ask(1, "a"))

    office.fingerprints.know("chemist", MODEL)
    await office.run_all()

    assert (await (await office.restart()).accept(ask(2, "a"))).refusals == []
    refused = await (await office.restart(model="another-model")).accept(ask(3, "a"))
    assert [refusal.ticket for refusal in refused.refusals] == [3]
    await office.ledger.close()


async def test_model_that_cannot_be_kept_keeps_no_task_from_running(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(fingerprints: Mapping[int, bytes]) -> None:
        raise LedgerError("the disk is full")

    await office.accept(ask(1, "a"))
    later = await office.restart(model="another-model")
    monkeypatch.setattr(later.file, "restate", fail)

    await later.intake.resume(later.file.unfinished(0, 1))
    await later.run_all()

    assert later.tally.ended["completed"] == 1
    assert "which model its tasks are asked of now: the disk is full" in caplog.text


async def test_each_question_under_an_ended_id_is_judged_by_what_the_ledger_has(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    await office.run_all()
    await office.delivered()

    receipt = await office.accept(ask(2, "a", "how?"), ask(3, "a", "how?"), ask(4, "a"))

    assert sorted(refusal.ticket for refusal in receipt.refusals) == [2, 3]
    assert await office.delivered() == {4: "re: why?"}


async def test_other_metadata_and_timeout_are_no_other_question(office: Office) -> None:
    await office.accept(Submission(1, "a", "why?", None, {"row": 1}, 5.0))

    receipt = await office.accept(Submission(2, "a", "why?", None, {"row": 2}, 9.0))

    assert receipt.refusals == []


async def test_later_start_goes_on_with_what_is_unfinished(office: Office) -> None:
    await office.accept(ask(1), ask(2))
    later = await office.restart()

    ended = await later.intake.resume(later.file.unfinished(0, 9))
    await later.run_all()

    assert ended == []
    assert later.file.totals().completed == 2
    assert later.intake.last_number == 2


async def test_unfinished_id_of_an_earlier_run_is_run_once_for_whoever_asks(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    later = await office.restart()

    receipt = await later.accept(ask(5, "a"), ask(6, "a"), ask(7, "b"))
    await later.run_all()

    assert [worker for _, worker in sorted(receipt.workers)] == ["crew-1", "crew-1", "crew-2"]
    assert await later.delivered() == {5: "re: why?", 6: "re: why?", 7: "re: why?"}
    assert later.file.totals().completed == 2


async def test_watcher_of_a_task_that_the_ledger_turns_out_to_know_gets_its_end(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    await office.run_all()
    await office.delivered()
    accepting = asyncio.create_task(office.accept(ask(2, "a", "how?")))
    await asyncio.sleep(0)
    record = office.scheduler.get("a")
    assert record is not None

    record.watchers.append(("yours", 9))
    await accepting

    assert await office.delivered("yours") == {9: "re: why?"}


async def test_task_that_nobody_can_have_ends_as_it_is_accepted(office: Office) -> None:
    for worker in office.workers:
        office.scheduler.worker_died(worker, "it was killed")

    receipt = await office.accept(ask(1))

    [delivery] = await office.desks.of("mine").collect(0.0)
    assert receipt == Receipt([(1, None)], [])
    assert delivery.ending is not None
    assert delivery.ending.state == "failed"
    assert office.file.totals().failed == 1


async def test_task_cancelled_while_it_is_committed_ends_cancelled(office: Office) -> None:
    accepting = asyncio.create_task(office.accept(ask(1, "a")))
    await asyncio.sleep(0)
    record = office.scheduler.get("a")
    assert record is not None

    office.scheduler.cancel(record)
    receipt = await accepting

    assert receipt == Receipt([(1, None)], [])
    assert office.file.totals().cancelled == 1
    assert office.scheduler.unfinished == 0


async def test_batch_that_cannot_be_committed_is_refused(office: Office) -> None:
    office.file.failure = LedgerError("the disk is full")

    receipt = await office.accept(ask(1), ask(2))

    assert receipt == Receipt(
        [],
        [
            Refusal(1, "LedgerError", "the disk is full"),
            Refusal(2, "LedgerError", "the disk is full"),
        ],
    )
    assert office.scheduler.unfinished == 0


async def test_id_of_a_batch_that_was_refused_can_be_submitted_again(office: Office) -> None:
    office.file.failure = LedgerError("the disk is full")
    await office.accept(ask(1, "a"))
    office.file.failure = None

    receipt = await office.accept(ask(2, "a"))
    await office.run_all()

    assert receipt.refusals == []
    assert await office.delivered() == {2: "re: why?"}


async def test_everybody_who_asked_under_an_id_hears_that_it_cannot_be_committed(
    office: Office,
) -> None:
    office.file.failure = LedgerError("the disk is full")

    mine, yours = await asyncio.gather(
        office.accept(ask(1, "a"), ask(2, "a")), office.accept(ask(3, "a"), client="yours")
    )

    told = {refusal.ticket for refusal in (*mine.refusals, *yours.refusals)}
    told |= set(await office.delivered("mine")) | set(await office.delivered("yours"))
    assert told == {1, 2, 3}
    assert mine.workers == yours.workers == []


async def test_watcher_of_a_task_that_cannot_be_committed_hears_of_it(office: Office) -> None:
    office.file.failure = LedgerError("the disk is full")
    accepting = asyncio.create_task(office.accept(ask(1, "a")))
    await asyncio.sleep(0)
    record = office.scheduler.get("a")
    assert record is not None

    record.watchers.append(("yours", 9))
    await accepting

    [delivery] = await office.desks.of("yours").collect(0.0)
    assert (delivery.ticket, delivery.ledger_error) == (9, "the disk is full")


async def test_id_whose_first_batch_is_lost_is_the_next_batchs(office: Office) -> None:
    office.file.gate.clear()
    office.file.failure = LedgerError("the disk is full")
    first = asyncio.create_task(office.accept(ask(1, "a")))
    await asyncio.to_thread(office.file.entered.wait)  # so that the next batch is of another write
    office.file.failure = None
    second = asyncio.create_task(office.accept(ask(2, "a"), client="yours"))
    await asyncio.sleep(0)

    office.file.gate.set()
    lost, accepted = await first, await second
    third = await office.accept(ask(3, "a"))
    await office.run_all()

    assert [refusal.ticket for refusal in lost.refusals] == [1]
    assert accepted.workers == [(2, "crew-1")]
    assert third.workers == [(3, "crew-1")]
    assert await office.delivered("mine") == {3: "re: why?"}
    assert await office.delivered("yours") == {2: "re: why?"}


async def test_task_that_was_accepted_before_is_joined_though_its_batch_fails(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    office.file.failure = LedgerError("the disk is full")

    receipt = await office.accept(ask(2, "a"), ask(3, "b"))
    office.file.failure = None
    await office.run_all()

    assert receipt.workers == [(2, "crew-1")]
    assert [refusal.ticket for refusal in receipt.refusals] == [3]
    assert await office.delivered() == {1: "re: why?", 2: "re: why?"}


async def test_ending_that_cannot_be_recorded_is_told_and_kept_until_it_can(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    office.file.failure = LedgerError("the disk is full")
    running = asyncio.create_task(office.run_all())

    [delivery] = await office.desks.of("mine").collect(10.0)
    assert delivery.ending is None
    assert delivery.ledger_error == (
        "the disk is full; how task 'a' has ended is kept, and recorded once the ledger can be "
        "written: pool.future('a') waits for that"
    )
    assert (office.recorder.kept, office.tally.ended["completed"]) == (1, 0)
    assert [task.id for task in office.file.unfinished(0, 9)] == ["a"]
    office.file.failure = None
    await running

    assert await office.delivered() == {}
    assert (office.recorder.kept, office.tally.ended["completed"]) == (0, 1)
    assert office.file.unfinished(0, 9) == []


async def test_task_whose_end_is_kept_does_not_run_again_when_it_is_submitted_again(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    office.file.failure = LedgerError("the disk is full")
    running = asyncio.create_task(office.run_all())
    await office.desks.of("mine").collect(10.0)

    receipt = await office.accept(ask(2, "a"))
    assert receipt.workers == [(2, "crew-1")]
    office.file.failure = None
    await running

    assert await office.delivered() == {2: "re: why?"}
    assert all(office.scheduler.take(worker) == [] for worker in office.workers)


async def test_settling_waits_for_what_is_kept_and_not_for_what_was_refused(
    office: Office,
) -> None:
    await office.accept(ask(1, "a"))
    office.file.failure = LedgerError("the disk is full")
    await office.accept(ask(2, "b"))
    await office.recorder.settle()
    running = asyncio.create_task(office.run_all())
    await office.desks.of("mine").collect(10.0)

    settling = asyncio.create_task(office.recorder.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    office.file.failure = None
    await settling

    assert [ended.task.id for ended in office.file.ended(0, 9)] == ["a"]
    await running


async def test_nothing_is_sent_while_the_ledger_cannot_be_written(office: Office) -> None:
    changes: list[str] = []
    office.recorder.on_failure = lambda: changes.append("failure")
    recovered = asyncio.Event()
    office.recorder.on_recovery = recovered.set
    office.file.failure = LedgerError("the disk is full")

    await office.accept(ask(1, "a"))
    await office.accept(ask(2, "b"))

    assert changes == ["failure"]
    assert office.standstill.why is not None
    assert office.standstill.why.startswith("the disk is full; nothing is sent until the ledger")
    office.file.failure = None
    await recovered.wait()
    assert office.standstill.why is None


async def test_ending_that_the_ledger_cannot_hold_is_given_up_and_the_others_are_recorded(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    await office.accept(ask(1, "a"), ask(2, "b"), ask(3, "c"))
    ended = office.answer_all()
    too_large = msgspec.structs.replace(ended[1].ending, usage=Usage(2**70))
    ended[1] = ended[1]._replace(ending=too_large)

    await office.recorder.record(ended, {"crew-1": '{"seen": 1}'})

    assert {one.task.id for one in office.file.ended(0, 9)} == {"a", "b", "c"} - {
        ended[1].record.task.id
    }
    assert office.file.snapshot("crew-1") == '{"seen": 1}'
    assert (office.recorder.given_up, office.recorder.kept) == (1, 0)
    assert "not recorded are the ends of 1 tasks" in caplog.text
    deliveries = await office.desks.of("mine").collect(0.0)
    assert [one.ledger_error is None for one in deliveries].count(False) == 1
    assert office.standstill.why is None


async def test_task_that_two_find_unfinished_at_once_runs_once(office: Office) -> None:
    await office.accept(say(1, "user-42", task_id="a"))
    later = await office.restart()
    tasks = office.file.unfinished(0, 9)

    await asyncio.gather(later.intake.resume(tasks), later.intake.resume(tasks))

    assert [len(worker.line) for worker in later.workers] == [1, 0]


async def test_tasks_whose_output_type_cannot_be_kept_are_refused(office: Office) -> None:
    await office.ledger.close()
    packed = pack_output_type(OutputType.of(int))

    receipt, _ = await office.intake.accept("mine", [ask(1)], {"digest": packed})

    assert [refusal.kind for refusal in receipt.refusals] == ["LedgerError"]


async def test_closed_ledger_refuses_as_one_that_fails(office: Office) -> None:
    await office.accept(ask(1))
    await office.ledger.close()

    receipt = await office.accept(ask(2))
    await office.run_all()

    assert [refusal.kind for refusal in receipt.refusals] == ["LedgerError"]
    [delivery] = await office.desks.of("mine").collect(0.0)
    assert delivery.ledger_error is not None


def say(ticket: int, session: str, prompt: str = "why?", task_id: str | None = None) -> Submission:
    return Submission(ticket, task_id or f"task-{ticket}", prompt, session=session)


async def test_tasks_of_a_session_are_recorded_one_after_the_other(office: Office) -> None:
    await office.accept(*(say(n, "user-42", f"{n}?") for n in (1, 2, 3)))
    assert [worker.unfinished for worker in office.workers] == [3, 0]

    await office.run_all()

    told = [message["content"] for message in office.file.conversation("user-42")]
    assert told == ["1?", "re: 1?", "2?", "re: 2?", "3?", "re: 3?"]
    assert await office.delivered() == {1: "re: 1?", 2: "re: 2?", 3: "re: 3?"}


async def test_session_goes_on_once_what_it_has_grown_by_is_recorded(office: Office) -> None:
    await office.accept(say(1, "user-42"), say(2, "user-42"))
    office.file.failure = LedgerError("the disk is full")
    [first] = office.scheduler.take(office.workers[0])
    answer = Outcome(1, Answer("42", 7.5), conversation=Conversation("user-42", []))
    settled = office.scheduler.settle(office.workers[0], answer)
    assert isinstance(settled, Decided)

    recording = asyncio.create_task(office.recorder.record([Ended(*settled)]))
    await office.desks.of("mine").collect(10.0)
    assert office.scheduler.take(office.workers[0]) == []
    office.file.failure = None

    assert await recording == []
    [second] = office.scheduler.take(office.workers[0])
    assert (first.number, second.number, second.session_turns) == (1, 2, 1)


async def test_task_that_follows_and_that_nobody_can_have_is_returned_by_the_recorder(
    office: Office,
) -> None:
    office = await office.restart()
    await office.accept(say(1, "user-42"), say(2, "user-42"))
    ended = [
        Ended(*decided)
        for worker in office.workers
        for decided in office.scheduler.worker_died(worker, "it was killed")
    ]

    [followed] = await office.recorder.record(ended)
    await office.record([followed])

    assert followed.record.number == 2
    assert office.file.totals().failed == 2
    assert office.scheduler.unfinished == 0


async def test_session_of_an_earlier_run_goes_on_where_it_was(office: Office) -> None:
    await office.accept(say(1, "user-42"), say(2, "user-42"))
    await office.run_all()
    await office.accept(say(3, "user-42"))
    later = await office.restart()

    await later.intake.resume(later.file.unfinished(0, 9))
    await later.accept(say(4, "user-42"), say(5, "other"))

    turns = {
        record.task.session: record.session_turns
        for worker in later.workers
        for record in later.scheduler.take(worker)
    }
    assert turns == {"user-42": 2, "other": 0}


async def test_no_session_is_forgotten_between_its_look_up_and_its_task(office: Office) -> None:
    await office.accept(*(say(n, f"user-{n}") for n in range(9)))
    await office.run_all()
    later = await office.restart()
    later.scheduler.sessions = Sessions(most_resting=2)

    await later.accept(*(say(n, f"user-{n % 9}") for n in range(10, 19)))

    records = [record for worker in later.workers for record in later.scheduler.take(worker)]
    assert [record.session_turns for record in records] == [1] * 9


async def test_session_of_a_task_that_the_ledger_turns_out_to_know_goes_on_too(
    office: Office,
) -> None:
    await office.accept(say(1, "user-42"))
    await office.run_all()
    await office.accept(say(2, "user-42", task_id="a"))
    later = await office.restart()

    receipt = await later.accept(ask(3, "a", "another question"))

    assert [refusal.ticket for refusal in receipt.refusals] == [3]
    [record] = [record for worker in later.workers for record in later.scheduler.take(worker)]
    assert (record.task.id, record.session_turns) == ("a", 1)


async def test_batch_whose_sessions_cannot_be_looked_up_is_refused(office: Office) -> None:
    office.file.read_failure = LedgerError("the disk is gone")

    receipt = await office.accept(say(1, "user-42"), ask(2))

    assert receipt.workers == []
    assert receipt.refusals == [
        Refusal(1, "LedgerError", "the disk is gone"),
        Refusal(2, "LedgerError", "the disk is gone"),
    ]
    assert office.scheduler.unfinished == 0


async def test_earlier_run_whose_sessions_cannot_be_looked_up_is_not_resumed(
    office: Office,
) -> None:
    await office.accept(say(1, "user-42"))
    later = await office.restart()
    later.file.read_failure = LedgerError("the disk is gone")

    with pytest.raises(LedgerError, match="the disk is gone"):
        await later.intake.resume(later.file.unfinished(0, 9))

    assert later.scheduler.unfinished == 0


async def test_task_that_an_agent_has_asked_for_is_accepted_as_any_other(office: Office) -> None:
    number = office.intake.take_number()
    worker = office.workers[1]
    outcome = Outcome(number, Answer("42", 7.5), asked=Asked("a", "what is new?"))

    await office.intake.adopt(worker, outcome)
    settled = office.scheduler.settle(worker, outcome)
    assert isinstance(settled, Decided)
    await office.record([Ended(*settled)])

    known = office.file.find("a")
    assert known is not None
    task = AcceptedTask(number, "a", "what is new?", "chemist")
    assert known.task == structs.replace(task, fingerprint=office.fingerprints.of(task))
    assert known.ending is not None
    assert (known.ending.text, known.ending.worker) == ("42", "crew-2")
    assert office.intake.last_assigned == number


async def test_task_that_an_agent_asks_for_and_that_is_paused_waits_for_that_agent(
    office: Office,
) -> None:
    number, [other, worker] = office.intake.take_number(), office.workers
    outcome = Outcome(number, asked=Asked("a", "what is new?"), is_paused=True)

    assert await office.intake.adopt(worker, outcome) is None

    known = office.file.find("a")
    assert known is not None
    assert (known.task.worker, known.ending) == (worker.name, None)
    assert office.scheduler.take(other) == []
    assert [record.task for record in office.scheduler.take(worker)] == [known.task]


async def test_task_that_an_agent_asks_for_fails_once_the_agent_is_gone(office: Office) -> None:
    number, worker = office.intake.take_number(), office.workers[1]
    office.scheduler.worker_died(worker, "killed")

    ended = await office.intake.adopt(
        worker, Outcome(number, asked=Asked("a", "what is new?"), is_paused=True)
    )

    assert ended is not None
    assert (ended.ending.state, ended.ending.number) == ("failed", number)


async def test_later_future_of_a_task_may_want_its_text(office: Office) -> None:
    await office.accept(ask(1, "a"))
    await office.accept(Submission(2, "a", "why?", stream=True), client="yours")

    [record] = office.scheduler.take(office.workers[0])

    assert record.assignment().streams


async def test_whole_life_of_tasks_is_told_to_those_who_watch(office: Office) -> None:
    await office.accept(ask(1, "unseen"))
    office.broadcast.subscribe("watcher")

    await office.accept(ask(2, "a"), ask(3, "b"))
    record = office.scheduler.get("b")
    assert record is not None
    ending = office.scheduler.cancel(record)
    assert ending is not None
    await office.record([Ended(record, ending)])
    await office.run_all()

    told = [(event.name, event.task, event.worker) for event in await office.events()]
    assert told == [
        ("task.accepted", "a", None),
        ("task.accepted", "b", None),
        ("mailbox.queued", "b", "crew-1"),
        ("task.cancelled", "b", "crew-1"),
        ("task.completed", "unseen", "crew-1"),
        ("task.completed", "a", "crew-2"),
    ]
