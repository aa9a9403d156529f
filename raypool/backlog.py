"""Accepted tasks that no worker has been given yet."""

from __future__ import annotations

from collections.abc import Iterator

from raypool.accounts import Accounts
from raypool.line import Line, Rank
from raypool.task_record import TaskRecord


class Backlog:
    """A line for each role, and one for the tasks that any worker may have."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._lines: dict[str | None, Line] = {None: Line(accounts)}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[tuple[str | None, Line]]:
        """Each line that is not empty, with its role."""
        return iter([(role, line) for role, line in self._lines.items() if line])

    def add(self, record: TaskRecord) -> None:
        """Have a task wait for the first worker of its role that has room."""
        role = record.task.role
        if role not in self._lines:
            self._lines[role] = Line(self._accounts)
        self._lines[role].add(record)

    def lines_for(self, role: str) -> list[Line]:
        """The lines, not empty, from which a worker of that role may be given tasks."""
        own, anybodys = self._lines.get(role), self._lines[None]
        lines = [own] if own else []
        return [*lines, anybodys] if anybodys else lines

    def rank_for(self, role: str) -> Rank | None:
        """The rank of the first task that a worker of that role may be given."""
        lines = self.lines_for(role)
        if len(lines) == 1:
            return lines[0].rank()
        return min((rank for line in lines if (rank := line.rank()) is not None), default=None)

    def has_up_to(self, number: int) -> bool:
        """Whether a task that waits was accepted as `number` or before."""
        return any(line.has_up_to(number) for line in self._lines.values())
