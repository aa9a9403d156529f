"""Errors: their tree, their texts, and the trip between processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

import raypool
from raypool import errors
from raypool.errors import (
    BackendError,
    Cause,
    Interrupted,
    InvalidTask,
    LedgerError,
    PoolFull,
    PoolStartError,
    PoolStopped,
    RaypoolError,
    TaskCancelled,
    TaskFailed,
    TurnTimeout,
    UnknownRole,
    UnknownTask,
    UnknownWorker,
    WaitTimeout,
    WorkerDied,
)

CAUSE = Cause("ConnectionError", "cut", "Traceback …", ConnectionError("cut"))

EVERY_ERROR = [
    *(
        kind("what happened")
        for kind in (
            RaypoolError,
            PoolStartError,
            PoolStopped,
            PoolFull,
            InvalidTask,
            UnknownRole,
            UnknownWorker,
            UnknownTask,
            WaitTimeout,
            LedgerError,
        )
    ),
    TaskCancelled("a"),
    TaskCancelled("a", "its turn was skipped"),
    *(
        kind("a", "pool-1", 4, CAUSE)
        for kind in (TaskFailed, TurnTimeout, Interrupted, WorkerDied, BackendError)
    ),
]


def classes() -> list[type[Exception]]:
    """Every exception that `raypool.errors` defines, in the order of the source."""
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == errors.__name__
    ]


def cut() -> None:
    raise ConnectionError("cut")


def test_every_error_is_among_those_tested_here() -> None:
    assert {type(error) for error in EVERY_ERROR} == set(classes())


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_every_error_survives_the_trip_with_its_fields(
    dumps: Callable[[Any], bytes], error: RaypoolError
) -> None:
    arrived = pickle.loads(dumps(error))

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_exception_inside_a_cause_survives_the_trip() -> None:
    arrived = pickle.loads(pickle.dumps(BackendError("a", "pool-1", 4, CAUSE)))

    assert isinstance(arrived.cause.exception, ConnectionError)
    assert arrived.cause.exception.args == ("cut",)


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^([│ ├└─]*)(\w+)(?: \(a (\S+)\))?$", errors.__doc__ or "", re.MULTILINE)
    other_bases = {ValueError, LookupError, TimeoutError, concurrent.futures.CancelledError}
    expected = []
    for kind in classes():
        depth = len([base for base in kind.__mro__ if base.__module__ == errors.__name__]) - 1
        [*others] = [base for base in kind.__bases__ if base in other_bases]
        names = [
            base.__name__ if base.__module__ == "builtins" else "concurrent.futures.CancelledError"
            for base in others
        ]
        expected.append((depth, kind.__name__, "".join(names)))

    assert [(len(indent) // 4, name, other) for indent, name, other in drawn] == expected


def test_every_error_is_public_at_the_top_of_the_package() -> None:
    assert {kind.__name__ for kind in classes()} <= set(raypool.__all__)


def test_every_error_says_when_it_is_raised() -> None:
    undocumented = [kind for kind in classes() if not (kind.__doc__ or "").startswith("Raised ")]

    assert undocumented == [RaypoolError]


def test_cancelled_task_is_no_cancelled_coroutine() -> None:
    error = TaskCancelled("a")

    assert isinstance(error, concurrent.futures.CancelledError)
    assert not isinstance(error, asyncio.CancelledError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TaskCancelled("a"), "task 'a' was cancelled"),
        (TaskCancelled("a", "not needed"), "task 'a' was cancelled: not needed"),
        (
            BackendError("a", "pool-1", 4, CAUSE),
            "task 'a' failed on worker 'pool-1' after 4 attempts: ConnectionError: cut",
        ),
        (
            TurnTimeout("a", "pool-1", 1, Cause("TurnTimeout", "")),
            "task 'a' failed on worker 'pool-1' after 1 attempt: TurnTimeout",
        ),
        (
            WorkerDied("a", None, 0, Cause("WorkerDied", "every worker has died")),
            "task 'a' failed after 0 attempts: WorkerDied: every worker has died",
        ),
    ],
)
def test_text_says_what_happened_to_which_task(error: RaypoolError, text: str) -> None:
    assert str(error) == text


def test_cause_of_an_exception_has_its_traceback() -> None:
    with pytest.raises(ConnectionError) as raised:
        cut()

    cause = Cause.of(raised.value)

    assert (cause.type, cause.message) == ("ConnectionError", "cut")
    assert cause.exception is raised.value
    assert 'raise ConnectionError("cut")' in cause.traceback
    assert cause.traceback.endswith("ConnectionError: cut\n")
