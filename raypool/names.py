"""The names under which a pool's actors are found in its Ray namespace."""

from __future__ import annotations

from typing import Any

import ray


def dispatcher_name(pool: str) -> str:
    """The name of a pool's dispatcher, which no worker of any pool can have."""
    return f"{pool}/dispatcher"


def find_dispatcher(pool: str, namespace: str) -> Any:
    """The handle of a running pool's dispatcher.

    Raises:
        ValueError: no such pool runs.
    """
    return ray.get_actor(dispatcher_name(pool), namespace=namespace)
