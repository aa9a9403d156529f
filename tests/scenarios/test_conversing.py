"""Sessions: one worker, one turn at a time, and a memory that outlives both."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypool import Pool, SessionOptions
from raypool.backends import FunctionBackend
from raypool.task import Content
from raypool.testing import Call
from tests.conftest import StartPool
from tests.scenarios.conftest import Provider
from tests.scenarios.watching import wait_for_event, watching


async def remember(prompt: Content, options: SessionOptions) -> str:
    """Answers with all that the user has said; `die once` ends the process the first time."""
    said = [prompt] if isinstance(prompt, str) else [one["content"] for one in prompt[::2]]
    if said[-1] == "die once":
        die_once(Path(str(said[0])))
    return " | ".join(map(str, said))


def die_once(mark: Path) -> None:
    """End the process, unless the file says that this has happened."""
    if not mark.exists():
        mark.touch()
        os._exit(1)


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    with Pool.start(2, backend=FunctionBackend(remember)) as pool:
        yield pool


def test_session_goes_on_where_it_was_and_others_know_nothing_of_it(pool: Pool) -> None:
    first = pool.submit("I am Ada", session="ada").result(timeout=30)
    other = pool.submit("I am Bob", session="bob").result(timeout=30)
    second = pool.submit("who am I?", session="ada").result(timeout=30)
    alone = pool.submit("who am I?").result(timeout=30)

    assert second.text == "I am Ada | who am I?"
    assert (other.text, alone.text) == ("I am Bob", "who am I?")
    assert first.session_id == second.session_id == "ada"


def test_conversation_can_be_read_as_the_messages_that_it_is(pool: Pool) -> None:
    pool.submit("I am Eve", session="eve").result(timeout=30)
    pool.wait_for_all(timeout=30)

    assert pool.conversation("eve") == [
        {"role": "user", "content": "I am Eve"},
        {"role": "assistant", "content": "I am Eve"},
    ]
    assert pool.conversation("nobody") == []


def test_tasks_of_a_session_run_in_order_on_one_worker(pool: Pool) -> None:
    futures = [pool.submit(str(n), session="counting") for n in range(20)]

    pool.wait_for_all(timeout=30)

    assert futures[-1].result().text == " | ".join(map(str, range(20)))
    assert len({future.worker for future in futures}) == 1


def test_session_outlives_the_process_of_its_worker(pool: Pool, tmp_path: Path) -> None:
    token = str(tmp_path / "died")
    pool.submit(token, session="survivor").result(timeout=30)

    after = pool.submit("die once", session="survivor").result(timeout=60)
    later = pool.submit("still there?", session="survivor").result(timeout=30)

    assert after.text == f"{token} | die once"
    assert later.text == f"{token} | die once | still there?"
    while not any(worker.restarts for worker in pool.status().workers):
        pass


def test_session_outlives_its_pool_on_a_named_ledger(start_pool: StartPool, tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    backend = FunctionBackend(remember)
    with start_pool(1, ledger=path, backend=backend) as first:
        first.submit("I am Ada", session="ada").result(timeout=30)

    second = start_pool(1, ledger=path, backend=backend)

    answer = second.submit("who am I?", session="ada").result(timeout=30)
    assert answer.text == "I am Ada | who am I?"


def test_turns_of_a_session_never_overlap_and_those_of_others_do(
    api_pool: Pool, provider: Provider
) -> None:
    ends: dict[str, float] = {}
    overlaps: list[str] = []
    side_by_side: list[int] = []

    def latency(call: Call) -> float:
        who = call.conversation.split()[0]
        now = time.monotonic()
        if now < ends.get(who, 0.0):
            overlaps.append(who)
        ends[who] = now + 0.1
        side_by_side.append(sum(end > now for end in ends.values()))
        return 0.1

    provider.begin(latency=latency)
    for turn in range(3):
        for who in ("a", "b", "c", "d"):
            api_pool.submit(f"{who} {turn}", session=f"overlap {who}", role="plain")
    api_pool.wait_for_all(timeout=30)

    assert overlaps == []
    assert len(provider.calls) == 12
    assert max(side_by_side) > 1


def test_what_repeats_of_a_session_comes_from_the_cache(api_pool: Pool, provider: Provider) -> None:
    asked = ("a long introduction", "go on", "go on")
    futures = [api_pool.submit(prompt, session="cached", role="plain") for prompt in asked]

    usages = [future.result(timeout=30).usage for future in futures]

    request = provider.calls[1].body
    assert request["system"][-1]["cache_control"] == {"type": "ephemeral"}
    sent = 12  # words: the system prompt, the introduction, its echo, and the question
    assert usages[1].cache_read_tokens + usages[1].cache_write_tokens == sent
    assert usages[2].cache_read_tokens == sent
    assert [one["role"] for one in request["messages"]] == ["user", "assistant", "user"]


def test_conversation_that_outgrows_the_model_loses_its_oldest_turns_and_says_so(
    api_pool: Pool, provider: Provider
) -> None:
    with watching(api_pool) as events:
        for number in range(6):
            words = f"turn {number} " + "word " * 45
            future = api_pool.submit(words, session="long", role="plain")
            assert future.result(timeout=30).text.startswith(f"turn {number}")
        told = wait_for_event(events, "conversation.shortened")

    assert told.fields["session"] == "long"
    assert told.fields["dropped"] >= 2
    last = next(call for call in provider.calls if "turn 5" in call.prompt)
    assert "turn 0" not in last.conversation
    assert "turn 4" in last.conversation
