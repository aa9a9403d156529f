"""What a future gives or raises for what the dispatcher delivers."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import pytest

from raypool.errors import (
    BackendError,
    Cause,
    InvalidTask,
    LedgerError,
    PoolStopped,
    RaypoolError,
    TaskCancelled,
    TaskFailed,
    TurnTimeout,
    WorkerDied,
)
from raypool.events import Event, ResultEvent, TextEvent, ToolUseEvent
from raypool.messages import Delivery, Found, Refusal
from raypool.records import AcceptedTask, Ending, EndState, StoredCause
from raypool.response import Response, TaskResult
from raypool.task import Task
from raypool.usage import Usage
from raypool.verdicts import (
    error_of_delivery,
    error_of_refusal,
    response_of_ending,
    result_of_ending,
    result_of_error,
    result_of_found,
)

COMPLETED = Ending(
    number=7,
    state="completed",
    worker="crew-1",
    attempts=2,
    completed_at=1_700_000_000_000,
    duration_ms=12.5,
    text="42",
    usage=Usage(3, 9),
    model="model",
    stop_reason="max_tokens",
    session_id="session",
    cost_usd=0.25,
)
TASK = AcceptedTask(7, "a", "why?", "chemist", {"row": 1}, 5.0)


def ending(state: EndState, cause: StoredCause | None = None) -> Ending:
    return Ending(7, state, "crew-1", 4, 1_700_000_000_000, cause=cause)


def error_of(kind: str, exception: bytes | None = None) -> TaskFailed:
    cause = StoredCause(kind, "ConnectionError", "cut", "Traceback …")
    error = error_of_delivery("a", Delivery(1, ending("failed", cause), exception=exception))
    assert isinstance(error, TaskFailed)
    return error


def test_response_of_a_completed_task_has_all_that_is_recorded() -> None:
    result = ResultEvent("model", "max_tokens", Usage(3, 9), 0.25)

    assert response_of_ending(COMPLETED, None) == Response(
        text="42",
        usage=Usage(3, 9),
        duration_ms=12.5,
        model="model",
        stop_reason="max_tokens",
        session_id="session",
        events=(TextEvent("42"), result),
        cost_usd=0.25,
    )


def test_response_has_the_events_that_came_along() -> None:
    events: list[Event] = [ToolUseEvent("call", "search", {}), TextEvent("42"), ResultEvent()]

    assert response_of_ending(COMPLETED, events).events == tuple(events)


def test_completed_task_raises_nothing() -> None:
    assert error_of_delivery("a", Delivery(1, COMPLETED)) is None


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("BackendError", BackendError),
        ("TurnTimeout", TurnTimeout),
        ("WorkerDied", WorkerDied),
        ("TaskFailed", TaskFailed),
        ("SomethingOfALaterVersion", TaskFailed),
        ("PoolStopped", TaskFailed),
    ],
)
def test_failed_task_raises_the_kind_that_is_recorded(kind: str, error: type[TaskFailed]) -> None:
    assert type(error_of(kind)) is error


def test_kinds_that_users_derive_are_never_raised() -> None:
    class Mine(TaskFailed):
        pass

    assert type(error_of("Mine")) is TaskFailed


def test_failed_task_says_worker_attempts_and_cause() -> None:
    error = error_of("BackendError")

    assert (error.task_id, error.worker, error.attempts) == ("a", "crew-1", 4)
    assert error.cause == Cause("ConnectionError", "cut", "Traceback …")
    assert error.cause.exception is None


def test_exception_that_came_along_is_the_cause() -> None:
    error = error_of("BackendError", pickle.dumps(ConnectionError("cut")))

    assert isinstance(error.cause.exception, ConnectionError)
    assert error.__cause__ is error.cause.exception


class NeedsKeyword(Exception):
    """An exception that pickles and does not unpickle, as those of many SDKs."""

    def __init__(self, message: str, *, response: str) -> None:
        super().__init__(message)
        self.response = response


class Trap:
    """What does something else when it is unpickled."""

    def __reduce__(self) -> Any:
        return (str, ("no exception",))


@pytest.mark.parametrize(
    "exception",
    [b"", b"not a pickle", pickle.dumps("a text"), pickle.dumps(Trap())],
    ids=["nothing", "garbage", "text", "other object"],
)
def test_exception_that_cannot_be_had_here_is_left_out(exception: bytes) -> None:
    error = error_of("BackendError", exception)

    assert error.cause.exception is None
    assert error.cause.message == "cut"


def test_exception_that_does_not_unpickle_is_left_out() -> None:
    packed = cloudpickle.dumps(NeedsKeyword("no", response="…"))

    assert error_of("BackendError", packed).cause.exception is None


@pytest.mark.parametrize("reason", [None, "skipped by its agent"])
def test_cancelled_task_raises_that_with_its_reason(reason: str | None) -> None:
    cause = StoredCause("TaskCancelled", "Skip", reason) if reason else None

    error = error_of_delivery("a", Delivery(1, ending("cancelled", cause)))

    assert isinstance(error, TaskCancelled)
    assert (error.task_id, error.reason) == ("a", reason)


def test_ending_that_could_not_be_recorded_is_a_ledger_error() -> None:
    error = error_of_delivery("a", Delivery(1, None, ledger_error="the disk is full"))

    assert isinstance(error, LedgerError)
    assert str(error) == "the disk is full"


@pytest.mark.parametrize("kind", [InvalidTask, LedgerError, PoolStopped])
def test_refusal_raises_the_error_it_names(kind: type[RaypoolError]) -> None:
    error = error_of_refusal(Refusal(1, kind.__name__, "why not"))

    assert type(error) is kind
    assert str(error) == "why not"


def test_result_of_an_ending_has_the_task_and_its_outcome() -> None:
    task = Task("why?", "chemist", None, {"row": 1}, 5.0)

    assert result_of_ending(task, "a", COMPLETED) == TaskResult(
        id="a",
        worker="crew-1",
        role="chemist",
        prompt="why?",
        state="completed",
        text="42",
        usage=Usage(3, 9),
        duration_ms=12.5,
        completed_at=1_700_000_000_000,
        attempts=2,
        metadata={"row": 1},
        model="model",
        stop_reason="max_tokens",
        cost_usd=0.25,
    )


def test_result_of_a_failed_task_has_its_error() -> None:
    failed = ending("failed", StoredCause("BackendError", "ConnectionError", "cut", "trace"))

    result = result_of_found(Found(TASK, failed, "failed", "crew-1", 4))

    assert (result.state, result.attempts) == ("failed", 4)
    assert result.error == Cause("ConnectionError", "cut", "trace")


def test_result_of_an_unfinished_task_says_where_it_is() -> None:
    result = result_of_found(Found(TASK, None, "running", "crew-1", 1))

    assert result == TaskResult(
        id="a",
        worker="crew-1",
        role="chemist",
        prompt="why?",
        state="running",
        attempts=1,
        metadata={"row": 1},
    )


def test_result_of_a_task_that_was_never_accepted_has_the_refusal() -> None:
    error = InvalidTask("the prompt is empty")

    result = result_of_error(Task("", metadata={"row": 1}), "a", error)

    assert (result.id, result.state, result.worker) == ("a", "failed", None)
    assert result.metadata == {"row": 1}
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("InvalidTask", "the prompt is empty")
