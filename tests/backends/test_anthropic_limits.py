"""What a Messages API server says of its limits, as it reaches the pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypool.backends import Account, AnthropicBackend
from raypool.backends.anthropic_limits import limits_in
from raypool.clock import SystemClock
from raypool.events import ErrorEvent, Event, ResultEvent
from raypool.messages import Outcome
from raypool.provider_limits import Allowance, ProviderLimits
from raypool.testing import Answer, Fault, MessagesServer, ServerLimits
from tests.turns.parts import ask, engine

Converse = Callable[..., list[list[Event]]]

RESET = "2026-01-01T00:00:30Z"
RESET_AT = 1_767_225_630.0
PARTS = ("limit", "remaining", "reset")
RESOURCES = ("requests", "input-tokens", "output-tokens", "tokens")

odd_texts = st.one_of(
    st.sampled_from(["", "nan", "inf", "-1", "many", "1e999", "0001-01-01T00:00:00+14:00"]),
    st.sampled_from(["9999-12-31T23:59:59-14:00", "2026-01-01", "2026-01-01T00:00:00", RESET]),
    st.text(max_size=20),
)


def headers(resource: str, limit: str = "50", remaining: str = "49", reset: str = RESET) -> Any:
    return {
        f"anthropic-ratelimit-{resource}-{part}": text
        for part, text in zip(PARTS, (limit, remaining, reset), strict=True)
    }


def test_each_limit_is_read_from_its_three_headers() -> None:
    told = {"request-id": "req_1"}
    for place, resource in enumerate(RESOURCES, start=1):
        told |= headers(resource, str(place * 1000), str(place))

    assert limits_in(told) == ProviderLimits(
        requests=Allowance(1000, 1, RESET_AT),
        input_tokens=Allowance(2000, 2, RESET_AT),
        output_tokens=Allowance(3000, 3, RESET_AT),
        tokens=Allowance(4000, 4, RESET_AT),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": "many"},
        {"limit": "0"},
        {"remaining": "-1"},
        {"limit": "inf"},
        {"reset": "soon"},
        {"reset": "2026-01-01T00:00:30"},
    ],
    ids=str,
)
def test_limit_that_makes_no_sense_is_left_out_and_the_others_are_read(wrong: Any) -> None:
    told = headers("requests", **wrong) | headers("output-tokens")

    assert limits_in(told) == ProviderLimits(output_tokens=Allowance(50, 49, RESET_AT))


@pytest.mark.parametrize("ahead", [-3600, -600, 0, 600])
def test_reset_is_told_by_our_clock_whatever_the_servers_is(ahead: int) -> None:
    now = time.time()
    reset = datetime.fromtimestamp(now + ahead + 30, UTC).isoformat()

    limits = limits_in(headers("tokens", reset=reset) | {"date": formatdate(now + ahead)})

    assert limits is not None
    assert limits.tokens is not None
    assert limits.tokens.reset_at - now == pytest.approx(30, abs=3)


@pytest.mark.parametrize("date", ["", "soon", "Thu, 01 Jan 1970 99:99:99 GMT"])
def test_date_that_makes_no_sense_moves_nothing(date: str) -> None:
    limits = limits_in(headers("tokens") | {"date": date})

    assert limits == ProviderLimits(tokens=Allowance(50, 49, RESET_AT))


def test_limit_of_which_a_header_is_missing_is_left_out() -> None:
    told = headers("tokens")
    del told["anthropic-ratelimit-tokens-reset"]

    assert limits_in(told) is None


def test_server_that_says_nothing_of_limits_has_none() -> None:
    assert limits_in({"request-id": "req_1"}) is None


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*headers("requests"), *headers("tokens")]), odd_texts))
def test_no_header_is_an_error(told: dict[str, str]) -> None:
    limits = limits_in(told)

    assert limits is None or limits != ProviderLimits()


def test_answer_and_refusal_tell_the_limits(converse: Converse) -> None:
    with MessagesServer(limits=ServerLimits(requests_per_minute=1)) as server:
        [answered], [refused] = (events[-1:] for events in converse(server.url, "a?", "b?"))

    assert isinstance(answered, ResultEvent)
    assert isinstance(refused, ErrorEvent)
    assert refused.verdict == "refused"
    assert refused.retry_after is not None
    for event in (answered, refused):
        assert event.limits is not None
        assert event.limits.requests is not None
        assert (event.limits.requests.limit, event.limits.requests.remaining) == (1, 0)
        assert event.limits.tokens is None


@pytest.mark.parametrize("fault", [Fault.error_event(), Fault.status(500)], ids=repr)
def test_error_of_the_server_tells_the_limits(converse: Converse, fault: Fault) -> None:
    with MessagesServer(faults=[fault]) as server:
        [[*_, failed]] = converse(server.url, "a?")

    assert isinstance(failed, ErrorEvent)
    assert failed.limits is not None


async def run(server: MessagesServer, *limits: ServerLimits) -> list[Outcome]:
    """The outcomes of a worker's tasks, one under each of these limits in turn."""
    backend = AnthropicBackend("smol", api_key="a-test-key", base_url=server.url)
    found = []
    async with engine(backend, clock=SystemClock()) as one:
        for number, these in enumerate(limits):
            if these is not server.limits:
                server.limits = these
            found.append(await one.run(ask(number)))
    return found


def test_outcome_tells_of_limits_only_where_that_is_news() -> None:
    wide = ServerLimits(requests_per_minute=600, burst_seconds=60.0)
    tight = ServerLimits(requests_per_minute=3, burst_seconds=60.0)
    with MessagesServer(limits=wide) as server:
        outcomes = asyncio.run(run(server, wide, wide, tight, tight, tight, tight))

    told = [one.limits and one.limits.requests for one in outcomes]
    left = [one and (one.limit, one.remaining) for one in told]
    assert left == [(600, 599), None, (3, 2), None, (3, 0), (3, 0)]
    assert [one.failure is not None for one in outcomes] == [False] * 5 + [True]
    assert [one.requests for one in outcomes] == [1] * 6


def test_user_never_sees_the_limits_among_the_events_of_an_answer() -> None:
    think = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    call = {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}}
    reply = Answer([think, call, {"type": "text", "text": "Yes."}])
    with MessagesServer(reply) as server:
        [outcome] = asyncio.run(run(server, server.limits))

    assert outcome.answer is not None
    assert outcome.limits is not None
    for event in outcome.answer.events or ():
        assert getattr(event, "limits", None) is None


def account(**settings: Any) -> Account:
    return AnthropicBackend(**settings).prepare().account()


def test_account_is_the_server_and_a_fingerprint_that_hides_the_key() -> None:
    key = "sk-ant-secret-0123456789"
    one = account(api_key=key, base_url="https://me:password@example.com/v1?token=abc")

    assert one.provider == "https://example.com/v1"
    assert len(one.key) == 16
    assert not set(key.split("-")) & {one.key}
    assert one == account(api_key=key, base_url="https://example.com/v1", model="other")
    assert one.key != account(api_key=key[:-1], base_url="https://example.com/v1").key


def test_account_of_a_server_without_keys_can_be_told() -> None:
    one = account(base_url="http://localhost:8000")

    assert one == account(base_url="http://localhost:8000")
    assert one.provider == "http://localhost:8000"
