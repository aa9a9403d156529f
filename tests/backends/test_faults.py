"""How exceptions of unknown code are classified."""

from __future__ import annotations

from email.utils import formatdate
from time import time

import pytest

from raypool.backends.faults import error_event, retry_after_seconds, verdict_of_status
from raypool.events import Verdict


class ProviderError(Exception):
    """As most client libraries raise it."""

    def __init__(self, status_code: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code
        self.response = ProviderResponse(headers)


class ProviderResponse:
    def __init__(self, headers: dict[str, str] | None) -> None:
        self.headers = headers


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, "invalid"),
        (401, "fatal"),
        (402, "fatal"),
        (403, "fatal"),
        (404, "fatal"),
        (408, "transient"),
        (409, "transient"),
        (413, "invalid"),
        (422, "invalid"),
        (429, "refused"),
        (500, "transient"),
        (503, "transient"),
        (529, "refused"),
        (599, "transient"),
    ],
)
def test_a_status_has_one_verdict(status: int, verdict: Verdict) -> None:
    assert verdict_of_status(status) == verdict
    assert error_event(ProviderError(status)).verdict == verdict


@pytest.mark.parametrize("status", [None, "404", 200], ids=repr)
def test_an_exception_without_a_status_may_pass_on_another_attempt(status: object) -> None:
    assert error_event(ProviderError(status)).verdict == "transient"


def test_the_event_has_what_a_log_needs() -> None:
    with pytest.raises(ValueError, match="ten") as raised:
        int("ten")
    event = error_event(raised.value)

    assert (event.error_type, event.message) == ("ValueError", str(raised.value))
    assert "test_the_event_has_what_a_log_needs" in event.traceback
    assert event.exception is raised.value


def test_a_verdict_that_is_given_holds() -> None:
    assert error_event(ProviderError(500), "invalid").verdict == "invalid"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, None),
        (None, None),
    ],
    ids=str,
)
def test_what_a_provider_asks_to_wait_is_read(
    headers: dict[str, str] | None, seconds: float | None
) -> None:
    assert retry_after_seconds(headers) == seconds
    assert error_event(ProviderError(429, headers)).retry_after == seconds


def test_a_date_to_wait_for_becomes_seconds() -> None:
    headers = {"retry-after": formatdate(time() + 60, usegmt=True)}

    assert retry_after_seconds(headers) == pytest.approx(60, abs=30)
