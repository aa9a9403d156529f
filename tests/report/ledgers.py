"""Ledgers whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from raypool.ledger import POOL_NAME, WORKER_ROLES
from raypool.records import AcceptedTask, Ending, EndState, StoredCause
from raypool.setbacks import Setback
from raypool.sqlite_ledger import SqliteLedger
from raypool.task import Content
from raypool.usage import Usage

START = 1_700_000_000_000
ROLES = ("chemist", "historian")
TAG = "<script>alert('{}')</script><img src=x onerror=alert(1)>"


def asked(number: int, prompt: Content = "why?", task_id: str | None = None) -> AcceptedTask:
    return AcceptedTask(number, task_id or f"task-{number}", prompt)


def ended(number: int, state: EndState = "completed", **fields: Any) -> Ending:
    """An ending by the first worker, a second after the one before it."""
    given = {
        "worker": "crew-1",
        "attempts": 1,
        "completed_at": START + 1_000 * number,
        "duration_ms": 100.0,
        "model": "small" if state == "completed" else None,
        "usage": Usage(10, 5),
        "cost_usd": 0.25,
    }
    return Ending(number, state, **{**given, **fields})


def failed(number: int, error_type: str = "OSError", message: str = "", **fields: Any) -> Ending:
    cause = StoredCause("BackendError", error_type, message)
    return ended(number, "failed", cause=cause, **fields)


def fill(
    path: Path,
    tasks: Iterable[AcceptedTask],
    endings: Iterable[Ending] = (),
    setbacks: Iterable[Setback] = (),
    *,
    pool: str = "crew",
    roles: Iterable[str] = ROLES,
) -> Path:
    """Write a ledger at `path` that no pool has."""
    with closing(SqliteLedger(path)) as ledger:
        ledger.set_meta(POOL_NAME, pool)
        ledger.set_meta(WORKER_ROLES, json.dumps(list(roles)))
        ledger.write(list(tasks), list(endings))
        ledger.add_setbacks(list(setbacks))
    return path


def hostile(path: Path) -> Path:
    """A ledger that has HTML in every text that comes from others."""
    return fill(
        path,
        [asked(n, TAG.format("prompt"), f"{n} {TAG.format('id')}") for n in (1, 2)],
        [
            ended(1, model=TAG.format("model"), text=TAG.format("answer"), duration_ms=900.0),
            failed(2, TAG.format("type"), TAG.format("message")),
        ],
        [Setback(START, "retried", TAG.format("setback"), 3)],
        pool="crew",
        roles=[TAG.format("role")],
    )
