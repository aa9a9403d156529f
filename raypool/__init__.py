"""A distributed pool of long-lived LLM agents on Ray."""

from importlib import import_module
from typing import TYPE_CHECKING

from raypool.agent import (
    Agent,
    AgentStart,
    Decision,
    Halt,
    Prompt,
    RoleAgent,
    SessionOptions,
    Skip,
    Turn,
)
from raypool.errors import (
    BackendError,
    Interrupted,
    InvalidTask,
    LedgerError,
    PoolFull,
    PoolStartError,
    PoolStopped,
    RaypoolError,
    TaskCancelled,
    TaskFailed,
    TurnTimeout,
    UnknownRole,
    UnknownTask,
    UnknownWorker,
    WaitTimeout,
    WorkerDied,
)
from raypool.future import TaskFuture
from raypool.response import Response, TaskResult, WorkerResults
from raypool.status import PoolStatus, WorkerStatus
from raypool.task import Task
from raypool.telemetry import TelemetryEvent

if TYPE_CHECKING:
    from raypool.config import Autoscale, Budget, Price, RateLimit, RetryPolicy
    from raypool.pool import Pool

__all__ = [
    "Agent",
    "AgentStart",
    "Autoscale",
    "BackendError",
    "Budget",
    "Decision",
    "Halt",
    "Interrupted",
    "InvalidTask",
    "LedgerError",
    "Pool",
    "PoolFull",
    "PoolStartError",
    "PoolStatus",
    "PoolStopped",
    "Price",
    "Prompt",
    "RateLimit",
    "RaypoolError",
    "Response",
    "RetryPolicy",
    "RoleAgent",
    "SessionOptions",
    "Skip",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskFuture",
    "TaskResult",
    "TelemetryEvent",
    "Turn",
    "TurnTimeout",
    "UnknownRole",
    "UnknownTask",
    "UnknownWorker",
    "WaitTimeout",
    "WorkerDied",
    "WorkerResults",
    "WorkerStatus",
]

_IMPORTED_WHEN_USED = {
    "Pool": "raypool.pool",
    **dict.fromkeys(("Autoscale", "Budget", "Price", "RateLimit", "RetryPolicy"), "raypool.config"),
}


def __getattr__(name: str) -> object:
    """Workers and `raypool --help` need neither pydantic nor the client's half of Ray."""
    if name in _IMPORTED_WHEN_USED:
        return getattr(import_module(_IMPORTED_WHEN_USED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
