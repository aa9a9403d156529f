"""Estimates of tokens: right in the mean, and not exceeded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.capacity.estimates import (
    FALLBACK_MAX_TOKENS,
    IMAGE_TOKENS,
    Estimates,
    Size,
    byte_count,
)
from raypool.messages import Terms
from raypool.records import AcceptedTask
from raypool.task import Content
from raypool.usage import Usage

TERMS = Terms(max_tokens=150, overhead_tokens=20)
PICTURE = {"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}


def task(prompt: Content = "capital of France?", number: int = 1) -> AcceptedTask:
    return AcceptedTask(number, str(number), prompt)


def test_longer_prompt_needs_more_and_the_system_prompt_counts() -> None:
    estimates = Estimates(TERMS)

    short, long = (estimates.size(task("x" * count), None) for count in (100, 10_000))

    assert estimates.likely(long).input_tokens > 20 * estimates.likely(short).input_tokens
    bare = Estimates(Terms(max_tokens=150))
    assert estimates.likely(short).input_tokens == (
        bare.likely(bare.size(task("x" * 100), None)).input_tokens + 20
    )


def test_most_has_the_agents_max_tokens_and_half_a_token_for_each_byte() -> None:
    estimates = Estimates(Terms(max_tokens=150))

    most = estimates.most(estimates.size(task("x" * 10_000), None))

    assert most.output_tokens == 150
    assert 5_000 <= most.input_tokens <= 5_100


def test_unknown_max_tokens_are_taken_for_a_stated_number() -> None:
    estimates = Estimates(Terms())

    assert estimates.most(Size(0, 0, is_first=True)).output_tokens == FALLBACK_MAX_TOKENS


def test_likely_tokens_are_learned_from_usage() -> None:
    estimates, seed = Estimates(TERMS), random.Random(4)
    for _ in range(100):
        size = estimates.size(task("é" * seed.randint(200, 2_000)), None)
        estimates.learn(size, Usage(size.text_bytes, seed.randint(30, 50)))

    likely = estimates.likely(estimates.size(task("é" * 1_000), None))

    assert likely.input_tokens == pytest.approx(2_080, rel=0.05)
    assert likely.output_tokens == pytest.approx(40, rel=0.2)


def test_most_grows_by_what_it_fell_short_and_forgets_that_slowly() -> None:
    estimates = Estimates(TERMS)
    size = estimates.size(task("x" * 100), None)
    before = estimates.most(size).input_tokens

    estimates.learn(size, Usage(before + 400, 10))
    assert estimates.most(size).input_tokens == before + 400

    for _ in range(500):
        estimates.learn(size, Usage(30, 10))
    assert estimates.most(size).input_tokens == before


def test_cached_input_counts_towards_the_most_and_less_and_less_towards_the_likely() -> None:
    estimates = Estimates(TERMS)
    size = estimates.size(task("x" * 1_000), None)

    for _ in range(100):
        estimates.learn(size, Usage(10, 10, cache_read_tokens=1_800, cache_write_tokens=190))

    assert estimates.most(size).input_tokens >= 2_000
    assert estimates.likely(size).input_tokens == pytest.approx(200, rel=0.05)


def test_exchange_in_the_middle_of_a_task_begins_with_what_the_provider_counted() -> None:
    estimates = Estimates(TERMS)
    estimates.remember(7, 5_000)

    size = estimates.size(task("short", number=7), None)

    assert estimates.most(size).input_tokens > estimates.likely(size).input_tokens >= 5_000
    estimates.forget(7)
    assert estimates.size(task("short", number=7), None).context_tokens == 0


def test_named_conversation_carries_its_tokens_on_to_the_next_task() -> None:
    estimates = Estimates(TERMS)
    estimates.remember("ann", 900)

    size = estimates.size(task("x" * 40, number=8), "ann")

    assert size == Size(900, 40, is_first=True)
    assert estimates.size(task("x" * 40, number=9), "bob") == Size(0, 120, is_first=True)


def test_picture_counts_as_what_it_takes_and_not_by_its_bytes() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "what is it?"}, PICTURE]}

    assert byte_count([message]) == pytest.approx(4 * IMAGE_TOKENS, abs=40)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_text_counts_as_utf_8_in_whatever_it_is_wrapped(text: str) -> None:
    size = len(text.encode())

    assert byte_count(text) == size
    assert byte_count([{"role": "", "content": text}]) == size
    assert byte_count([{"role": "", "content": [{"type": "", "text": text}]}]) == size


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 20_000), st.integers(0, 150)),
        min_size=1,
    )
)
def test_what_was_seen_once_is_never_exceeded_at_the_next_time(
    seen: list[tuple[int, int, int]],
) -> None:
    estimates = Estimates(TERMS)
    for text_bytes, tokens, output in seen:
        size = Size(0, text_bytes, is_first=True)
        estimates.learn(size, Usage(tokens, output))

        assert estimates.most(size).input_tokens >= tokens
        assert estimates.likely(size).input_tokens >= 0
        assert 0 <= estimates.likely(size).output_tokens <= 256
