"""What becomes of everything that can go wrong, provoked over HTTP with the official SDK."""

from __future__ import annotations

import socket
from collections.abc import Callable
from email.utils import formatdate
from time import time
from typing import TypeAlias

import anthropic
import cloudpickle
import httpx2
import pytest

from raypool.agent import SessionOptions
from raypool.backends.anthropic_errors import Endpoint, error_event
from raypool.events import ErrorEvent, Event, TextEvent, UsageEvent, Verdict
from raypool.testing import Answer, Fault, MessagesServer
from raypool.usage import Usage

Converse: TypeAlias = Callable[..., list[list[Event]]]

IDLE_TIMEOUT = 0.3
EVENTS = "text/event-stream"

FAULTS: list[tuple[Fault, Verdict, str]] = [
    (Fault.rate_limited(), "refused", "rate_limit_error"),
    (Fault.status(429, error_code="ramp_limit_exceeded"), "refused", "ramp_limit_exceeded"),
    (Fault.overloaded(), "refused", "overloaded_error"),
    (Fault.status(503, kind="overloaded_error"), "refused", "overloaded_error"),
    (Fault.error_event("overloaded_error"), "refused", "overloaded_error"),
    (Fault.error_event("rate_limit_error"), "refused", "rate_limit_error"),
    (
        Fault.status(429, error_code="enforced_spend_limit_reached"),
        "fatal",
        "enforced_spend_limit_reached",
    ),
    (
        Fault.status(429, error_code="contract_spend_limit_reached"),
        "fatal",
        "contract_spend_limit_reached",
    ),
    (Fault.status(400, error_code="organization_on_hold"), "fatal", "organization_on_hold"),
    (Fault.status(401), "fatal", "authentication_error"),
    (Fault.status(402), "fatal", "billing_error"),
    (Fault.status(403), "fatal", "permission_error"),
    (Fault.status(404), "fatal", "not_found_error"),
    (Fault.status(400), "invalid", "invalid_request_error"),
    (Fault.status(413), "invalid", "request_too_large"),
    (Fault.status(422), "invalid", "invalid_request_error"),
    (Fault.status(408, kind="timeout_error"), "transient", "timeout_error"),
    (Fault.status(409), "transient", "conflict_error"),
    (Fault.status(500), "transient", "api_error"),
    (Fault.status(503), "transient", "api_error"),
    (Fault.status(504), "transient", "timeout_error"),
    (Fault.error_event("api_error"), "transient", "api_error"),
    (Fault.error_event("invalid_request_error"), "invalid", "invalid_request_error"),
    (Fault.body("<html>", "text/html", status=502), "transient", "InternalServerError"),
    (Fault.body("", status=429), "refused", "RateLimitError"),
    (Fault.body('{"error": {"type": ["odd"], "message": 7}}', status=418), "invalid", "['odd']"),
    (Fault.reset(), "transient", "ReadError"),
    (Fault.disconnect(), "transient", "RemoteProtocolError"),
    (Fault.cut(), "transient", "RemoteProtocolError"),
    (Fault.cut(after=0), "transient", "RemoteProtocolError"),
    (Fault.truncated(), "transient", "UnusableAnswer"),
    (Fault.truncated(after=0), "transient", "UnusableAnswer"),
    (Fault.hang(), "transient", "ReadTimeout"),
    (Fault.stall(), "transient", "ReadTimeout"),
    (Fault.stall(after=0), "transient", "ReadTimeout"),
    (Fault.garbage(), "transient", "UnusableAnswer"),
    (Fault.empty(), "transient", "UnusableAnswer"),
    (Fault.html(), "transient", "UnusableAnswer"),
    (Fault.garbage_event(), "transient", "JSONDecodeError"),
]


def only_error(events: list[Event]) -> ErrorEvent:
    """The error that a turn ended in; fails when there is more than one end."""
    ends = [event for event in events if not isinstance(event, TextEvent | UsageEvent)]
    assert ends == events[-1:]
    assert isinstance(ends[0], ErrorEvent)
    return ends[0]


@pytest.mark.parametrize(
    ("fault", "verdict", "error_type"),
    FAULTS,
    ids=[f"{fault.name}-{error_type}" for fault, _, error_type in FAULTS],
)
def test_each_fault_gets_its_verdict(
    converse: Converse, fault: Fault, verdict: Verdict, error_type: str
) -> None:
    with MessagesServer(reply="one two three", faults=[fault]) as server:
        [events] = converse(server.url, "Hello?", idle_timeout=IDLE_TIMEOUT)
        error = only_error(events)

        assert (error.verdict, error.error_type) == (verdict, error_type)
        assert server.url in error.message
        assert len(server.calls) == 1, "retrying is the pool's"
    assert cloudpickle.loads(cloudpickle.dumps(error)) == error


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.hang(), "sent nothing for 0.3 s (idle_timeout)"),
        (Fault.reset(), "broke: Connection reset by peer"),
        (Fault.html(), "text/html"),
        (Fault.body("<html>", "text/html", status=502), "answered 502: Bad Gateway"),
        (Fault.truncated(), "ended its answer in the middle"),
        (Fault.status(400, message="max_tokens: too large"), "max_tokens: too large"),
        (Fault.status(400), "(request req_1)"),
        (Fault.status(400, message="x" * 10_000), "x" * 500 + "…"),
        (Fault.status(429, error_code="enforced_spend_limit_reached"), "raise the spend limit"),
        (Fault.error_event(), "broke off"),
    ],
    ids=str,
)
def test_the_message_says_what_happened(converse: Converse, fault: Fault, words: str) -> None:
    with MessagesServer(faults=[fault]) as server:
        [events] = converse(server.url, "Hello?", idle_timeout=IDLE_TIMEOUT)

    assert words in only_error(events).message


