"""Who gets a task: its worker, its session's, or the one that its role's policy chooses."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence

from raypool.endings import of_bad_routing, of_death
from raypool.records import StoredCause
from raypool.rivals import Rivals
from raypool.roster import Roster, WorkerRecord
from raypool.routing import LeastLoaded, NextFree, RoundRobin, Routing
from raypool.sessions import Sessions
from raypool.task_record import TaskRecord

OUR_OWN = (RoundRobin, LeastLoaded, NextFree)


class Placing:
    """Chooses a worker for each task.

    Args:
        routing: the policy of the tasks without a role, and of each role that has none.
        role_routing: the policies of roles.
    """

    def __init__(
        self,
        roster: Roster,
        sessions: Sessions,
        rivals: Rivals,
        routing: Routing,
        role_routing: Mapping[str, Routing],
    ) -> None:
        self._roster = roster
        self._sessions = sessions
        self._rivals = rivals
        self._routing = routing
        self._role_routing = role_routing

    def policy_for(self, role: str | None) -> Routing:
        """The policy that tasks of a role go by."""
        return self._routing if role is None else self._role_routing.get(role, self._routing)

    def is_even(self, role: str | None) -> bool:
        """Whether the policy of a role means that all its workers should have the same."""
        return isinstance(self.policy_for(role), (RoundRobin, LeastLoaded))

    def choose(self, record: TaskRecord) -> WorkerRecord | StoredCause | None:
        """The worker that gets a task; `None` for the first that has room.

        A cause when nobody can have it.
        """
        task = record.task
        if task.worker is not None:
            pinned = self._roster.get(task.worker)
            if pinned is not None and not pinned.is_leaving:
                return pinned if pinned.may_take_tasks else _nobody_left(record)
        workers: Sequence[WorkerRecord] = self._roster.choice(task.role)
        if not workers:
            return None if self._roster.may_come(task.role) else _nobody_left(record)
        if task.session is not None:
            owner = self._roster.get(self._sessions.worker_of(record))
            if owner is not None and owner in workers:
                return owner
        policy = self.policy_for(task.role)
        if task.race is not None:
            workers = self._rivals.apart(record, workers)
        elif type(policy) is LeastLoaded:
            return workers[policy.choose_place(self._roster.loads(task.role))]
        return self._ask(policy, record, workers)

    def _ask(
        self, policy: Routing, record: TaskRecord, workers: Sequence[WorkerRecord]
    ) -> WorkerRecord | StoredCause | None:
        if isinstance(policy, OUR_OWN):
            return policy.choose(record.task, workers)
        try:
            chosen: object = policy.choose(record.task, workers)
        except Exception as error:  # noqa: BLE001 - a user's code; its task fails with it
            why = f"the policy raised {type(error).__name__}: {error}"
            return of_bad_routing(policy, type(error).__name__, why, traceback.format_exc())
        if chosen is None or (isinstance(chosen, WorkerRecord) and chosen in workers):
            return chosen
        why = f"choose(task, workers) must return one of the workers, or None, got {chosen!r:.80}"
        return of_bad_routing(policy, "TypeError", why)


def _nobody_left(record: TaskRecord) -> StoredCause:
    task = record.task
    every = "every worker" if task.role is None else f"every worker with the role {task.role!r}"
    if task.worker is not None:
        every = f"worker {task.worker!r}, which alone may run the task,"
        return of_death(f"{every} has died")
    return of_death(f"{every} of the pool has died")
