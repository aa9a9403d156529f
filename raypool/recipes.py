"""What the workers of each role are made of: parted from what users say of roles, and packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from raypool.agent import Agent
from raypool.backends import AnthropicBackend
from raypool.backends.base import Backend
from raypool.config import AGENT_OPTIONS
from raypool.messages import PoolInfo
from raypool.payload import pack, pack_routing

Attach = Callable[[PoolInfo], object]
"""Makes an agent's handle of its pool."""


class Recipe(NamedTuple):
    """What a worker is made of.

    Attributes:
        agent: the class of its agent.
        agent_options: what the agent finds in `AgentStart.options`.
        backend: what its turns talk to; `None` means `AnthropicBackend()`.
    """

    agent: type[Agent]
    agent_options: Mapping[str, Any] | None
    backend: Backend | None


def part_roles(roles: object) -> Any:
    """The roles as `PoolConfig` takes them: without what `Recipe` has, and their routing packed.

    Raises:
        TypeError, ValueError: a routing is none; names it.
    """
    if not isinstance(roles, Mapping):
        return roles
    return {role: _settings(role, given) for role, given in roles.items()}


def _settings(role: object, given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    settings = {option: value for option, value in given.items() if option not in AGENT_OPTIONS}
    if settings.get("routing") is not None:
        settings["routing"] = pack_routing(settings["routing"], f"roles[{role!r}].routing")
    return settings


def pack_recipes(
    recipe: Recipe, role: str, roles: Mapping[str, Any] | None, attach: Attach
) -> dict[str, bytes]:
    """By role, what its workers unpack; a role of `roles` that says nothing else has `recipe`.

    Roles of the same agent, options and backend share one; a backend is prepared once.

    Raises:
        TypeError: names the option that is none, or cannot be pickled.
    """
    packer = _Packer(attach)
    if roles is None:
        return {role: packer.pack(recipe)}
    return {
        name: packer.pack(_recipe_of(recipe, given), f"roles[{name!r}].")
        for name, given in roles.items()
    }


def _recipe_of(recipe: Recipe, given: object) -> Recipe:
    said = given if isinstance(given, Mapping) else {}
    return recipe._replace(**{option: said[option] for option in AGENT_OPTIONS if option in said})


class _Packer:
    """Packs recipes, and what they have in common once."""

    def __init__(self, attach: Attach) -> None:
        self._attach = attach
        self._prepared: dict[int, object] = {}
        self._packed: dict[tuple[int, int, int], bytes] = {}

    def pack(self, recipe: Recipe, within: str = "") -> bytes:
        _check(recipe, within)
        agent, options, backend = recipe
        alike = (id(agent), id(options), id(backend))
        if alike not in self._packed:
            self._packed[alike] = pack(
                agent, options or {}, self._prepare(backend), self._attach, within=within
            )
        return self._packed[alike]

    def _prepare(self, backend: Backend | None) -> object:
        if id(backend) not in self._prepared:
            ready = AnthropicBackend() if backend is None else backend
            prepare = getattr(ready, "prepare", None)
            self._prepared[id(backend)] = prepare() if prepare else ready
        return self._prepared[id(backend)]


def _check(recipe: Recipe, within: str) -> None:
    agent, options, backend = recipe
    if not (isinstance(agent, type) and issubclass(agent, Agent)):
        raise TypeError(
            f"{within}agent must be a class derived from raypool.Agent, got {agent!r:.80}"
        )
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"{within}agent_options must be a mapping, got {type(options).__name__}")
    if backend is not None and (isinstance(backend, type) or not hasattr(backend, "start")):
        raise TypeError(f"{within}backend must be an instance of a backend, got {backend!r:.80}")
