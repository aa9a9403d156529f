"""The limits that the stand-in for the Messages API keeps: by a still clock, and live."""

from __future__ import annotations

from datetime import datetime

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypool.testing import Answer, FakeClock, MessagesServer, ServerLimits, Traffic
from raypool.testing.server_limits import Limiter
from raypool.usage import Usage
from tests.testing.test_messages_server import post


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


def admitted(limiter: Limiter, count: int, *, key: str = "k", tokens: int = 0) -> int:
    """How many of so many requests at once get in."""
    return sum(limiter.admit(key, tokens) is None for _ in range(count))


def test_bucket_lets_its_burst_through_and_then_what_comes_in(clock: FakeClock) -> None:
    limiter = Limiter(ServerLimits(requests_per_minute=600, burst_seconds=2.0), clock)

    assert admitted(limiter, 100) == 20
    clock.advance(0.5)
    assert admitted(limiter, 100) == 5
    clock.advance(3600.0)
    assert admitted(limiter, 100) == 20
    assert limiter.traffic() == Traffic(admitted=45, refused=255)


def test_bucket_of_less_than_one_request_holds_one(clock: FakeClock) -> None:
    limiter = Limiter(ServerLimits(requests_per_minute=6), clock)

    assert admitted(limiter, 3) == 1
    clock.advance(9.9)
    assert admitted(limiter, 3) == 0
    clock.advance(0.1)
    assert admitted(limiter, 3) == 1


def test_request_larger_than_the_bucket_waits_until_it_is_full_and_runs_into_debt(
    clock: FakeClock,
) -> None:
    limiter = Limiter(ServerLimits(input_tokens_per_minute=6_000), clock)

    assert limiter.admit("k", 300) is None
    refusal = limiter.admit("k", 50)
    assert refusal is not None
    assert refusal.seconds == pytest.approx(2.5)
    clock.advance(2.5)
    assert limiter.admit("k", 50) is None


def test_output_is_taken_as_it_is_answered_and_shuts_the_door_by_its_debt(
    clock: FakeClock,
) -> None:
    limiter = Limiter(ServerLimits(output_tokens_per_minute=600), clock)

    assert admitted(limiter, 5) == 5
    limiter.spend("k", output_tokens=30)
    refusal = limiter.admit("k", 1)

    assert refusal is not None
    assert refusal.seconds == pytest.approx(2.1)
    assert "600 output tokens per minute" in refusal.message
    assert limiter.traffic("k") == Traffic(admitted=5, refused=1, output_tokens=30)


def test_tokens_together_are_those_read_and_those_written(clock: FakeClock) -> None:
    limiter = Limiter(ServerLimits(tokens_per_minute=6_000), clock)

    limiter.admit("k", 60)
    limiter.spend("k", input_tokens=10, output_tokens=29)

    assert limiter.admit("k", 1) is None
    assert limiter.headers("k")["anthropic-ratelimit-tokens-remaining"] == "0"


def test_refused_request_takes_nothing_from_any_bucket(clock: FakeClock) -> None:
    limits = ServerLimits(requests_per_minute=600, input_tokens_per_minute=600)
    limiter = Limiter(limits, clock)
    limiter.admit("k", 10)
    before = limiter.headers("k")

    assert admitted(limiter, 50, tokens=10) == 0

    assert limiter.headers("k") == before


def test_each_key_has_buckets_of_its_own(clock: FakeClock) -> None:
    limiter = Limiter(ServerLimits(requests_per_minute=600), clock)

    assert admitted(limiter, 20, key="one") == 10
    assert admitted(limiter, 20, key="two") == 10
    assert limiter.traffic("one") == Traffic(admitted=10, refused=10)
    assert limiter.traffic() == Traffic(admitted=20, refused=20)
    assert limiter.traffic("three") == Traffic()


