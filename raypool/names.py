"""A pool's actors in its Ray namespace: how they are found, and asked while they come back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import ray

from raypool.interruption import SIGNALS_RAISE

AGAIN_SECONDS = 0.1


def dispatcher_name(pool: str) -> str:
    """The name of a pool's dispatcher, which no worker of any pool can have."""
    return f"{pool}/dispatcher"


def find_dispatcher(pool: str, namespace: str) -> Any:
    """The handle of a running pool's dispatcher.

    Raises:
        ValueError: no such pool runs.
    """
    return ray.get_actor(dispatcher_name(pool), namespace=namespace)


def reach(
    dispatcher: Any,
    method: str,
    *args: Any,
    timeout: float | None = None,
    gives_up: Callable[[], bool] = lambda: False,
    keep: Callable[[Any], None] = lambda _: None,
) -> Any:
    """What a dispatcher answers; is asked again while Ray starts it anew.

    What was asked may have been done although it did not answer. `gives_up` says whether nobody
    wants to know any more. An answer that a signal leaves unread goes to `keep`: Ray prints the
    error of one that is dropped.

    Raises:
        ray.exceptions.RayError: it is dead, has raised, or has not answered in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        answer = getattr(dispatcher, method).remote(*args)
        try:
            return ray.get(answer, timeout=left)
        except SIGNALS_RAISE:
            keep(answer)
            raise
        except ray.exceptions.ActorUnavailableError:
            if gives_up() or left == 0:
                raise
            time.sleep(AGAIN_SECONDS)


def was_restarted() -> bool:
    """Whether Ray has started this actor in the place of one that has died."""
    with warnings.catch_warnings(action="ignore"):  # Ray warns of what it calls itself
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)
