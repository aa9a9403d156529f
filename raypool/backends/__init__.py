"""What a turn can talk to."""

from raypool.backends.base import Backend, Session
from raypool.backends.function import FunctionBackend
from raypool.backends.scripted import ScriptedBackend

__all__ = ["Backend", "FunctionBackend", "ScriptedBackend", "Session"]
