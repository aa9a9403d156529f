"""The user's agent and backend, packed once for every worker."""

from __future__ import annotations

import copyreg
import dataclasses
import io
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from raypool.agent import Agent
from raypool.config import ROUTING_POLICIES
from raypool.telemetry import EventHandler, check_handler

if TYPE_CHECKING:
    from raypool.messages import PoolInfo

_PICKLING = threading.RLock()

# Dataclasses know it by identity, and as part of one that travels as code it would be copied.
copyreg.pickle(type(dataclasses.MISSING), lambda _: "MISSING")


def pack(
    agent: type[Agent],
    agent_options: Mapping[str, Any],
    backend: object,
    attach: Callable[[PoolInfo], object],
    *,
    within: str = "",
) -> bytes:
    """Pickle what a worker needs; only workers of the pool unpickle it.

    `attach` makes the handle by which an agent reaches its pool; `within` is put before the
    names of options in errors.

    What is defined in a module that workers could not import (a file beside none of the
    directories that Ray gives them) travels as code, so that it needs no installing.

    Raises:
        TypeError: names the option that cannot be pickled, and why.
    """
    parts = {"agent": agent, "agent_options": dict(agent_options), "backend": backend}
    with travelling_as_code():
        for option, value in parts.items():
            _check_pickles(within + option, value)
        return _pickled((*parts.values(), attach))


def pack_handler(handler: EventHandler | None) -> bytes | None:
    """Pickle the handler of a pool's events; only its dispatcher unpickles it.

    Raises:
        TypeError: it is no handler, or cannot be pickled; says why.
    """
    if handler is None:
        return None
    check_handler(handler)
    with travelling_as_code():
        _check_pickles("on_event", handler)
        return _pickled(handler)


def pack_routing(routing: object, option: str = "routing") -> str | bytes:
    """The name of a policy, or a user's own, pickled; only the pool's dispatcher unpickles it.

    Errors name the `option`.

    Raises:
        TypeError: it is neither, or cannot be pickled; says why.
        ValueError: no policy has that name.
    """
    if isinstance(routing, str):
        if routing not in ROUTING_POLICIES:
            names = ", ".join(map(repr, ROUTING_POLICIES))
            raise ValueError(f"{option} must be one of {names} or an object, got {routing!r:.80}")
        return routing
    if isinstance(routing, type) or not callable(getattr(routing, "choose", None)):
        raise TypeError(
            f"{option} must be the name of a policy, or an object with a method "
            f"choose(task, workers), got {routing!r:.80}"
        )
    with travelling_as_code():
        _check_pickles(option, routing)
        return _pickled(routing)


def _check_pickles(option: str, value: object) -> None:
    try:
        _pickled(value)
    except Exception as error:
        raise TypeError(
            f"{option} must be something that can be pickled, to be sent to the workers: "
            f"{type(error).__name__}: {error}. Make connections, locks and open files "
            "in the worker (Agent.init_agent, Backend.open)"
        ) from error


def _pickled(value: object) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Has functions take along what the hints of their parameters name.

    Cloudpickle leaves that behind, and a worker describes tools to the model by it.
    """

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)
        if isinstance(obj, FunctionType) and isinstance(reduced, tuple):
            _state, slots = reduced[2]
            slots["__globals__"] |= _named_in_hints(obj)
        return reduced


def _named_in_hints(function: FunctionType) -> dict[str, Any]:
    hints = [hint for name, hint in function.__annotations__.items() if name != "return"]
    names = {name for hint in hints if isinstance(hint, str) for name in _names_in(hint)}
    known = sorted(names & function.__globals__.keys())
    return {name: function.__globals__[name] for name in known}


def _names_in(hint: str) -> tuple[str, ...]:
    try:
        return compile(hint, "<hint>", "eval").co_names
    except SyntaxError:
        return ()


@contextmanager
def travelling_as_code() -> Iterator[None]:
    """Within it, cloudpickle packs what workers could not import as code; one thread at a time."""
    with _PICKLING:
        registered = cloudpickle.list_registry_pickle_by_value()
        modules = _modules_of_this_process_only()
        mine = [module for module in modules if module.__name__ not in registered]
        for module in mine:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in mine:
                cloudpickle.unregister_pickle_by_value(module)


def _modules_of_this_process_only() -> list[ModuleType]:
    everywhere = _installed_directories()
    reachable = [*_directories_of_workers(), *everywhere]
    return [
        module
        for name, module in sorted(sys.modules.items())
        if (file := getattr(module, "__file__", None))
        and module.__name__ != "__main__"
        and not file.startswith(tuple(everywhere))
        and not _finds(name, file, reachable)
    ]


def _installed_directories() -> list[str]:
    paths = sysconfig.get_paths()
    package = Path(__file__).parent
    return [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], str(package)]


def _directories_of_workers() -> list[str]:
    """Where Ray lets workers import from: the program's directory and the current one."""
    python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(sys.argv[0]).resolve().parent), str(Path.cwd()), *filter(None, python_path)]


def _finds(name: str, file: str, directories: list[str]) -> bool:
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, directories)
    if spec is None:
        return False
    found = [spec.origin, *(spec.submodule_search_locations or [])]
    return any(place and file.startswith(str(Path(place))) for place in found)
