"""Which tasks queue behind one another, so that some of them may wait in the ledger only."""

from __future__ import annotations

from typing import NamedTuple

from raypool.records import AcceptedTask


class Lane(NamedTuple):
    """Tasks of one role, tenant and priority, which are taken in the order of their numbers.

    Attributes:
        role: the role that must answer; `None` for any.
        tenant: on whose account they are.
        priority: how urgent they are.
    """

    role: str | None = None
    tenant: str | None = None
    priority: int = 0


def lane_of(task: AcceptedTask) -> Lane | None:
    """The lane of a task; `None` for one that is bound to a session, a race or a worker."""
    if task.session is not None or task.race is not None or task.worker is not None:
        return None
    return Lane(task.role, task.tenant, task.priority)
