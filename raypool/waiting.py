"""`Pool.wait_for_all`: until every task submitted before the call has ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from raypool.client import Client
from raypool.errors import WaitTimeout
from raypool.messages import Unfinished

ANSWER_SECONDS = 5.0


def wait_for_all(client: Client, pool: str, timeout: float | None) -> None:
    """Return when they have, and the futures of this client have resolved.

    Raises:
        WaitTimeout: some have not ended after `timeout` seconds; names the workers.
        PoolStopped: the pool stopped meanwhile.
    """
    left = _countdown(timeout)
    barrier = client.barrier()
    try:
        if not client.flush(left()):
            raise _late(pool, timeout, [])
        seconds = left()
        patience = None if seconds is None else seconds + ANSWER_SECONDS
        unfinished = client.call("wait_for_all", seconds, timeout=patience)
        if unfinished or not client.await_barrier(barrier, left()):
            raise _late(pool, timeout, unfinished)
    finally:
        client.drop_barrier(barrier)


def _countdown(timeout: float | None) -> Callable[[], float | None]:
    """A function that gives what is left of `timeout` seconds."""
    if timeout is None:
        return lambda: None
    deadline = time.monotonic() + timeout
    return lambda: max(0.0, deadline - time.monotonic())


def _late(pool: str, timeout: float | None, unfinished: list[Unfinished]) -> WaitTimeout:
    counts = ", ".join(map(_brief, unfinished))
    reasons = dict.fromkeys(one.blocked for one in unfinished if one.blocked is not None)
    what_next = "; ".join(reasons) or "they go on, and a longer timeout waits longer"
    return WaitTimeout(
        f"not every task of pool {pool!r} has ended after {timeout} s"
        f"{': ' + counts if counts else ''}; {what_next}"
    )


def _brief(unfinished: Unfinished) -> str:
    if unfinished.worker is None:
        return f"{unfinished.count} wait for a worker"
    text = f"{unfinished.worker!r} has {unfinished.count}"
    if unfinished.halted is None:
        return text
    why = f" ({unfinished.halted})" if unfinished.halted else ""
    return f"{text} and has halted{why}: Pool.resume({unfinished.worker!r}) lets it go on"
