"""Every unfinished task of a pool, and what happens to it next.

Told what happened (a task was accepted, an attempt ended, a worker died or halted, time has
passed), it says what to do: which tasks to send where, and how a task ended. It
neither waits nor talks to anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from raypool.backlog import Backlog
from raypool.clock import Clock
from raypool.copies import Copies
from raypool.dealing import Dealing
from raypool.messages import Notice, Outcome
from raypool.places import Places
from raypool.placing import Placing
from raypool.ready import Ready
from raypool.records import Ending
from raypool.retries import Retries
from raypool.rivals import Rivals
from raypool.roster import Roster, WorkerRecord
from raypool.routing import Routing
from raypool.sending import Sending
from raypool.sessions import Sessions
from raypool.settling import Decided, Delayed, InVain, Settling
from raypool.shelves import Shelves
from raypool.task_record import TaskRecord

SHORTEST_WAIT = 0.001


class Scheduler:
    """Keeps the unfinished tasks and decides who runs them, when, and when they have ended.

    Args:
        routing: the policy of the tasks without a role, and of each role that has none.
        role_routing: the policies of roles.
        shelves: says which tasks are not kept here, and has them counted.
    """

    def __init__(
        self,
        roster: Roster,
        routing: Routing,
        retries: Retries,
        clock: Clock,
        *,
        role_routing: Mapping[str, Routing] | None = None,
        shelves: Shelves | None = None,
    ) -> None:
        self.roster = roster
        self.sessions = Sessions()
        self.shelves = Shelves() if shelves is None else shelves
        self._retries = retries
        self._clock = clock
        self._backlog = Backlog(roster.accounts)
        self._rivals = Rivals()
        self._ready = Ready()
        self._copies = Copies(roster)
        placing = Placing(roster, self.sessions, self._rivals, routing, role_routing or {})
        self._places = Places(
            roster,
            self.sessions,
            placing,
            self._backlog,
            ready=self._ready,
            copies=self._copies,
        )
        self._dealing = Dealing(roster, self._backlog, self._rivals, self._ready, retries)
        waiting = (self._backlog, self._ready, self._dealing, self._places)
        self._sending = Sending(roster, *waiting, shelves=self.shelves)
        self._settling = Settling(
            roster,
            self._places,
            self._copies,
            self._ready,
            outlived=self._dealing.outlived,
            retries=retries,
            clock=clock,
        )
        self._records: dict[str, TaskRecord] = {}
        for worker in roster:
            self._ready.mark(worker)

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended, or have and their ending is not committed."""
        return len(self._records) + self.shelves.count

    @property
    def unassigned(self) -> int:
        """How many unfinished tasks no worker has been given."""
        return len(self._backlog) + len(self._places.standing_by) + self.shelves.count

    def records(self) -> Iterator[TaskRecord]:
        """The tasks that have not ended, or have and their ending is not committed."""
        return iter(self._records.values())

    def unfinished_up_to(self, number: int) -> dict[str | None, int]:
        """By worker, how much is unfinished that was accepted as `number` or before.

        Those are tasks, also ended ones whose ending is not committed, and notices; under
        `None`, the tasks that no worker has been given, or that one has ended who is gone.
        """
        counts: Counter[str | None] = Counter({None: self.shelves.count_up_to(number)})
        for record in self._records.values():
            if record.is_accepted and record.number <= number:
                worker = self.roster.get(record.worker)
                counts[None if worker is None else worker.name] += 1
        for worker in self.roster:
            counts[worker.name] += sum(1 for _ in _notices_up_to(worker, number))
        return dict(+counts)

    def get(self, task_id: str) -> TaskRecord | None:
        """The task of that id, unless its ending is committed, or it is shelved."""
        return self._records.get(task_id)

    def reserve(self, record: TaskRecord) -> None:
        """Know of a task before it is committed, so that its id is taken."""
        self._records[record.task.id] = record

    def forget(self, record: TaskRecord) -> None:
        """Drop a task that was not accepted, or is shelved."""
        del self._records[record.task.id]

    def release(self, record: TaskRecord, *, has_grown: bool) -> Decided | None:
        """Drop a task whose ending is dealt with; the next of its session may go.

        `has_grown` when the ledger has what the task added to the session. Returns the next
        task when it ended at once, because nobody can have it.
        """
        self.forget(record)
        self.shelves.leave(record)
        self._rivals.leave(record)
        if record.task.session is None:
            return None
        following = self.sessions.leave(record, has_grown=has_grown)
        unplaced = None if following is None else self._places.place(following)
        return self._settling.decide(unplaced)

    def assign(self, record: TaskRecord) -> Ending | None:
        """Give a committed task to a worker; its ending when nobody can have it."""
        record.is_accepted = True
        self.shelves.enter(record)
        self._note_deaths(record)
        self._rivals.enter(record)
        if record.is_cancelled:
            return self._settling.end(record, "cancelled")
        if record.task.session is not None and not self.sessions.enter(record):
            return self._settling.end_unplaced(self._places.stand_by(record))
        return self._settling.end_unplaced(self._places.place(record))

    # What is sent

    def envelopes(self) -> list[tuple[WorkerRecord, list[TaskRecord]]]:
        """Every worker that is sent something now, with its tasks.

        Where capacity is short, the most urgent task has it, whichever worker's it is.
        """
        return self._sending.envelopes()

    def take(self, worker: WorkerRecord) -> list[TaskRecord]:
        """The tasks to send to `worker` now, in one envelope, whoever else waits."""
        return self._sending.deal(worker).records

    def settle(self, worker: WorkerRecord, outcome: Outcome) -> Decided | Delayed | InVain | None:
        """What an attempt's outcome means; `None` when the task is not held, or is in line again.

        An outcome may tell that the worker has halted. It then takes no more tasks; `halt`
        gives those in its line to others.
        """
        return self._settling.settle(worker, outcome)

    def adopt(self, worker: WorkerRecord, record: TaskRecord) -> None:
        """Take a task in that `worker` has asked for and run by itself."""
        self.reserve(record)
        record.is_accepted = True
        self.shelves.enter(record)
        self._places.bind(record, worker)
        worker.held[record.number] = record
        self.shelves.leave(record)

    def take_over(self, worker: WorkerRecord, record: TaskRecord, *, is_kept: bool) -> None:
        """Go on with a task that `worker` has begun for a scheduler that is no more.

        It holds the task, or, when it `is_kept`, waits in the middle of it.
        """
        self.reserve(record)
        record.is_accepted = True
        self.shelves.enter(record)
        self._note_deaths(record)
        self._rivals.enter(record)
        if record.task.session is not None:
            self.sessions.enter(record)
        self._places.bind(record, worker)
        if is_kept:
            record.is_paused = True
            self._places.line_up(worker, record)
        else:
            worker.held[record.number] = record
            worker.sent += 1
            worker.gate.hold(record)
            self.shelves.leave(record)

    def cancel(self, record: TaskRecord) -> Ending | None:
        """Cancel a task; its ending, or `None` when that must come from elsewhere.

        The ending of a task that a worker holds comes from that worker; that of a
        task which is not committed yet, from `assign`.
        """
        if record.has_ended:
            return None
        record.is_cancelled = True
        worker = self.roster.get(record.worker)
        is_held = worker is not None and record.number in worker.held
        if is_held or not record.is_accepted:
            return None
        return self._settling.end(record, "cancelled")

    def drop(self, worker: WorkerRecord, number: int) -> Decided | None:
        """End a cancelled task that `worker` holds and has promised not to start."""
        return self._settling.drop(worker, number)

    def copy(self, record: TaskRecord, worker: WorkerRecord) -> TaskRecord | None:
        """Have `worker` run a task, too, that another one runs; what to send it.

        The first answer ends the task; a copy that fails leaves it to the other. `None` when
        that cannot be now: the task is not held by one other worker alone, or is one of a
        session, or pinned, or a worker has died with it; or `worker` has no room, or has what
        must go by itself; or its gate has no room.
        """
        holder = self.roster.get(record.worker)
        is_held = holder is not None and holder.held.get(record.number) is record
        is_twin = record.copy is not None or record.original is not None
        is_alone = not (is_twin or record.has_ended or record.is_cancelled)
        if not is_held or not is_alone or holder is worker or worker.is_leaving:
            return None
        is_bound = record.task.session is not None or record.task.worker is not None
        if is_bound or record.tries.deaths or not self._dealing.has_slot(worker):
            return None
        return self._copies.start(record, worker)

    def free_worker(self, record: TaskRecord) -> WorkerRecord | None:
        """A worker with room for a copy of the task; `None` when there is none."""
        workers = self.roster.choice(record.task.role)
        apart = self._rivals.apart(record, workers)
        free = [one for one in apart if self._dealing.has_slot(one) and one.name != record.worker]
        return min(free, key=lambda one: len(one.held), default=None)

    # Workers that come and go

    def join(self, worker: WorkerRecord) -> list[Decided]:
        """A new worker is ready: it gets its part of what the others have not been sent.

        What waits where no worker takes tasks is dealt out again.
        """
        self.roster.add(worker)
        self.roster.sort()
        self._ready.mark(worker)
        unplaced = self._places.redistribute(self._idle())
        return self._settling.decide_all([*unplaced, *self._places.share_with(worker)])

    def dismiss(self, worker: WorkerRecord) -> list[Decided]:
        """`worker` is given no more tasks; others get those that it has not begun.

        It may be removed once it `is_empty`.
        """
        worker.is_leaving = True
        return self._settling.decide_all(self._places.redistribute([worker]))

    def take_back(self, worker: WorkerRecord, numbers: Iterable[int]) -> list[Decided]:
        """Others get these tasks, which `worker` holds and has promised not to start."""
        halted = worker.halted
        settled = [self.settle(worker, Outcome(number, is_returned=True)) for number in numbers]
        worker.halted = halted
        # One that is returned ends if it was cancelled meanwhile.
        decided = [one for one in settled if isinstance(one, Decided)]
        return decided + self._settling.decide_all(self._places.redistribute([worker]))

    def waiting_for(self, role: str | None) -> int:
        """How many tasks of that role no worker has been given, and any could have now."""
        waiting = next((len(line) for one, line in self._backlog if one == role), 0)
        return waiting + self.shelves.waiting_for(role)

    def remove(self, worker: WorkerRecord) -> list[Decided]:
        """Forget a worker that has nothing left, or is lost for good.

        Its tasks that wait for another attempt wait on, and what it was to hear is dropped.
        """
        worker.notices.clear()
        self._places.abandon(worker)
        self.roster.remove(worker)
        self._ready.forget(worker)
        return self._settling.decide_all(self._places.redistribute([]))

    def halt(self, worker: WorkerRecord, reason: str) -> list[Decided]:
        """`worker` takes no more tasks: others get those that it has not started."""
        worker.halted = reason
        return self._settling.decide_all(self._places.redistribute([worker]))

    def resume(self, worker: WorkerRecord) -> list[Decided]:
        """`worker` takes tasks again, also those that wait where nobody does."""
        worker.halted = None
        self._ready.mark(worker)
        return self._settling.decide_all(self._places.redistribute(self._idle()))

    def worker_died(
        self, worker: WorkerRecord, why: str, *, is_coming_back: bool = False
    ) -> list[Decided]:
        """Have what `worker` had run again; what its workers have died of too often fails."""
        worker.is_healthy = False
        worker.is_coming_back = is_coming_back
        running = [number for number in worker.held if number not in worker.unsent]
        running = running[: worker.concurrency]
        held = self._let_all_go(worker)
        self.roster.sort()
        decided = [
            self._settling.died(worker, record, why, was_running=record.number in running)
            for record in held
        ]
        unplaced = self._places.redistribute([worker])
        return [*(one for one in decided if one), *self._settling.decide_all(unplaced)]

    def blame_notice(self, worker: WorkerRecord) -> Notice | None:
        """Before `worker_died`: count the death for the notice that its agent was to hear next.

        Returns the notice when it is dropped: the worker has died of it too often, and had no
        task then that it might have died of.
        """
        blamed = worker.next_notice
        if blamed is None or self._retries.survives(blamed.tries, was_running=not worker.held):
            return None
        del worker.notices[blamed.notice.number]
        return blamed.notice

    def worker_back(self, worker: WorkerRecord) -> list[Decided]:
        """The new process of `worker` is ready."""
        worker.begin()
        worker.is_coming_back = False
        worker.restarts += 1
        self._ready.mark(worker)
        return self._settling.decide_all(self._places.redistribute(self._idle()))

    def worker_gone(self, worker: WorkerRecord) -> list[Decided]:
        """No new process of `worker` could be had; what it was to hear is dropped."""
        worker.is_coming_back = False
        worker.notices.clear()
        return self._settling.decide_all(self._places.redistribute([worker]))

    # Time

    def wake(self) -> tuple[list[Decided], float | None]:
        """Put back in line what has waited long enough.

        Returns what ended because no worker is left for it, and the seconds until
        the next call is due (`None`: not before something else happens).
        """
        ended = self._settling.wake()
        for gate in self.roster.gates:
            gate.wake()
        return ended, self.due_in()

    def due_in(self) -> float | None:
        """Seconds until something goes on by itself; `None` when nothing does."""
        due = self._settling.due_in()
        for gate in self.roster.gates:
            opens_in = gate.opens_in()
            due += [] if opens_in is None else [opens_in]
        return max(SHORTEST_WAIT, min(due)) if due else None

    @property
    def waits(self) -> bool:
        """Whether something goes on by itself after a time: `wake` says when."""
        return self.due_in() is not None

    def has_work_up_to(self, worker: WorkerRecord, number: int) -> bool:
        """Whether `worker` has unfinished work that was accepted as `number` or before."""
        return (
            worker.line.has_up_to(number)
            or any(held <= number and not one.has_ended for held, one in worker.held.items())
            or any(waiting <= number for waiting in worker.waiting)
            or any(True for _ in _notices_up_to(worker, number))
        )

    def has_unassigned_up_to(self, number: int) -> bool:
        """Whether a task accepted as `number` or before waits that no worker has been given."""
        standing_by = self._places.standing_by
        return (
            self._backlog.has_up_to(number)
            or any(one <= number for one in standing_by)
            or self.shelves.has_up_to(number)
        )

    def _let_all_go(self, worker: WorkerRecord) -> list[TaskRecord]:
        """What a dead worker held; nobody knows what it has taken of that, but for the unsent."""
        held: list[TaskRecord] = []
        for number in list(worker.held):
            is_unsent = number in worker.unsent
            returned = Outcome(number, is_returned=True) if is_unsent else None
            record = self._settling.let_go(worker, number, returned)
            if record is not None:
                held.append(record)
        return held

    def _note_deaths(self, record: TaskRecord) -> None:
        """Have a task that workers have died with, in an earlier run, go apart here too."""
        if record.deaths:
            self._dealing.outlived.add(record.number)

    def _idle(self) -> list[WorkerRecord]:
        return [worker for worker in self.roster if not worker.takes_tasks]


def _notices_up_to(worker: WorkerRecord, number: int) -> Iterator[Notice]:
    """Notices sent as `number` or before, and all that agents have sent: those led to them."""
    for record in worker.notices.values():
        if record.notice.number <= number or record.notice.is_from_agent:
            yield record.notice
