"""From what a turn yielded or raised to what the worker reports of it."""

from __future__ import annotations

import traceback
from typing import Any, cast

import cloudpickle
import msgspec

from raypool.backends.faults import error_event
from raypool.events import (
    ErrorEvent,
    Event,
    ResultEvent,
    TextEvent,
    UsageEvent,
    plain_events,
)
from raypool.messages import Answer, Failure, Outcome, encode
from raypool.response import Response
from raypool.usage import Usage

BROKEN_CONTRACT = "BrokenContract"

_decode = msgspec.msgpack.Decoder(Outcome).decode


def sendable(outcome: Outcome) -> Outcome:
    """The outcome as it arrives at the dispatcher; a failure when no message can hold it.

    A backend may give anything: texts that are not Unicode, in which surrogate pairs are
    joined and lone surrogates become U+FFFD, or values that are not those of its events.
    """
    try:
        return _decode(_packed(outcome))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it
        message = f"the backend gave what no event can hold: {error}"
        return Outcome(outcome.number, failure=_broken_contract(message))


def answer_of(events: list[Event], session_id: str | None, duration_ms: float) -> Answer:
    """The answer that a turn's events make; the last one is its result."""
    result = events[-1]
    assert isinstance(result, ResultEvent)
    others = any(not isinstance(event, (TextEvent, ResultEvent)) for event in events)
    return Answer(
        text="".join([event.text for event in events if isinstance(event, TextEvent)]),
        usage=_usage(events) if result.usage is None else result.usage,
        duration_ms=duration_ms,
        model=result.model,
        stop_reason=result.stop_reason,
        session_id=session_id,
        cost_usd=result.cost_usd,
        events=_joined(events) if others else None,
    )


def response_of(answer: Answer) -> Response:
    """The answer as the agent and the caller see it."""
    return Response(
        text=answer.text,
        usage=answer.usage,
        duration_ms=answer.duration_ms,
        model=answer.model,
        stop_reason=answer.stop_reason,
        session_id=answer.session_id,
        events=tuple(answer.events) if answer.events else _plain_events(answer),
        cost_usd=answer.cost_usd,
    )


def failure_of_event(event: ErrorEvent, duration_ms: float) -> Failure:
    """The failure of a turn that ended in an error event."""
    return Failure(
        kind="BackendError",
        verdict=event.verdict,
        type=event.error_type,
        message=event.message,
        duration_ms=duration_ms,
        retry_after=event.retry_after,
        traceback=event.traceback,
        exception=_pickled(event.exception),
    )


def failure_of_raised(error: BaseException, duration_ms: float) -> Failure:
    """The failure of a turn whose backend raised what it should have yielded."""
    try:
        event = error_event(error)
    except Exception:  # noqa: BLE001 - its own fields or text raise
        event = ErrorEvent("transient", type(error).__name__, _message(error), exception=error)
    return failure_of_event(event, duration_ms)


def failure_of_callback(error: BaseException, duration_ms: float) -> Failure:
    """The failure of a turn whose agent raised; the same answer would raise again."""
    return Failure(
        kind="TaskFailed",
        verdict="invalid",
        type=type(error).__name__,
        message=_message(error),
        duration_ms=duration_ms,
        traceback="".join(traceback.format_exception(error)),
        exception=_pickled(error),
    )


def failure_of_timeout(limit: float, duration_ms: float) -> Failure:
    """The failure of a turn that ran longer than `limit` seconds; not tried again."""
    message = (
        f"the turn did not finish within {limit:g} s and was interrupted; "
        "for longer turns set turn_timeout=… on the pool or timeout=… on the task"
    )
    return Failure("TurnTimeout", "invalid", "TurnTimeout", message, duration_ms)


def _broken_contract(message: str) -> Failure:
    return Failure("BackendError", "invalid", BROKEN_CONTRACT, message)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - an exception may be anything
        return f"its message cannot be read: {type(failure).__name__}"


def _packed(outcome: Outcome) -> bytes:
    try:
        return encode(outcome)
    except UnicodeEncodeError:
        return encode(_unicode(msgspec.to_builtins(outcome, builtin_types=(bytes,))))


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, (list, tuple)):
        return [_unicode(item) for item in value]
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    return value


def _plain_events(answer: Answer) -> tuple[Event, ...]:
    result = ResultEvent(answer.model, answer.stop_reason, answer.usage, answer.cost_usd)
    return plain_events(answer.text, result)


def _usage(events: list[Event]) -> Usage:
    counted = [event.usage for event in events if isinstance(event, UsageEvent)]
    return counted[-1] if counted else Usage()


def _joined(events: list[Event]) -> list[Event]:
    """The events, each run of text pieces as one."""
    joined: list[Event] = []
    for event in events:
        if isinstance(event, TextEvent) and joined and isinstance(joined[-1], TextEvent):
            joined[-1] = TextEvent(joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined


def _pickled(error: BaseException | None) -> bytes | None:
    if error is None:
        return None
    try:
        return cast(bytes, cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may hold anything
        return None