def test_limits_change_without_giving_a_burst_away(clock: FakeClock) -> None:
    limiter = Limiter(ServerLimits(requests_per_minute=600), clock)
    admitted(limiter, 10)

    limiter.change(ServerLimits(requests_per_minute=6_000))
    assert admitted(limiter, 10) == 0
    clock.advance(1.0)
    assert admitted(limiter, 200) == 100

    clock.advance(1.0)
    limiter.change(ServerLimits(requests_per_minute=60))
    assert admitted(limiter, 200) == 1


def test_headers_tell_what_is_left_and_when_all_of_it_is_there_again(clock: FakeClock) -> None:
    limiter = Limiter(ServerLimits(requests_per_minute=600, burst_seconds=60.0), clock)
    admitted(limiter, 595)

    headers = limiter.headers("k")

    reset = datetime.fromisoformat(headers.pop("anthropic-ratelimit-requests-reset"))
    assert reset.timestamp() == pytest.approx(clock.time() + 59.5)
    assert headers == {
        "anthropic-ratelimit-requests-limit": "600",
        "anthropic-ratelimit-requests-remaining": "5",
    }


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 400)), max_size=60),
    st.floats(0.1, 5.0),
)
def test_no_window_lets_through_more_than_its_time_and_a_burst(
    steps: list[tuple[float, int]], burst_seconds: float
) -> None:
    clock, per_second, tokens_per_second = FakeClock(), 3.0, 100.0
    limits = ServerLimits(
        requests_per_minute=per_second * 60,
        input_tokens_per_minute=tokens_per_second * 60,
        burst_seconds=burst_seconds,
    )
    limiter = Limiter(limits, clock)
    let_in: list[tuple[float, int]] = []
    for pause, tokens in steps:
        clock.advance(pause)
        if limiter.admit("k", tokens) is None:
            let_in.append((clock.monotonic(), tokens))

    for first, (begin, _) in enumerate(let_in):
        for last in range(first, len(let_in)):
            seconds = let_in[last][0] - begin
            count = last - first + 1
            assert count <= max(1.0, per_second * burst_seconds) + per_second * seconds + 1e-6
            before = sum(tokens for _, tokens in let_in[first:last])
            assert before <= tokens_per_second * (burst_seconds + seconds) + 400


def ask(server: MessagesServer, key: str = "one") -> httpx2.Response:
    return post(server, headers={"x-api-key": key})


def test_server_refuses_as_the_api_does_what_exceeds_a_limit() -> None:
    with MessagesServer(limits=ServerLimits(requests_per_minute=1)) as server:
        answers = [ask(server), ask(server), ask(server, "another")]
        traffic = server.traffic("one")

    assert [answer.status_code for answer in answers] == [200, 429, 200]
    refused = answers[1]
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert "1 requests per minute" in refused.json()["error"]["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert refused.headers["request-id"] == refused.json()["request_id"]
    assert traffic == Traffic(admitted=1, refused=1, input_tokens=3, output_tokens=3)


def test_server_may_keep_its_limits_to_itself() -> None:
    limits = ServerLimits(requests_per_minute=1, tells=False, retry_after=False)
    with MessagesServer(limits=limits) as server:
        answers = [ask(server), ask(server)]

    assert [answer.status_code for answer in answers] == [200, 429]
    for answer in answers:
        assert not [name for name in answer.headers if "ratelimit" in name or "retry" in name]


def test_limits_of_a_server_can_be_changed_while_it_runs() -> None:
    with MessagesServer(limits=ServerLimits(requests_per_minute=1)) as server:
        first, second = ask(server), ask(server)
        server.limits = ServerLimits()
        third = ask(server)

    assert [one.status_code for one in (first, second, third)] == [200, 429, 200]
    assert "anthropic-ratelimit-requests-limit" not in third.headers


def test_what_the_answer_says_of_its_usage_is_what_counts() -> None:
    reply = Answer("Yes.", usage=Usage(100, 50, cache_read_tokens=7, cache_write_tokens=20))
    with MessagesServer(reply, limits=ServerLimits(tokens_per_minute=1e6)) as server:
        ask(server)

        assert server.traffic() == Traffic(admitted=1, input_tokens=120, output_tokens=50)
