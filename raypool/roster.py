"""Which workers there are, and what each one has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from raypool.accounts import Accounts
from raypool.capacity.gate import Gate, OpenGate
from raypool.line import Line
from raypool.loads import Loads
from raypool.messages import Notice
from raypool.retries import Tries
from raypool.task_record import TaskRecord
from raypool.window import Window


class NoticeRecord:
    """What a worker was notified of and has not dealt with, as the dispatcher knows it.

    Attributes:
        notice: what its agent is to hear.
        tries: the deaths of the worker that are behind it.
        is_heard: its agent has heard it; what that has led to is being recorded.
    """

    __slots__ = ("is_heard", "notice", "tries")

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        self.tries = Tries()
        self.is_heard = False


class WorkerRecord:
    """One worker, as the dispatcher knows it.

    Attributes:
        name: `<pool>-<number>`.
        role: its role.
        gate: what says whether it may be sent a task now.
        line: tasks given to it that wait in the dispatcher.
        held: tasks sent to it and not ended, by number, in the order in which they were sent.
        unsent: the numbers of those of them that its process cannot have begun: the ledger is to
            know of them first.
        waiting: its tasks that wait for another attempt or their session's turn, by number.
        notices: what it was notified of and has not dealt with, by number, in order.
        places: where it is among those whose loads are compared.
        sent: how many attempts were sent to its process.
        completed: tasks it completed.
        failed: tasks that failed on it for good.
        restarts: how often its process was replaced.
        is_healthy: its process lives and is ready.
        is_coming_back: its process is being replaced.
        is_leaving: it is given no more tasks, and goes once it has none.
        halted: why it takes no tasks; `None` while it does.
        is_resumed_early: it was resumed, and the outcome that tells of its halt is on its way.
    """

    def __init__(
        self, name: str, role: str, new_window: Callable[[], Window], gate: Gate | None = None
    ) -> None:
        self.name = name
        self.role = role
        self.gate: Gate = gate or OpenGate()
        self.line = Line()
        self.held: dict[int, TaskRecord] = {}
        self.unsent: set[int] = set()
        self.waiting: dict[int, TaskRecord] = {}
        self.notices: dict[int, NoticeRecord] = {}
        self.places: list[tuple[Loads, int]] = []
        self._unfinished = 0
        self.completed = 0
        self.failed = 0
        self.restarts = 0
        self.is_coming_back = False
        self.is_leaving = False
        self._new_window = new_window
        self.begin()

    def begin(self) -> None:
        """A new process is ready."""
        self.window = self._new_window()
        self.sent = 0
        self.halted: str | None = None
        self.is_resumed_early = False
        self.is_healthy = True

    @property
    def unfinished(self) -> int:
        """How many tasks it was given that have not ended."""
        return self._unfinished

    @unfinished.setter
    def unfinished(self, count: int) -> None:
        self._unfinished = count
        for loads, place in self.places:
            loads.change(place, count)

    @property
    def concurrency(self) -> int:
        """How many tasks it runs at once."""
        return self.window.concurrency

    @property
    def takes_tasks(self) -> bool:
        """Whether it can be sent tasks now."""
        return self.is_healthy and self.halted is None

    @property
    def has_slot(self) -> bool:
        """Whether it could run one more task now."""
        return self.takes_tasks and len(self.held) < self.window.concurrency

    @property
    def may_take_tasks(self) -> bool:
        """Whether it can be sent tasks now, or some time later."""
        return self.is_healthy or self.is_coming_back

    @property
    def next_notice(self) -> NoticeRecord | None:
        """The notice that its agent hears next, or now."""
        return next((one for one in self.notices.values() if not one.is_heard), None)

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing left to do."""
        return not (self.unfinished or self.held or self.notices)


class Roster:
    """The workers of a pool, in the order in which they came.

    Attributes:
        accounts: on which their lines count what each tenant has had.
        may_grow: the roles that may get workers, though they may have none.
        gates: the gates that they stand behind, each once.
    """

    def __init__(self, workers: Iterable[WorkerRecord], accounts: Accounts | None = None) -> None:
        self.accounts = Accounts() if accounts is None else accounts
        self.may_grow: frozenset[str] = frozenset()
        self._workers: dict[str, WorkerRecord] = {}
        self._choice: dict[str | None, list[WorkerRecord]] = {}
        self._loads: dict[str | None, Loads] = {}
        for worker in workers:
            self.add(worker)
        self.sort()

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self._workers.values())

    def __contains__(self, name: str) -> bool:
        return name in self._workers

    def __getitem__(self, name: str) -> WorkerRecord:
        return self._workers[name]

    def get(self, name: str | None) -> WorkerRecord | None:
        """The worker of that name, if there is one."""
        return None if name is None else self._workers.get(name)

    def add(self, worker: WorkerRecord) -> None:
        """Know of a worker that has no tasks yet; `sort` has it chosen."""
        worker.line = Line(self.accounts)
        self._workers[worker.name] = worker

    def remove(self, worker: WorkerRecord) -> None:
        """Forget a worker."""
        del self._workers[worker.name]
        self.sort()

    def may_come(self, role: str | None) -> bool:
        """Whether a role may get workers; any role, for `None`."""
        return bool(self.may_grow) if role is None else role in self.may_grow

    def choice(self, role: str | None) -> list[WorkerRecord]:
        """The workers that a task of that role may be given to; of all roles for `None`.

        Those that take tasks now; when there are none, those that will later.
        """
        return self._choice.get(role, [])

    def loads(self, role: str | None) -> Loads:
        """What those of `choice` have to do, in their order; it holds until the next `sort`."""
        loads = self._loads.get(role)
        if loads is None:
            workers = self.choice(role)
            loads = self._loads[role] = Loads(worker.unfinished for worker in workers)
            for place, worker in enumerate(workers):
                worker.places.append((loads, place))
        return loads

    def sort(self) -> None:
        """Look again which workers there are, and which of them take tasks."""
        for worker in self:
            worker.places.clear()
        self._loads.clear()
        self.gates = list(dict.fromkeys(worker.gate for worker in self))
        roles = {None, *(worker.role for worker in self)}
        self._choice = {role: self._choose(role) for role in roles}

    def _choose(self, role: str | None) -> list[WorkerRecord]:
        workers = [w for w in self if role in (None, w.role) and not w.is_leaving]
        now = [worker for worker in workers if worker.takes_tasks]
        return now or [worker for worker in workers if worker.may_take_tasks]
