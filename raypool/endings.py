"""What is recorded of a task as it ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from raypool.messages import Answer, Failure
from raypool.records import Death, Ending, EndState, StoredCause
from raypool.task_record import TaskRecord


def ending_of(record: TaskRecord, state: EndState, now: float, **fields: Any) -> Ending:
    """The ending of a task, with all that was spent on it; `now` in seconds since the epoch."""
    is_priced = state == "completed" or record.usage.total_tokens
    return Ending(
        number=record.number,
        state=state,
        worker=record.worker,
        attempts=record.tries.in_all,
        completed_at=int(now * 1000),
        usage=record.usage,
        cost_usd=record.cost_usd if is_priced else None,
        **fields,
    )


def of_answer(answer: Answer) -> dict[str, Any]:
    """The fields that the last turn's answer gives."""
    return {
        "duration_ms": answer.duration_ms,
        "text": answer.text,
        "model": answer.model,
        "stop_reason": answer.stop_reason,
        "session_id": answer.session_id,
    }


def of_failure(failure: Failure) -> dict[str, Any]:
    """The fields that the last turn's failure gives."""
    cause = StoredCause(failure.kind, failure.type, failure.message, failure.traceback)
    return {"duration_ms": failure.duration_ms, "cause": cause, "answers": failure.answers}


def of_death(why: str) -> StoredCause:
    """The cause of a task whose workers have died."""
    return StoredCause("WorkerDied", "WorkerDied", why)


def of_deaths(deaths: Sequence[Death]) -> StoredCause:
    """The cause of a task that its workers have died of, with what is known of each."""
    lines = [f"{_utc(one.died_at)} worker {one.worker!r} died: {one.reason}" for one in deaths]
    count = f"{len(deaths)} workers have" if len(deaths) > 1 else "its worker has"
    return of_death("\n".join([f"{count} died with the task:", *lines]))


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def of_bad_routing(policy: object, kind: str, why: str, text: str = "") -> StoredCause:
    """The cause of a task that the pool's own policy gives to nobody."""
    message = f"no worker was chosen by the pool's routing, {type(policy).__name__}: {why}"
    return StoredCause("TaskFailed", kind, message, text)


def of_skip(reason: str | None) -> dict[str, Any]:
    """The fields of a task that was cancelled, or that the agent has skipped for a reason."""
    return {"cause": None if reason is None else StoredCause("TaskCancelled", "Skip", reason)}
