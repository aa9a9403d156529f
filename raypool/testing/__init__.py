"""What a user needs to test agents and backends: no model, no key, no waiting."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from raypool.backends.scripted import ScriptedBackend
from raypool.clock import FakeClock
from raypool.testing.messages_faults import Fault
from raypool.testing.messages_server import MessagesServer
from raypool.testing.messages_wire import Answer, Call
from raypool.testing.server_limits import ServerLimits, Traffic

if TYPE_CHECKING:
    from raypool.testing.contract import BackendContract
    from raypool.testing.fault_contract import FaultContract, Meets

__all__ = [
    "Answer",
    "BackendContract",
    "Call",
    "FakeClock",
    "Fault",
    "FaultContract",
    "Meets",
    "MessagesServer",
    "ScriptedBackend",
    "ServerLimits",
    "Traffic",
]


_SUITES = {
    "BackendContract": "contract",
    "FaultContract": "fault_contract",
    "Meets": "fault_contract",
}


def __getattr__(name: str) -> object:
    """The suites alone need pytest, which users of the rest may not have."""
    if name in _SUITES:
        return getattr(importlib.import_module(f"raypool.testing.{_SUITES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
