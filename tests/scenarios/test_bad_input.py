"""Wrong use gets one clear error and leaves the pool, or Ray, usable."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from raypool import (
    Agent,
    AgentStart,
    InvalidTask,
    Pool,
    PoolFull,
    PoolStartError,
    RetryPolicy,
    SessionOptions,
)
from raypool.backends import AnthropicBackend, ScriptedBackend
from tests.conftest import StartPool

LOCK = threading.Lock()


class CannotStart(Agent):
    """An agent whose set-up fails."""

    def init_agent(self, start: AgentStart) -> None:
        raise RuntimeError(f"{start.role} has no licence")


class KeepsAnObject(Agent):
    """An agent whose state no JSON can hold."""

    def snapshot(self) -> object:
        return {"lock": LOCK}


class HasAnOddTool(Agent):
    """An agent with a tool whose arguments no model could name."""

    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(tools=[print])


def agent_that_holds_a_lock() -> type[Agent]:
    """A class that travels as code, and cannot."""

    class HoldsALock(Agent):
        lock = LOCK

    return HoldsALock


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, r"size must be at least 1 .*, got 0"),
        ({"size": 1, "prices": 5}, r"prices must be a valid dictionary, got 5"),
        ({"size": 1, "tenants": ["a"]}, r"tenants must be a valid dictionary, got"),
        ({"size": -1}, r"size must be greater than or equal to 0, got -1"),
        ({"size": 2.5}, r"size must be a valid integer, got 2\.5"),
        ({}, r"size or roles must be given"),
        ({"size": 1, "roles": {"chemist": 1}}, r"size or roles must be given, and not both"),
        ({"roles": {}}, r"roles must name at least one role"),
        ({"roles": {"chemist": 0}}, r"roles\['chemist'\]\.size must be at least 1 .*, got 0"),
        ({"roles": {"chemist": {"sise": 1}}}, r"roles\['chemist'\] has no option 'sise'; it takes"),
        (
            {"roles": {"chemist": {"size": 1, "agent": 7}}},
            r"roles\['chemist'\]\.agent must be a class derived from raypool\.Agent, got 7",
        ),
        (
            {"roles": {"chemist": {"size": 1, "agent_options": {"l": LOCK}}}},
            r"roles\['chemist'\]\.agent_options must be something that can be pickled",
        ),
        (
            {"roles": {"chemist": {"size": 1, "backend": ScriptedBackend}}},
            r"roles\['chemist'\]\.backend must be an instance",
        ),
        (
            {"roles": {"chemist": {"size": 1, "routing": "random"}}},
            r"roles\['chemist'\]\.routing must be one of 'round_robin'.*, got 'random'",
        ),
        ({"size": 1, "concurrency": 2, "memory": "worker"}, r"concurrency must be 1 with memory"),
        ({"size": 1, "memory": "ever"}, r"memory must be 'task' or 'worker', got 'ever'"),
        (
            {"size": 1, "routing": "nowhere"},
            r"routing must be one of 'round_robin', .*, got 'nowhere'",
        ),
        ({"size": 1, "turn_timeout": 0}, r"turn_timeout must be greater than 0, got 0"),
        ({"size": 1, "name": "a/b"}, r"name must match pattern .*, got 'a/b'"),
        ({"size": 1, "retry": 3}, r"retry must be .*RetryPolicy, got 3"),
        (
            {"size": 1, "worker_resources": {"cpus": 1}},
            r"worker_resources must name .*, got 'cpus'",
        ),
        ({"size": 1, "worker_resources": 3}, r"worker_resources must be a mapping, got 3"),
        ({"size": 1, "agent": 7}, r"agent must be a class derived from raypool\.Agent, got 7"),
        (
            {"size": 1, "agent": agent_that_holds_a_lock()},
            r"agent must be something that can be pickled",
        ),
        ({"size": 1, "agent_options": {"l": LOCK}}, r"agent_options must be .* can be pickled"),
        ({"size": 1, "agent_options": 5}, r"agent_options must be a mapping, got int"),
        ({"size": 1, "backend": ScriptedBackend}, r"backend must be an instance"),
        ({"size": 1, "ledger": 5}, r"ledger must be a path or a postgresql:// URL, got 5"),
        ({"size": 1, "on_event": 5}, r"on_event must be a function that takes an event, got int"),
        ({"size": 1, "max_turns_per_task": 0}, r"max_turns_per_task must be .* to 1, got 0"),
        ({"size": 1, "parse_attempts": 0}, r"parse_attempts must be .* equal to 1, got 0"),
    ],
)
def test_wrong_option_is_named_before_anything_starts(options: dict[str, Any], words: str) -> None:
    options.setdefault("backend", ScriptedBackend())

    with pytest.raises((ValueError, TypeError), match=words):
        Pool.start(**options)


def test_wrong_retry_policy_names_the_option() -> None:
    with pytest.raises(ValueError, match=r"^max_attempts must be .* equal to 1, got 0$"):
        RetryPolicy(max_attempts=0)


def test_missing_key_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(PoolStartError, match=r"ANTHROPIC_API_KEY.*LocalBackend"):
        Pool.start(1)
    with pytest.raises(PoolStartError, match=r"ANTHROPIC_API_KEY"):
        Pool.start(1, backend=AnthropicBackend())


def test_ray_client_addresses_are_refused_with_the_line_to_use(local_ray: None) -> None:
    with pytest.raises(PoolStartError, match=r"ray job submit --address"):
        Pool.start(1, backend=ScriptedBackend(), address="ray://head:10001")


def test_agent_that_cannot_start_is_the_first_cause(start_pool: StartPool) -> None:
    with pytest.raises(PoolStartError, match=r"worker 'x-1' .*RuntimeError: tester has no licence"):
        start_pool(1, agent=CannotStart, role="tester", name="x")

    start_pool(1, name="x").stop()


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (KeepsAnObject, r"'x-1' .*TypeError: snapshot must return what JSON can hold .*got dict"),
        (HasAnOddTool, r"'x-1' .*TypeError: tool 'print'"),
    ],
)
def test_agent_that_can_not_do_what_it_says_is_told_what_to_write(
    start_pool: StartPool, agent: type[Agent], words: str
) -> None:
    with pytest.raises(PoolStartError, match=words):
        start_pool(1, agent=agent, name="x")


def test_workers_that_ray_cannot_place_are_counted_with_what_they_ask(
    start_pool: StartPool,
) -> None:
    words = r"2 of 2 workers could not be placed within 2 s: each asks for \{'num_cpus': 100\}"
    with pytest.raises(PoolStartError, match=words):
        start_pool(2, worker_resources={"num_cpus": 100}, start_timeout=2.0)


def test_ledger_that_cannot_be_written_is_said_at_start(start_pool: StartPool) -> None:
    with pytest.raises(PoolStartError, match=r"/nowhere/at/all/run\.db"):
        start_pool(1, ledger="/nowhere/at/all/run.db")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", r"the prompt is empty"),
        (" \n\t", r"the prompt is empty"),
        (5, r"a prompt must be a text or a list of messages, got int"),
        (None, r"got NoneType"),
        ("\ud800", r"lone surrogate \(U\+D800\) at character 0"),
        ([], r"the prompt is empty"),
        ([{"role": "assistant", "content": "x"}], r"the last message must be the user's"),
        ([{"role": "user", "content": "a\udfff"}], r"message 0 has a lone surrogate"),
        ([{"role": "user"}], r"message 0 must be"),
    ],
)
def test_prompt_that_is_none_is_refused_at_once(echo_pool: Pool, prompt: Any, words: str) -> None:
    with pytest.raises(InvalidTask, match=words):
        echo_pool.submit(prompt)

    assert echo_pool.submit("still usable").result(timeout=30).text == "still usable"


def test_one_text_is_not_a_list_of_prompts(echo_pool: Pool) -> None:
    with pytest.raises(InvalidTask, match="use submit"):
        echo_pool.submit_many("capital of France?")


def test_prompt_of_10_megabytes_works(echo_pool: Pool) -> None:
    prompt = "long " * 2_000_000

    assert echo_pool.submit(prompt).result(timeout=60).text == prompt


def test_full_pool_refuses_or_waits(start_pool: StartPool) -> None:
    pool = start_pool(1, backend=ScriptedBackend(latency=0.2), max_pending=2)
    pool.submit_many(["one", "two"])

    with pytest.raises(PoolFull, match=r"max_pending=2"):
        pool.submit("three", block=False)
    waited = pool.submit("four")

    assert waited.result(timeout=30).text == "four"
    assert [result.text for result in pool.map(["a", "b", "c", "d"])] == ["a", "b", "c", "d"]
