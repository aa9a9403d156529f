"""What a worker reports of a turn, from what the turn yielded or raised."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.agent import SessionOptions
from raypool.backends import ScriptedBackend
from raypool.chain import Chain
from raypool.conversations import Conversation
from raypool.errors import BackendError
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, ToolUseEvent
from raypool.messages import Answer, Assignment, Failure, Outcome, decode_outcomes, encode
from raypool.outcomes import (
    answer_of,
    error_of,
    event_of_raised,
    failure_of_callback,
    failure_of_event,
    failure_of_interrupt,
    failure_of_timeout,
    failure_of_too_many_turns,
    response_of,
    sendable,
)
from raypool.usage import Usage

TOOL = ToolUseEvent("call-1", "search", {"query": "42"})


def chain_of(*exchanges: list[Event]) -> Chain:
    """A chain whose first turn took these exchanges."""
    chain = Chain(Assignment(7, "task-7", "why?"))
    session = asyncio.run(ScriptedBackend().start(SessionOptions()))
    chain.conversation = Conversation(session, SessionOptions(), "session")
    for events in exchanges:
        result = events[-1]
        assert isinstance(result, ResultEvent)
        chain.count(result.usage or Usage(), result.cost_usd)
        chain.take_result(events, result)
    return chain


def answer(*events: Event) -> Answer:
    return answer_of(chain_of(list(events)), 12.5)


CHAIN = Chain(Assignment(7, "task-7", "why?", attempt=2))


def test_answer_is_the_text_and_what_the_result_says() -> None:
    result = ResultEvent("model", "max_tokens", Usage(3, 9), 0.25)

    assert answer(TextEvent("forty-"), TextEvent("two"), result) == Answer(
        text="forty-two",
        duration_ms=12.5,
        model="model",
        stop_reason="max_tokens",
        session_id="session",
    )


def test_turn_without_text_is_an_empty_answer() -> None:
    assert answer(ResultEvent()).text == ""


def test_answer_of_several_exchanges_is_the_last_text_and_has_all_events() -> None:
    asked: list[Event] = [
        TextEvent("let me "),
        TextEvent("see"),
        TOOL,
        ResultEvent(stop_reason="tool_use"),
    ]
    chain = chain_of(asked, [TextEvent("4"), TextEvent("2"), ResultEvent()])

    given = answer_of(chain, 12.5)

    assert given.text == "42"
    assert given.events == [TextEvent("let me see"), TOOL, TextEvent("42"), ResultEvent()]


def test_texts_of_two_exchanges_stay_apart() -> None:
    chain = chain_of([TextEvent("no"), ResultEvent()], [TextEvent("yes"), ResultEvent()])

    assert answer_of(chain, 12.5).events == [TextEvent("no"), TextEvent("yes"), ResultEvent()]


def test_plain_answer_carries_no_events() -> None:
    assert answer(TextEvent("4"), TextEvent("2"), ResultEvent()).events is None


def test_events_of_an_answer_with_tools_have_each_run_of_text_joined() -> None:
    pieces = [TextEvent(piece) for piece in "abcd"]

    joined = answer(*pieces[:2], TOOL, *pieces[2:], ResultEvent())

    assert joined.events == [TextEvent("ab"), TOOL, TextEvent("cd"), ResultEvent()]


def test_response_of_a_plain_answer_has_its_text_and_result_as_events() -> None:
    result = ResultEvent("model", "end_turn", Usage(3, 9), 0.25)

    chain = chain_of([TextEvent("4"), TextEvent("2"), result])
    response = response_of(chain, answer_of(chain, 12.5))

    assert response.text == "42"
    assert response.events == (TextEvent("42"), result)
    assert (response.model, response.usage, response.cost_usd) == ("model", Usage(3, 9), 0.25)
    assert (response.session_id, response.duration_ms) == ("session", 12.5)


def test_response_of_an_answer_with_tools_has_every_event() -> None:
    chain = chain_of([TextEvent("4"), TOOL, ResultEvent()])

    assert response_of(chain, answer_of(chain, 12.5)).events == (
        TextEvent("4"),
        TOOL,
        ResultEvent(),
    )


def test_response_sums_what_the_exchanges_of_its_turn_consumed() -> None:
    result = ResultEvent("model", "end_turn", Usage(3, 9), 0.25)
    chain = chain_of([TOOL, result], [TextEvent("42"), result])

    response = response_of(chain, answer_of(chain, 12.5))

    assert (response.usage, response.cost_usd) == (Usage(6, 18), 0.5)


def test_failure_of_an_event_says_what_the_event_says() -> None:
    event = ErrorEvent("refused", "rate_limit_error", "slow down", 3.0, "trace")

    assert failure_of_event(CHAIN, event, 12.5) == Failure(
        kind="BackendError",
        verdict="refused",
        type="rate_limit_error",
        message="slow down",
        duration_ms=12.5,
        retry_after=3.0,
        traceback="trace",
    )


def test_failure_of_an_exception_brings_it_along() -> None:
    failure = failure_of_event(CHAIN, event_of_raised(ConnectionError("cut")), 12.5)

    assert (failure.kind, failure.verdict) == ("BackendError", "transient")
    assert (failure.type, failure.message) == ("ConnectionError", "cut")
    assert isinstance(pickle.loads(failure.exception or b""), ConnectionError)


def test_failure_of_a_callback_is_final() -> None:
    failure = failure_of_callback(CHAIN, ValueError("no number"), 12.5)

    assert (failure.kind, failure.verdict) == ("TaskFailed", "invalid")
    assert (failure.type, failure.message) == ("ValueError", "no number")
    assert failure.traceback == "ValueError: no number\n"


def test_failure_of_a_timeout_is_final_and_says_what_to_do() -> None:
    failure = failure_of_timeout(CHAIN, 600.0, 600_000.0)

    assert (failure.kind, failure.verdict) == ("TurnTimeout", "invalid")
    assert failure.message == (
        "the turn did not finish within 600 s and was interrupted; "
        "for longer turns set turn_timeout=… on the pool or timeout=… on the task"
    )


def test_failures_say_in_which_turn_of_the_chain_they_were() -> None:
    chain = chain_of([TextEvent("42"), ResultEvent()])
    chain.go_on("and then?")

    assert failure_of_interrupt(chain, 0.0).turn == 2
    assert failure_of_timeout(chain, 1.0, 0.0).turn == 2
    assert failure_of_callback(chain, ValueError(), 0.0).turn == 2
    assert failure_of_too_many_turns(chain, 2).turn == 2


def test_failure_of_a_chain_without_end_says_what_to_write() -> None:
    failure = failure_of_too_many_turns(CHAIN, 50)

    assert (failure.kind, failure.type, failure.verdict) == (
        "TaskFailed",
        "TooManyTurns",
        "invalid",
    )
    assert failure.message == (
        "the agent asked for another turn after max_turns_per_task=50; let handle_response and "
        "handle_error return None or Halt(…) at some point, or raise the limit on the pool"
    )


def test_agent_sees_a_failure_as_the_error_that_the_future_would_raise() -> None:
    cause = ConnectionError("cut")
    failure = failure_of_event(CHAIN, event_of_raised(cause), 12.5)

    error = error_of(CHAIN, failure, cause, "crew-1")

    assert type(error) is BackendError
    assert (error.task_id, error.worker, error.attempts) == ("task-7", "crew-1", 2)
    assert error.cause.exception is cause


class Mute(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise LookupError("gone")


class Cursed(Exception):
    """An exception that does not even say what its status is."""

    @property
    def status_code(self) -> int:
        raise LookupError("gone")


@pytest.mark.parametrize("error", [Mute(), Cursed("no")], ids=lambda error: type(error).__name__)
def test_exception_that_cannot_be_read_is_a_failure_all_the_same(error: Exception) -> None:
    raised = failure_of_event(CHAIN, event_of_raised(error), 0.0)
    in_callback = failure_of_callback(CHAIN, error, 0.0)

    assert raised.type == in_callback.type == type(error).__name__
    assert raised.message == in_callback.message != ""


def test_exception_that_does_not_pickle_stays_behind() -> None:
    class Held(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("holds a socket")

    assert failure_of_event(CHAIN, event_of_raised(Held("no")), 0.0).exception is None


def test_outcome_that_can_be_sent_is_sent_as_it_is() -> None:
    outcome = Outcome(7, Answer("naïve 🙂", 7.5, events=[TOOL, ResultEvent()]))

    assert sendable(outcome) == outcome


def test_surrogates_are_joined_or_replaced_wherever_they_are() -> None:
    tool = ToolUseEvent("call", "say", {"\ud800": ["\ud83d\ude00", {"a": "\udcff"}]})
    outcome = Outcome(7, Answer("b\ud800", 7.5, events=[tool, ResultEvent()]))

    assert sendable(outcome) == Outcome(
        7,
        Answer(
            "b\ufffd",
            7.5,
            events=[
                ToolUseEvent("call", "say", {"\ufffd": ["\U0001f600", {"a": "\ufffd"}]}),
                ResultEvent(),
            ],
        ),
    )


def test_pickled_exception_goes_along_with_a_failure_that_was_mended() -> None:
    failure = failure_of_event(CHAIN, event_of_raised(OSError("no file \udcff")), 0.0)

    mended = sendable(Outcome(7, failure=failure)).failure

    assert mended is not None
    assert mended.message == "no file \ufffd"
    assert mended.exception == failure.exception


any_value = st.one_of(
    st.none(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.builds(object),
    st.lists(st.integers()),
)


@given(
    text=any_value,
    model=any_value,
    usage=any_value | st.just(Usage(1, 2)),
    cost=any_value,
    events=st.none() | st.lists(st.builds(ToolUseEvent, any_value, any_value, any_value)),
)
def test_whatever_a_backend_gives_arrives_as_an_answer_or_a_failure(
    text: Any, model: Any, usage: Any, cost: Any, events: Any
) -> None:
    outcome = Outcome(7, Answer(text, 0.0, model=model, events=events), usage=usage, cost_usd=cost)

    sent = sendable(outcome)

    assert decode_outcomes(encode([sent])) == [sent]
    assert sent.number == 7
    assert (sent.answer is None) != (sent.failure is None)
    assert sent.failure is None or sent.failure.type == "BrokenContract"
