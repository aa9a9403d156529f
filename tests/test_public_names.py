"""The names that users import."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

import raypool
import raypool.backends
import raypool.testing

DOCUMENTED = {
    raypool: """
        Pool Task TaskFuture TaskResult Response WorkerResults PoolStatus WorkerStatus
        Agent RoleAgent AgentStart SessionOptions Prompt Halt Skip Turn Decision TelemetryEvent
        RateLimit RetryPolicy Autoscale Budget Price
        RaypoolError PoolStartError PoolStopped PoolFull InvalidTask
        UnknownRole UnknownWorker UnknownTask WaitTimeout LedgerError TaskCancelled
        TaskFailed TurnTimeout Interrupted WorkerDied BackendError
    """,
    raypool.backends: """
        Account Backend Session AnthropicBackend FunctionBackend LocalBackend ScriptedBackend
    """,
    raypool.testing: """
        Answer BackendContract Call FakeClock Fault FaultContract Meets MessagesServer
        ScriptedBackend ServerLimits Traffic
    """,
}

every_module = pytest.mark.parametrize("module", DOCUMENTED, ids=lambda module: module.__name__)


def public(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return names


@every_module
def test_public_names_are_the_documented_ones_in_order(module: ModuleType) -> None:
    assert public(module) == sorted(DOCUMENTED[module].split())


@every_module
def test_every_public_name_can_be_had_and_says_what_it_is(module: ModuleType) -> None:
    undocumented = [name for name in public(module) if not getattr(module, name).__doc__]

    assert undocumented == []


@every_module
def test_nothing_of_ours_is_public_by_accident(module: ModuleType) -> None:
    ours = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and str(getattr(value, "__module__", "")).startswith("raypool")
    }

    assert ours <= set(public(module))


@every_module
def test_unknown_name_is_no_attribute(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        module.Nobody  # noqa: B018 - the access is what is tested


def test_star_import_brings_every_public_name() -> None:
    names: dict[str, object] = {}

    exec("from raypool import *", names)

    assert set(public(raypool)) <= set(names)
