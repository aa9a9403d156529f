"""What a future gives or raises for what the dispatcher delivers."""

from __future__ import annotations

import logging
import pickle
import threading
from typing import Any

import cloudpickle
import msgspec
import pytest
from pydantic import BaseModel, field_validator

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
from raypool.future import TaskFuture
from raypool.messages import Delivery, Found, Refusal
from raypool.records import AcceptedTask, Ending, EndState, StoredCause, task_result
from raypool.response import Response, TaskResult
from raypool.task import Task
from raypool.usage import Usage
from raypool.verdicts import (
    error_of_delivery,
    error_of_refusal,
    response_of_delivery,
    result_of_ending,
    result_of_error,
    result_of_found,
    settle,
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
TASK = AcceptedTask(7, "a", "why?", "chemist", {"row": 1}, 5.0, session="user-42")
TYPED = msgspec.structs.replace(COMPLETED, text='{"name": "Paris", "population": 2100000}')
JSON = {"name": "Paris", "population": 2_100_000}


class City(BaseModel):
    """What an answer may have to be."""

    name: str
    population: int


class Nowhere(BaseModel):
    """What no answer is in this process."""

    name: str

    @field_validator("name")
    @classmethod
    def refuse(cls, name: str) -> str:
        raise ZeroDivisionError(name)


def ending(state: EndState, cause: StoredCause | None = None) -> Ending:
    return Ending(7, state, "crew-1", 4, 1_700_000_000_000, cause=cause)


def error_of(kind: str, exception: bytes | None = None) -> TaskFailed:
    cause = StoredCause(kind, "ConnectionError", "cut", "Traceback …")
    error = error_of_delivery("a", Delivery(1, ending("failed", cause), exception=exception))
    assert isinstance(error, TaskFailed)
    return error


def test_response_of_a_completed_task_has_all_that_is_recorded() -> None:
    result = ResultEvent("model", "max_tokens", Usage(3, 9), 0.25)

    assert response_of_delivery(Delivery(1, COMPLETED)) == Response(
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

    assert response_of_delivery(Delivery(1, COMPLETED, events)).events == tuple(events)


def test_answer_is_parsed_as_the_type_that_the_client_asked_for() -> None:
    delivery = Delivery(1, TYPED, parsed=pickle.dumps("of the agent"), output_type="digest")

    parsed = response_of_delivery(delivery, City).parsed

    assert parsed == City(name="Paris", population=2_100_000)


def test_answer_is_what_the_worker_made_of_it_where_the_client_asked_for_no_type() -> None:
    city = City(name="Paris", population=1)

    assert response_of_delivery(Delivery(1, TYPED, parsed=pickle.dumps(city))).parsed == city


@pytest.mark.parametrize("parsed", [b"", b"not a pickle"])
def test_answer_whose_type_cannot_be_had_here_is_plain_json(parsed: bytes) -> None:
    assert response_of_delivery(Delivery(1, TYPED, parsed=parsed)).parsed == JSON


def test_answer_to_a_task_of_another_process_is_plain_json_where_it_asked_for_a_type() -> None:
    assert response_of_delivery(Delivery(1, TYPED, output_type="digest")).parsed == JSON
    assert response_of_delivery(Delivery(1, TYPED)).parsed is None


@pytest.mark.parametrize("output_type", [list[int], Nowhere], ids=["type", "validator"])
def test_answer_that_does_not_fit_here_is_not_parsed_and_a_log_line_says_so_without_it(
    output_type: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert response_of_delivery(Delivery(1, TYPED), output_type).parsed is None

    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "on its worker is none here" in record.getMessage()
    assert "Paris" not in caplog.text


class FakeClient:
    """What a future knows of its client."""

    def __init__(self) -> None:
        self.resolved = threading.Condition()

    def cancel(self, task_id: str) -> None:
        raise AssertionError("nothing is cancelled")

    def await_receipt(self, future: TaskFuture, timeout: float | None) -> bool:
        return True


def test_future_of_a_completed_task_gives_its_response() -> None:
    future = TaskFuture(FakeClient(), "a", Task("why?", output_type=City))

    settle(future, Delivery(1, TYPED))

    assert future.result(timeout=0).parsed == City(name="Paris", population=2_100_000)
    assert future.worker == "crew-1"


def test_future_of_a_failed_task_raises_its_error() -> None:
    future = TaskFuture(FakeClient(), "a")

    settle(future, Delivery(1, ending("failed", StoredCause("BackendError", "E", "no"))))

    assert isinstance(future.exception(timeout=0), BackendError)
    assert future.worker == "crew-1"


def test_future_whose_ending_is_not_recorded_raises_that() -> None:
    future = TaskFuture(FakeClient(), "a")

    settle(future, Delivery(1, None, ledger_error="the disk is full"))

    assert isinstance(future.exception(timeout=0), LedgerError)


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


def test_answers_that_did_not_fit_are_kept_with_the_cause() -> None:
    cause = StoredCause("TaskFailed", "InvalidAnswer", "not a city")
    failed = msgspec.structs.replace(ending("failed", cause), answers=["Paris", "{}"])

    error = error_of_delivery("a", Delivery(1, failed))

    assert isinstance(error, TaskFailed)
    assert error.cause.answers == ("Paris", "{}")


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
    task = Task("why?", "chemist", None, {"row": 1}, 5.0, session="user-42")
    ended = msgspec.structs.replace(COMPLETED, turns=3)

    assert result_of_ending(task, "a", ended, "parsed") == TaskResult(
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
        parsed="parsed",
        metadata={"row": 1},
        session="user-42",
        model="model",
        stop_reason="max_tokens",
        cost_usd=0.25,
        turns=3,
    )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [(TYPED.text, JSON), ('Here:\n```json\n{"a": 1}\n```\n', {"a": 1}), ("no idea", None)],
    ids=["json", "fenced", "no json"],
)
def test_recorded_answer_is_plain_json_where_the_task_asked_for_a_type(
    text: str, parsed: Any
) -> None:
    asked = msgspec.structs.replace(TASK, output_type="digest")
    ended = msgspec.structs.replace(COMPLETED, text=text)

    assert task_result(asked, ended).parsed == parsed
    assert task_result(TASK, ended).parsed is None


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
        session="user-42",
    )


def test_result_of_a_task_that_was_never_accepted_has_the_refusal() -> None:
    error = InvalidTask("the prompt is empty")

    result = result_of_error(Task("", metadata={"row": 1}, session="user-42"), "a", error)

    assert (result.id, result.state, result.worker) == ("a", "failed", None)
    assert (result.metadata, result.session) == ({"row": 1}, "user-42")
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("InvalidTask", "the prompt is empty")
