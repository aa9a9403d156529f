"""What a user needs to test agents and backends: no model, no key, no waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raypool.backends.scripted import ScriptedBackend
from raypool.clock import FakeClock
from raypool.testing.messages_faults import Fault
from raypool.testing.messages_server import MessagesServer
from raypool.testing.messages_wire import Answer, Call
from raypool.testing.server_limits import ServerLimits, Traffic

if TYPE_CHECKING:
    from raypool.testing.contract import BackendContract

__all__ = [
    "Answer",
    "BackendContract",
    "Call",
    "FakeClock",
    "Fault",
    "MessagesServer",
    "ScriptedBackend",
    "ServerLimits",
    "Traffic",
]


def __getattr__(name: str) -> object:
    """`BackendContract` alone needs pytest, which users of the rest may not have."""
    if name == "BackendContract":
        from raypool.testing.contract import BackendContract  # noqa: PLC0415

        return BackendContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