def test_a_wrong_key_says_where_to_put_the_right_one(converse: Converse) -> None:
    with MessagesServer(api_key="the-right-key") as server:
        [events] = converse(server.url, "Hello?", api_key="the-wrong-key")

    error = only_error(events)
    assert error.verdict == "fatal"
    assert "invalid x-api-key" in error.message
    assert "ANTHROPIC_API_KEY" in error.message
    assert "the-wrong-key" not in repr(error)


def test_an_unknown_model_is_named(converse: Converse) -> None:
    with MessagesServer(models=["claude-haiku-5-5"]) as server:
        [events] = converse(server.url, "Hello?", options=SessionOptions(model="claude-zero"))

    error = only_error(events)
    assert error.verdict == "fatal"
    assert "'claude-zero'" in error.message
    assert "RAYPOOL_MODEL" in error.message


def test_a_url_where_nobody_listens_is_named(converse: Converse) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        [events] = converse(url, "Hello?")

    error = only_error(events)
    assert error.verdict == "unreachable"
    assert error.message == (
        f"could not connect to {url}: Connection refused; is a server listening there?"
    )


def test_a_host_that_does_not_exist_is_named(converse: Converse) -> None:
    [events] = converse("http://nobody.invalid", "Hello?")

    assert only_error(events).verdict == "unreachable"
    assert "could not connect to http://nobody.invalid: " in only_error(events).message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": 7}, 7.0),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after_ms": 1500}, 1.5),
        ({"retry_after": 9, "retry_after_ms": 20}, 0.02),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_the_provider_asks_to_wait_is_passed_on(
    converse: Converse, status: int, headers: dict[str, str | float], seconds: float | None
) -> None:
    with MessagesServer(faults=[Fault.status(status, **headers)]) as server:  # type: ignore[arg-type]
        [events] = converse(server.url, "Hello?")

    assert only_error(events).retry_after == seconds


def test_a_date_to_wait_for_becomes_seconds(converse: Converse) -> None:
    date = formatdate(time() + 3600, usegmt=True)
    with MessagesServer(faults=[Fault.rate_limited(date)]) as server:
        [events] = converse(server.url, "Hello?")

    assert only_error(events).retry_after == pytest.approx(3600, abs=30)


def test_an_answer_without_content_is_tried_again(converse: Converse) -> None:
    with MessagesServer(reply=Answer([])) as server:
        [events] = converse(server.url, "Hello?")

    assert only_error(events).verdict == "transient"
    assert "without any content" in only_error(events).message


def test_an_event_of_another_shape_is_transient(converse: Converse) -> None:
    fault = Fault.body('event: message_start\ndata: {"type": "message_start"}\n\n', EVENTS)
    with MessagesServer(faults=[fault]) as server:
        [events] = converse(server.url, "Hello?")

    error = only_error(events)
    assert error.verdict == "transient"
    assert "is not the Messages API's" in error.message
    assert "Traceback" in error.traceback


def test_what_a_broken_stream_has_cost_is_told(converse: Converse) -> None:
    answer = Answer("one two three", usage=Usage(1000, 3, cache_read_tokens=50))
    with MessagesServer(reply=answer, faults=[Fault.cut()]) as server:
        [events] = converse(server.url, "Hello?")

    assert events[-2] == UsageEvent(Usage(1000, 1, cache_read_tokens=50))


def test_a_connection_cut_after_the_whole_answer_costs_nothing(converse: Converse) -> None:
    with MessagesServer(reply="Paris", faults=[Fault.cut(after=100)]) as server:
        [first, second] = converse(server.url, "capital of France?", "Sure?")

        assert len(server.calls[1].body["messages"]) == 3
    assert first[0] == TextEvent("Paris")
    assert first[-1].type == "result"
    assert second[-1].type == "result"


@pytest.mark.parametrize(
    ("settings", "system"),
    [({"extra_body": {"x": object()}}, None), ({}, "lone \ud800 surrogate")],
    ids=["not JSON", "not Unicode"],
)
def test_a_request_that_cannot_be_written_is_invalid(
    converse: Converse, settings: dict[str, object], system: str | None
) -> None:
    options = SessionOptions(system=system)
    [events] = converse("http://127.0.0.1:9", "Hello?", options=options, **settings)

    assert only_error(events).verdict == "invalid"
    assert "cannot be sent" in only_error(events).message


def test_a_password_in_the_url_is_not_shown(converse: Converse) -> None:
    with MessagesServer(faults=[Fault.status(500)]) as server:
        url = server.url.replace("http://", "http://ada:lovelace@")
        [events] = converse(url, "Hello?")

    assert only_error(events).message.startswith(server.url)
    assert "lovelace" not in repr(only_error(events))


def family_of(root: type[Exception]) -> list[type[Exception]]:
    """`root` with all its subclasses."""
    children = [child for direct in root.__subclasses__() for child in family_of(direct)]
    return [root, *children]


@pytest.mark.parametrize(
    "kind", family_of(httpx2.RequestError), ids=lambda kind: str(kind.__name__)
)
@pytest.mark.parametrize("is_wrapped", [True, False], ids=["wrapped", "bare"])
def test_no_error_of_the_transport_is_left_without_a_message(
    kind: type[httpx2.RequestError], is_wrapped: bool
) -> None:
    request = httpx2.Request("POST", "http://host/v1/messages")
    cause = kind("it broke", request=request)
    error: Exception = cause
    if is_wrapped:
        error = anthropic.APIConnectionError(request=request)
        error.__cause__ = cause

    event = error_event(error, Endpoint("http://host", "m", 60.0, 5.0, ()), is_answering=False)

    assert event.error_type == kind.__name__
    assert "http://host" in event.message
    assert event.exception is None
