"""Which worker gets a task."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from raypool.errors import PoolStartError
from raypool.loads import Loads
from raypool.records import AcceptedTask


class Candidate(Protocol):
    """A worker that may be given a task, as a policy of your own sees it."""

    @property
    def name(self) -> str:
        """`<pool>-<number>`."""

    @property
    def role(self) -> str:
        """Its role."""

    @property
    def concurrency(self) -> int:
        """How many tasks it runs at once."""

    @property
    def unfinished(self) -> int:
        """Tasks that it was given and that have not ended."""

    @property
    def completed(self) -> int:
        """Tasks that it completed."""

    @property
    def failed(self) -> int:
        """Tasks that failed on it for good."""


Chosen = TypeVar("Chosen", bound=Candidate)


class Routing(Protocol):
    """Chooses a worker for each task, in the order of acceptance.

    It is asked once for each task that may run on any worker of its role, and again for one
    whose worker is lost. A task of a session that a worker has, or that names its worker, goes
    there unasked. It runs in the dispatcher, so it must be quick. When it raises, or returns
    what is none of `workers`, the task fails with that cause.
    """

    def choose(self, task: AcceptedTask, workers: Sequence[Chosen]) -> Chosen | None:
        """One of `workers`: those of the task's role that may have it, never none.

        With `None` the task waits, and goes to the first worker that has room.
        """


class RoundRobin:
    """Task k goes to worker k mod N of those that may have it."""

    def __init__(self) -> None:
        self._count = 0

    def choose(self, task: AcceptedTask, workers: Sequence[Chosen]) -> Chosen | None:
        place = self._count % len(workers)
        self._count += 1
        return workers[place]


class LeastLoaded:
    """A task goes to the worker that has the fewest unfinished ones; among equals in rotation."""

    def __init__(self) -> None:
        self._start = 0

    def choose(self, task: AcceptedTask, workers: Sequence[Chosen]) -> Chosen | None:
        return workers[self.choose_place(Loads(worker.unfinished for worker in workers))]

    def choose_place(self, loads: Loads) -> int:
        """The place of the worker that gets the next task; `loads` are those of all."""
        place = loads.place_of_fewest(self._start % len(loads))
        self._start = place + 1
        return place


class NextFree:
    """A task waits until a worker is free, and goes to the first that is."""

    def choose(self, task: AcceptedTask, workers: Sequence[Chosen]) -> Chosen | None:
        return None


_POLICIES: dict[str, type[Routing]] = {
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "next_free": NextFree,
}


def make_routing(routing: str | bytes) -> Routing:
    """The policy of that name, or a user's own as `payload.pack_routing` has packed it.

    Only the pool's dispatcher calls it: a user's own is unpickled.

    Raises:
        PoolStartError: a user's own cannot be unpickled; says why.
    """
    if isinstance(routing, str):
        return _POLICIES[routing]()
    try:
        policy: Routing = pickle.loads(routing)  # noqa: S301 - packed by who started the pool
    except Exception as error:
        raise PoolStartError(
            f"routing cannot be unpickled in the dispatcher: {type(error).__name__}: {error}"
        ) from error
    return policy


def make_routings(
    routing: str | bytes, by_role: Mapping[str, str | bytes]
) -> tuple[Routing, dict[str, Routing]]:
    """The policy of tasks without a role, and those of roles; see `make_routing`.

    Each role has a round of its own, and the tasks without a role another; roles share a
    user's own policy. In a pool of one role all tasks go by one policy, its own.

    Raises:
        PoolStartError: a user's own cannot be unpickled; says why.
    """
    if len(by_role) == 1:
        return make_routing(*by_role.values()), {}
    general = make_routing(routing)
    is_own = isinstance(routing, bytes)
    return general, {
        role: general if is_own and wanted == routing else make_routing(wanted)
        for role, wanted in by_role.items()
    }
