"""What the workers of each role are made of: what they share is packed once."""

from __future__ import annotations

import cloudpickle
import pytest

from raypool import Agent, Pool, RoleAgent
from raypool.backends import ScriptedBackend
from raypool.recipes import Recipe, pack_recipes, part_roles


class Historian(Agent):
    """An agent of its own."""


class Prepared(ScriptedBackend):
    """Counts how often it was prepared.

    Attributes:
        times: so often.
    """

    times = 0

    def prepare(self) -> Prepared:
        type(self).times += 1
        return self


def attach(info: object) -> None:
    """Stands for the handle of the pool."""


POOLS = Recipe(RoleAgent, {"tone": "dry"}, ScriptedBackend())


def test_role_is_made_of_what_it_says_and_of_what_the_pool_says() -> None:
    roles = {"chemist": 2, "historian": {"size": 1, "agent": Historian}}

    packed = pack_recipes(POOLS, "expert", roles, attach)

    agent, options, backend, _ = cloudpickle.loads(packed["historian"])
    assert (agent.__name__, options) == ("Historian", {"tone": "dry"})
    assert type(backend).__name__ == "ScriptedBackend"
    assert cloudpickle.loads(packed["chemist"])[0] is RoleAgent


def test_roles_that_are_alike_share_one_payload() -> None:
    own = {"size": 1, "agent_options": {"tone": "warm"}}

    packed = pack_recipes(POOLS, "expert", {"a": 1, "b": {"size": 3}, "c": own}, attach)

    assert packed["a"] is packed["b"]
    assert packed["c"] != packed["a"]


def test_backend_of_several_roles_is_prepared_once() -> None:
    backend = Prepared()
    roles = {"a": {"size": 1, "agent": Historian}, "b": 1}

    pack_recipes(Recipe(RoleAgent, None, backend), "expert", roles, attach)

    assert Prepared.times == 1


def test_pool_without_typed_workers_has_one_payload() -> None:
    assert list(pack_recipes(POOLS, "expert", None, attach)) == ["expert"]


def test_settings_are_parted_from_what_is_packed() -> None:
    historian = {"size": 1, "agent": Historian, "routing": "next_free", "concurrency": 2}

    parted = part_roles({"chemist": 2, "historian": historian})

    assert parted == {
        "chemist": 2,
        "historian": {"size": 1, "routing": "next_free", "concurrency": 2},
    }
    assert part_roles(None) is None


def test_wrong_option_of_a_role_is_named_with_its_role() -> None:
    with pytest.raises(ValueError, match=r"^roles\['poet'\]\.routing must be one of .*'random'"):
        part_roles({"poet": {"size": 1, "routing": "random"}})
    with pytest.raises(TypeError, match=r"^roles\['poet'\]\.agent must be a class"):
        pack_recipes(POOLS, "expert", {"poet": {"size": 1, "agent": Pool}}, attach)
