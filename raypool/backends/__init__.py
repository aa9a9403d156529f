"""What a turn can talk to."""

from raypool.backends.anthropic import AnthropicBackend
from raypool.backends.base import Account, Backend, Session
from raypool.backends.function import FunctionBackend
from raypool.backends.local import LocalBackend
from raypool.backends.scripted import ScriptedBackend

__all__ = [
    "Account",
    "AnthropicBackend",
    "Backend",
    "FunctionBackend",
    "LocalBackend",
    "ScriptedBackend",
    "Session",
]
