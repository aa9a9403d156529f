"""A distributed pool of long-lived LLM agents on Ray."""

from raypool.agent import Agent, AgentStart, RoleAgent, SessionOptions
from raypool.config import RetryPolicy
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
from raypool.pool import Pool
from raypool.response import Response, TaskResult, WorkerResults
from raypool.status import PoolStatus, WorkerStatus
from raypool.task import Task

__all__ = [
    "Agent",
    "AgentStart",
    "BackendError",
    "Interrupted",
    "InvalidTask",
    "LedgerError",
    "Pool",
    "PoolFull",
    "PoolStartError",
    "PoolStatus",
    "PoolStopped",
    "RaypoolError",
    "Response",
    "RetryPolicy",
    "RoleAgent",
    "SessionOptions",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskFuture",
    "TaskResult",
    "TurnTimeout",
    "UnknownRole",
    "UnknownTask",
    "UnknownWorker",
    "WaitTimeout",
    "WorkerDied",
    "WorkerResults",
    "WorkerStatus",
]
