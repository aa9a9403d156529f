"""The names of a pool's workers, and whose they are."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence


def worker_name(pool: str, number: int) -> str:
    """The name of a pool's worker; numbers begin at 1."""
    return f"{pool}-{number}"


def number_of(name: str) -> int:
    """The number in a worker's name."""
    return int(name.rpartition("-")[2])


class Naming:
    """Gives workers their names: the lowest number that is free and never was another role's.

    So a worker that comes back finds its agent's snapshot under its name, and never that of
    an agent of another role; and what is told of a worker is told of one role.
    """

    def __init__(
        self, pool: str, had: Sequence[str] = (), roles: Collection[str] | None = None
    ) -> None:
        """Begin with the roles, by number, that an earlier run of the pool has `had`.

        `roles` are those that it has now; one that had one role, and has one now, has renamed it.
        """
        is_renamed = roles is not None and len(roles) == len(set(had)) == 1
        self._pool = pool
        self._roles = [*(roles or ())] * len(had) if is_renamed else list(had)
        self._free: dict[str, list[int]] = defaultdict(list)
        for number, role in enumerate(self._roles, 1):
            self._free[role].append(number)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every name that was ever given, by number, with its role."""
        for number, role in enumerate(self._roles, 1):
            yield worker_name(self._pool, number), role

    @property
    def by_number(self) -> list[str]:
        """The role of every number that was ever given, from 1."""
        return list(self._roles)

    def role_of(self, name: str) -> str:
        """Whose name it is; it must have been given once."""
        return self._roles[number_of(name) - 1]

    def take(self, role: str) -> str:
        """A name for a new worker of that role."""
        if self._free[role]:
            return worker_name(self._pool, heapq.heappop(self._free[role]))
        self._roles.append(role)
        return worker_name(self._pool, len(self._roles))

    def claim(self, name: str) -> None:
        """Somebody who is there has that name, and it is not free."""
        self._free[self.role_of(name)].remove(number_of(name))
        heapq.heapify(self._free[self.role_of(name)])

    def give_back(self, name: str) -> None:
        """The worker of that name is gone."""
        heapq.heappush(self._free[self.role_of(name)], number_of(name))
