"""What the command line makes of its options: agents, settings, Pool.start's arguments."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raypool import Budget, Pool, RateLimit, RoleAgent
from raypool.agent import AgentStart, SessionOptions
from raypool.backends import AnthropicBackend, ScriptedBackend
from raypool.cli.agent import PromptAgent
from raypool.cli.batch_form import RunTerms
from raypool.cli.options import PoolOptions, make_backend, start_pool

PLAIN = PoolOptions(
    backend="scripted",
    model=None,
    base_url=None,
    size=4,
    concurrency=1,
    role=None,
    system=None,
    max_tokens=None,
    turn_timeout=600.0,
    address=None,
)


def options(**changes: Any) -> PoolOptions:
    return msgspec.structs.replace(PLAIN, **changes)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `Pool.start` was told last."""
    told: dict[str, Any] = {}

    def start(size: int, **arguments: Any) -> None:
        told.update(arguments, size=size)

    monkeypatch.setattr(Pool, "start", start)
    return told


def session_options(started: dict[str, Any]) -> SessionOptions | None:
    """What a worker's agent asks of its backend."""
    start = AgentStart(worker="w-1", role="poet", options=started["agent_options"])
    asked = started["agent"]().init_agent(start)
    assert asked is None or isinstance(asked, SessionOptions)
    return asked


def test_prompts_go_as_they_stand_unless_a_system_prompt_is_given(started: dict[str, Any]) -> None:
    start_pool(options(), ScriptedBackend())
    assert started["agent"] is PromptAgent
    assert session_options(started) == SessionOptions(system=None, max_tokens=1024)

    start_pool(options(system="Be brief.", max_tokens=5), ScriptedBackend())
    assert session_options(started) == SessionOptions(system="Be brief.", max_tokens=5)


def test_role_brings_its_agent_with_its_own_max_tokens(started: dict[str, Any]) -> None:
    start_pool(options(role="poet"), ScriptedBackend())
    asked = session_options(started)

    assert started["agent"] is RoleAgent
    assert started["role"] == "poet"
    assert asked is not None
    assert asked.max_tokens == 150

    start_pool(options(role="poet", max_tokens=9), ScriptedBackend())
    asked = session_options(started)
    assert asked is not None
    assert asked.max_tokens == 9


def test_options_of_the_pool_are_passed_by_their_names(started: dict[str, Any]) -> None:
    backend = ScriptedBackend()

    start_pool(
        options(size=3, concurrency=2, turn_timeout=5.0, address="x"), backend, ledger="x.db"
    )

    expected = {"size": 3, "concurrency": 2, "turn_timeout": 5.0, "address": "x", "ledger": "x.db"}
    assert expected.items() <= started.items()
    assert started["backend"] is backend


def test_limits_budget_and_routing_are_passed(started: dict[str, Any]) -> None:
    start_pool(options(rpm=60.0, tpm=5e4, budget_usd=2.0, routing="next_free"), ScriptedBackend())

    assert started["rate_limit"] == RateLimit(requests_per_minute=60, input_tokens_per_minute=5e4)
    assert started["budget"] == Budget(usd=2.0)
    assert started["routing"] == "next_free"

    start_pool(options(output_tpm=7.0), ScriptedBackend())
    assert started["rate_limit"] == RateLimit(output_tokens_per_minute=7)


def test_backend_gets_its_model_and_address() -> None:
    backend = make_backend(options(backend="anthropic", model="m", base_url="http://localhost:1"))

    assert isinstance(backend, AnthropicBackend)
    assert backend.model == "m"
    assert isinstance(make_backend(options()), ScriptedBackend)


def test_rows_are_compared_with_what_the_run_asks() -> None:
    asked = options(
        backend="anthropic", model="m", base_url="http://localhost:1", system="Be brief."
    )

    assert asked.terms(make_backend(asked)) == RunTerms("m", "Be brief.", 1024)
    assert options(max_tokens=5).terms(ScriptedBackend()) == RunTerms(None, None, 5)


def test_settings_name_the_model_that_answers_and_hide_the_system_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAYPOOL_MODEL", "claude-x")
    asked = options(backend="anthropic", base_url="http://localhost:1", system="Be brief.")

    settings = asked.settings(make_backend(asked))

    assert settings["model"] == "claude-x"
    assert settings["max_tokens"] == 1024
    assert "brief" not in str(settings)


@pytest.mark.parametrize(
    "other",
    [{"backend": "local"}, {"role": "poet"}, {"system": "x"}, {"max_tokens": 5}],
    ids=str,
)
def test_settings_differ_where_answers_would(other: dict[str, Any]) -> None:
    backend = ScriptedBackend()

    assert options(**other).settings(backend) != options().settings(backend)


@pytest.mark.parametrize(
    "other",
    [{"size": 9}, {"concurrency": 9}, {"turn_timeout": 9.0}, {"address": "x"}, {"base_url": "x"}],
    ids=str,
)
def test_settings_do_not_depend_on_where_and_how_fast_answers_come(other: dict[str, Any]) -> None:
    backend = ScriptedBackend()

    assert options(**other).settings(backend) == options().settings(backend)
