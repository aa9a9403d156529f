"""Which worker has a session, and whose turn it is there."""

from __future__ import annotations

from collections import OrderedDict, deque

from raypool.task_record import TaskRecord

MOST_RESTING = 100_000


class SessionRecord:
    """One named conversation, as the dispatcher knows it.

    Attributes:
        turns: how many tasks it has behind it.
        worker: the name of the worker that has it, once one has.
        current: the task whose turn it is.
        line: the tasks that come after that one, in order.
    """

    __slots__ = ("current", "line", "turns", "worker")

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.worker: str | None = None
        self.current: TaskRecord | None = None
        self.line: deque[TaskRecord] = deque()


class Sessions:
    """The sessions that have tasks, and those that had some lately.

    The tasks of a session run one at a time: the next one may go once the end of the one
    before is recorded. `most_resting` sessions without tasks are remembered.
    """

    def __init__(self, most_resting: int = MOST_RESTING) -> None:
        self._most_resting = most_resting
        self._busy: dict[str, SessionRecord] = {}
        self._resting: OrderedDict[str, SessionRecord] = OrderedDict()

    def turns_of(self, name: str) -> int | None:
        """How many tasks a session has behind it; `None` when it is not known."""
        session = self._busy.get(name) or self._resting.get(name)
        return session.turns if session else None

    def add(self, name: str, turns: int) -> None:
        """Know of a session that has so many tasks behind it, unless it is known."""
        if self.turns_of(name) is None:
            self._rest(name, SessionRecord(turns))

    def enter(self, record: TaskRecord) -> bool:
        """Put a task into its session's line; whether its turn has come."""
        name = record.task.session
        assert name is not None
        session = self._busy.get(name)
        if session is None:
            session = self._resting.pop(name, None) or SessionRecord(0)
            self._busy[name] = session
        if session.current is None:
            self._begin(session, record)
        elif session.current is not record:
            session.line.append(record)
        return session.current is record

    def leave(self, record: TaskRecord, *, has_grown: bool) -> TaskRecord | None:
        """A task's end is recorded, and the session has grown by it; the task that is next."""
        name = record.task.session
        session = self._busy.get(name or "")
        if session is None or session.current is not record:
            return None
        assert name is not None
        session.turns += has_grown
        session.current = None
        while session.line:
            following = session.line.popleft()
            if not following.has_ended:
                self._begin(session, following)
                return following
        del self._busy[name]
        self._rest(name, session)
        return None

    def worker_of(self, record: TaskRecord) -> str | None:
        """The name of the worker that has the task's session, if one has."""
        session = self._busy.get(record.task.session or "")
        return session.worker if session else None

    def move(self, record: TaskRecord, worker: str) -> None:
        """Note that `worker` has the task's session from now on."""
        session = self._busy.get(record.task.session or "")
        if session is not None:
            session.worker = worker

    def _begin(self, session: SessionRecord, record: TaskRecord) -> None:
        session.current = record
        record.session_turns = session.turns

    def _rest(self, name: str, session: SessionRecord) -> None:
        self._resting[name] = session
        if len(self._resting) > self._most_resting:
            self._resting.popitem(last=False)
