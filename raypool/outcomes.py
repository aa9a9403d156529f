"""From what a turn yielded or raised to what the worker reports of it."""

from __future__ import annotations

import traceback
from typing import cast

import cloudpickle
import msgspec

from raypool import errors
from raypool.backends.faults import error_event, words_of
from raypool.chain import Chain
from raypool.errors import Cause, TaskFailed
from raypool.events import (
    ErrorEvent,
    Event,
    ResultEvent,
    TextEvent,
    plain_events,
)
from raypool.messages import Answer, Failure, Outcome, encode
from raypool.model_pickling import dump_answer
from raypool.response import Response
from raypool.unicode import unicode_value

BROKEN_CONTRACT = "BrokenContract"
TOO_MANY_TURNS = "TooManyTurns"

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


def answer_of(chain: Chain, duration_ms: float) -> Answer:
    """The answer that the chain's turn has come to."""
    result, conversation = chain.result, chain.conversation
    assert result is not None
    return Answer(
        text=chain.text,
        duration_ms=duration_ms,
        model=result.model,
        stop_reason=result.stop_reason,
        session_id=conversation.id if conversation else None,
        events=None if chain.is_plain else _joined(chain.events),
        parsed=_pickled_parsed(chain),
    )


def response_of(chain: Chain, answer: Answer) -> Response:
    """The answer as the agent sees it, with what the turn has consumed."""
    usage, cost_usd = chain.turn_consumption()
    result = ResultEvent(answer.model, answer.stop_reason, usage, cost_usd)
    return Response(
        text=answer.text,
        usage=usage,
        duration_ms=answer.duration_ms,
        model=answer.model,
        stop_reason=answer.stop_reason,
        session_id=answer.session_id,
        events=tuple(answer.events or plain_events(answer.text, result)),
        parsed=chain.parsed,
        cost_usd=cost_usd,
    )


def failure_of_event(chain: Chain, event: ErrorEvent, duration_ms: float) -> Failure:
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
        turn=chain.number,
        answers=chain.answers or None,
    )


def event_of_raised(error: BaseException) -> ErrorEvent:
    """The event that a backend should have yielded instead of raising."""
    try:
        return error_event(error)
    except Exception:  # noqa: BLE001 - its own fields or text raise
        return ErrorEvent("transient", type(error).__name__, _message(error), exception=error)


def failure_of_callback(chain: Chain, error: BaseException, duration_ms: float) -> Failure:
    """The failure of a turn whose agent raised; the same answer would raise again."""
    return Failure(
        kind="TaskFailed",
        verdict="invalid",
        type=type(error).__name__,
        message=_message(error),
        duration_ms=duration_ms,
        traceback="".join(traceback.format_exception(error)),
        exception=_pickled(error),
        turn=chain.number,
    )


def failure_of_timeout(chain: Chain, limit: float, duration_ms: float) -> Failure:
    """The failure of a turn that ran longer than `limit` seconds; not tried again."""
    message = (
        f"the turn did not finish within {limit:g} s and was interrupted; "
        "for longer turns set turn_timeout=… on the pool or timeout=… on the task"
    )
    return Failure("TurnTimeout", "invalid", "TurnTimeout", message, duration_ms, turn=chain.number)


def failure_of_interrupt(chain: Chain, duration_ms: float) -> Failure:
    """The failure of a turn that somebody interrupted; not tried again."""
    message = "the turn was interrupted by Pool.interrupt or cancel"
    return Failure("Interrupted", "invalid", "Interrupted", message, duration_ms, turn=chain.number)


def failure_of_too_many_turns(chain: Chain, limit: int) -> Failure:
    """The failure of a task whose agent asks without end."""
    message = (
        f"the agent asked for another turn after max_turns_per_task={limit}; let handle_response "
        "and handle_error return None or Halt(…) at some point, or raise the limit on the pool"
    )
    return Failure("TaskFailed", "invalid", TOO_MANY_TURNS, message, turn=chain.number)


def error_of(
    chain: Chain, failure: Failure, exception: BaseException | None, worker: str
) -> TaskFailed:
    """The failure as the agent sees it."""
    kind: type[TaskFailed] = getattr(errors, failure.kind)
    answers = tuple(failure.answers or ())
    cause = Cause(failure.type, failure.message, failure.traceback, exception, answers)
    return kind(chain.work.id, worker, chain.attempt, cause)


def _broken_contract(message: str) -> Failure:
    return Failure("BackendError", "invalid", BROKEN_CONTRACT, message)


def _message(error: BaseException) -> str:
    try:
        return words_of(error)
    except Exception as failure:  # noqa: BLE001 - an exception may be anything
        return f"its message cannot be read: {type(failure).__name__}"


def _packed(outcome: Outcome) -> bytes:
    try:
        return encode(outcome)
    except UnicodeEncodeError:
        return encode(unicode_value(msgspec.to_builtins(outcome, builtin_types=(bytes,))))


def _joined(events: list[Event]) -> list[Event]:
    """The events of a turn: each exchange's runs of text as one, and the last result alone."""
    joined: list[Event] = []
    before: Event | None = None
    for event in events[:-1]:
        if isinstance(event, TextEvent) and isinstance(before, TextEvent):
            before = joined[-1] = TextEvent(before.text + event.text)
            continue
        before = event
        if not isinstance(event, ResultEvent):
            joined.append(event)
    return [*joined, events[-1]]


def _pickled_parsed(chain: Chain) -> bytes | None:
    """What the agent's own output type made of the answer; a client knows the task's type."""
    if chain.parsed is None or chain.work.output_type is not None:
        return None
    return dump_answer(chain.parsed)


def _pickled(error: BaseException | None) -> bytes | None:
    if error is None:
        return None
    try:
        return cast(bytes, cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may hold anything
        return None
