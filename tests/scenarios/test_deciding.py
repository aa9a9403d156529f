"""What an agent decides between turns: to ask again, to skip, to halt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raypool import Pool, RetryPolicy, TaskCancelled, TaskFailed, WaitTimeout
from raypool.backends import ScriptedBackend
from tests.scenarios.acting import Acting, journal_of, new_entries, seconds_of, worker_of


def answer(prompt: str) -> str:
    if prompt == "an impossible question":
        raise ConnectionError("no line")
    return f"re: {prompt}"


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    """One worker of the role `solo`, two of the role `pair`."""
    with Pool.start(
        roles={"solo": 1, "pair": 2},
        agent=Acting,
        backend=ScriptedBackend(answer, latency=seconds_of),
        retry=RetryPolicy(max_attempts=1),
        max_turns_per_task=5,
    ) as pool:
        yield pool


def test_chain_ends_with_its_last_response_and_sums_its_tokens(pool: Pool) -> None:
    future = pool.submit("one", role="solo", metadata={"then": ["two words", "and three words"]})

    response = future.result(timeout=30)

    assert response.text == "re: and three words"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (6, 9)
    assert pool.poll(future.id).turns == 3


def test_chain_goes_before_what_waits_in_the_mailbox(pool: Pool) -> None:
    with new_entries(pool, "solo") as entries:
        pool.submit("0.2 first", role="solo", metadata={"then": ["second", "third"]})
        pool.submit("waits", role="solo").result(timeout=30)

    asked = [entry[1] for entry in entries if entry[0] == "pre_turn"]
    assert asked == ["0.2 first", "second", "third", "waits"]


def test_chain_without_end_fails_at_the_limit_and_the_error_says_what_to_write(
    pool: Pool,
) -> None:
    future = pool.submit("again", role="solo", metadata={"endless": "again"})

    with pytest.raises(TaskFailed, match=r"max_turns_per_task=5; let handle_response") as raised:
        future.result(timeout=30)

    assert raised.value.attempts == 1
    assert pool.poll(future.id).turns == 5
    assert pool.poll(future.id).usage.output_tokens == 10


def test_failed_turn_may_be_followed_by_another_question(pool: Pool) -> None:
    act = {"after_error": "an easier question"}
    future = pool.submit("an impossible question", role="solo", metadata=act)

    assert future.result(timeout=30).text == "re: an easier question"
    assert pool.poll(future.id).state == "completed"


def test_skipped_task_is_cancelled_with_the_agents_reason(pool: Pool) -> None:
    future = pool.submit("a question", role="solo", metadata={"skip": "asked before"})

    with pytest.raises(TaskCancelled, match="asked before") as raised:
        future.result(timeout=30)

    assert raised.value.reason == "asked before"
    result = pool.poll(future.id)
    assert (result.state, result.usage.total_tokens) == ("cancelled", 0)
    assert result.error is not None
    assert result.error.message == "asked before"


def test_prompt_that_the_agent_rewrites_is_what_is_asked(pool: Pool) -> None:
    future = pool.submit("tell me", role="solo", metadata={"instead": "tell me briefly"})

    assert future.result(timeout=30).text == "re: tell me briefly"
    assert pool.poll(future.id).prompt == "tell me"


def test_callback_that_returns_nonsense_fails_its_task_and_says_what_it_may_return(
    pool: Pool,
) -> None:
    words = r"handle_response must return None \(idle\), Prompt\(text\) or Halt\(reason\), got 42"

    with pytest.raises(TaskFailed, match=words):
        pool.submit("a question", role="solo", metadata={"returns": 42}).result(timeout=30)


def test_halted_worker_keeps_what_nobody_else_can_have_until_it_is_resumed(pool: Pool) -> None:
    worker = worker_of(pool, "solo")
    with new_entries(pool, "solo") as entries:
        first = pool.submit("0.3 first", role="solo", metadata={"halt": "please review"})
        later = [pool.submit(f"{n} later", role="solo") for n in (0, 0.01)]
        assert first.result(timeout=30).text == "re: 0.3 first"

        with pytest.raises(WaitTimeout, match=r"has halted \(please review\).*resume") as raised:
            pool.wait_for_all(timeout=1.0)
        status = {one.worker: one for one in pool.status().workers}[worker]
        pool.resume(worker)
        answers = [future.result(timeout=30).text for future in later]

    assert f"{worker!r} has 2" in str(raised.value)
    assert (status.state, status.halted, status.queued) == ("halted", "please review", 2)
    assert answers == ["re: 0 later", "re: 0.01 later"]
    assert entries.count(["post_run"]) == 1
    assert entries.index(["post_run"]) < entries.index(["pre_turn", "0 later"])


def test_halted_worker_hands_what_it_has_not_started_to_others(pool: Pool) -> None:
    tasks = [pool.submit("0.3 halts", role="pair", metadata={"halt": "enough"})]
    tasks += [pool.submit(f"0.05 question {n}", role="pair") for n in range(9)]

    ends = [future.result(timeout=30) for future in tasks]
    halted = {one.worker: one.halted for one in pool.status().workers if one.halted is not None}

    assert len(ends) == 10
    halter = tasks[0].worker
    assert halted == {halter: "enough"}
    other = next(name for name, role in pool.workers.items() if role == "pair" and name != halter)
    assert {future.worker for future in tasks[1:]} == {other}
    pool.wait_for_all(timeout=30)
    assert halter is not None
    pool.resume(halter)
    again = [pool.submit("back", role="pair") for _ in range(2)]
    assert [future.result(timeout=30).text for future in again] == ["re: back"] * 2
    assert {future.worker for future in again} == {halter, other}


def test_task_that_halts_before_its_turn_is_first_when_its_worker_is_resumed(pool: Pool) -> None:
    worker = worker_of(pool, "solo")
    entries = len(journal_of(pool, "solo"))
    tasks = [
        pool.submit("0.1 before", role="solo"),
        pool.submit("not yet", role="solo", metadata={"halt_first": "wait"}),
        pool.submit("behind", role="solo"),
    ]
    tasks[0].result(timeout=30)
    wait_until_halted(pool, worker)

    tasks[1].cancel()
    with pytest.raises(TaskCancelled):
        tasks[1].result(timeout=30)
    pool.resume(worker)
    assert tasks[2].result(timeout=30).text == "re: behind"

    asked = [entry[1] for entry in journal_of(pool, "solo")[entries:] if entry[0] == "pre_turn"]
    assert asked == ["0.1 before", "not yet", "behind"]


def wait_until_halted(pool: Pool, worker: str) -> None:
    """Look until the pool says that the worker has halted; the test's time limit is the end."""
    while {one.worker: one.state for one in pool.status().workers}[worker] != "halted":
        pass
