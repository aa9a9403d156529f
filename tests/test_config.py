"""Settings: what is refused at the door, and how the refusal reads."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from raypool.config import (
    Autoscale,
    PoolConfig,
    RateLimit,
    RetryPolicy,
    RoleConfig,
    check_resources,
    checked_sizes,
)


def config(**options: Any) -> PoolConfig:
    if "roles" not in options:
        options.setdefault("size", 3)
    return PoolConfig(name="crew", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 0},
            "size must be at least 1 (with autoscale=Autoscale(min_size=0, …) there may be none), "
            "got 0",
        ),
        ({"size": -1}, "size must be greater than or equal to 0, got -1"),
        ({"size": 2.5}, "size must be a valid integer, got 2.5"),
        ({"size": True}, "size must be a valid integer, got True"),
        ({"size": "3"}, "size must be a valid integer, got '3'"),
        ({"size": None}, "size or roles must be given, and not both"),
        ({"size": 3, "roles": {"chemist": 1}}, "size or roles must be given, and not both"),
        ({"roles": {}}, "roles must name at least one role, got {}"),
        (
            {"roles": {"chemist": 0}},
            "roles['chemist'].size must be at least 1 (with autoscale=Autoscale(min_size=0, …) "
            "there may be none), got 0",
        ),
        (
            {"roles": {"chemist": 1.5}},
            "roles['chemist'] must be a number of workers or a mapping of options, got 1.5",
        ),
        (
            {"roles": {"chemist": True}},
            "roles['chemist'] must be a number of workers or a mapping of options, got True",
        ),
        (
            {"roles": {"chemist": {"concurrency": 2}}},
            "roles['chemist'].size must be at least 1 (with autoscale=Autoscale(min_size=0, …) "
            "there may be none), got None",
        ),
        (
            {"roles": {"chemist": {"size": -2}}},
            "roles['chemist'].size must be greater than or equal to 0, got -2",
        ),
        (
            {"roles": {"chemist": {"size": 1, "concurrency": 0}}},
            "roles['chemist'].concurrency must be greater than or equal to 1, got 0",
        ),
        (
            {"roles": {"chemist": {"size": 1, "rate_limit": 60}}},
            "roles['chemist'].rate_limit must be a valid dictionary or instance of RateLimit, "
            "got 60",
        ),
        (
            {"roles": {"chemist": {"sise": 1}}},
            "roles['chemist'] has no option 'sise'; it takes size, concurrency, routing, "
            "mailbox_limit, rate_limit, autoscale, agent, agent_options, backend",
        ),
        (
            {"roles": {"chemist": {"size": 9, "autoscale": Autoscale(min_size=1, max_size=4)}}},
            "roles['chemist'].size must be within the bounds of autoscale, from 1 to 4, got 9",
        ),
        (
            {"size": 0, "autoscale": Autoscale(min_size=1, max_size=4)},
            "size must be within the bounds of autoscale, from 1 to 4, got 0",
        ),
        (
            {"memory": "worker", "roles": {"chemist": {"size": 1, "concurrency": 2}}},
            "roles['chemist'].concurrency must be 1 with memory=\"worker\" (its turns are one "
            "conversation), got 2",
        ),
        ({"roles": {7: 1}}, "roles must name its roles, by texts, got 7"),
        ({"roles": {"": 1}}, "roles must name its roles, by texts, got ''"),
        ({"roles": ["chemist"]}, "roles must be a valid dictionary, got ['chemist']"),
        (
            {"prices": {"opal": 3}},
            "prices['opal'] must be a valid dictionary or instance of Price, got 3",
        ),
        ({"tenants": {"shop": 0}}, "tenants['shop'] must be greater than 0, got 0"),
        ({"role": ""}, "role must have at least 1 character, got ''"),
        ({"concurrency": 0}, "concurrency must be greater than or equal to 1, got 0"),
        ({"concurrency": 10_001}, "concurrency must be less than or equal to 10000, got 10001"),
        ({"memory": "pool"}, "memory must be 'task' or 'worker', got 'pool'"),
        (
            {"routing": "random"},
            "routing must be 'round_robin', 'least_loaded' or 'next_free', got 'random'",
        ),
        ({"mailbox_limit": 0}, "mailbox_limit must be greater than or equal to 1, got 0"),
        ({"retry": 3}, "retry must be a valid dictionary or instance of RetryPolicy, got 3"),
        ({"turn_timeout": 0}, "turn_timeout must be greater than 0, got 0"),
        ({"turn_timeout": float("inf")}, "turn_timeout must be a finite number, got inf"),
        ({"turn_timeout": float("nan")}, "turn_timeout must be a finite number, got nan"),
        ({"start_timeout": "soon"}, "start_timeout must be a valid number, got 'soon'"),
        (
            {"max_turns_per_task": 0},
            "max_turns_per_task must be greater than or equal to 1, got 0",
        ),
        ({"parse_attempts": 0}, "parse_attempts must be greater than or equal to 1, got 0"),
        ({"max_pending": 0}, "max_pending must be greater than or equal to 1, got 0"),
        ({"namespace": ""}, "namespace must have at least 1 character, got ''"),
        ({"detached": 1}, "detached must be a valid boolean, got 1"),
        ({"colour": "red"}, "there is no option 'colour'"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_wrong_option_is_named_with_what_it_must_be_and_what_came(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        config(**options)

    assert str(raised.value) == message


def test_concurrent_turns_of_one_conversation_are_refused() -> None:
    with pytest.raises(ValueError, match=r'concurrency must be 1 with memory="worker" .*, got 2'):
        config(memory="worker", concurrency=2)


@pytest.mark.parametrize("name", ["", "a b", "-crew", "crew/1", "x" * 129, "crew\n", "größe"])
def test_name_that_actors_could_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^name must match pattern .*, got "):
        PoolConfig(name=name, size=1)


@pytest.mark.parametrize("name", ["a", "crew-1", "run.db_2", "x" * 128])
def test_name_may_have_letters_digits_and_a_few_signs(name: str) -> None:
    assert PoolConfig(name=name, size=1).name == name


def test_long_wrong_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="size must be") as raised:
        config(size="x" * 100_000)

    assert len(str(raised.value)) < 200


def test_crew_is_as_many_of_one_role_as_size_says() -> None:
    assert config(size=3, role="chemist").crew == ["chemist"] * 3


def test_crew_has_the_roles_in_the_order_in_which_they_were_named() -> None:
    crew = config(roles={"historian": 1, "chemist": 2}).crew

    assert crew == ["historian", "chemist", "chemist"]


def test_role_has_of_the_pool_what_it_does_not_say() -> None:
    limit, scale = RateLimit(requests_per_minute=60), Autoscale(min_size=0, max_size=8)
    settings = config(
        concurrency=2,
        routing="least_loaded",
        roles={
            "chemist": 3,
            "historian": {
                "size": 1,
                "concurrency": 4,
                "routing": "next_free",
                "mailbox_limit": 5,
                "rate_limit": limit,
                "autoscale": scale,
            },
        },
    )

    assert settings.by_role == {
        "chemist": RoleConfig(
            size=3,
            concurrency=2,
            routing="least_loaded",
            mailbox_limit=None,
            rate_limit=RateLimit(),
            autoscale=None,
        ),
        "historian": RoleConfig(
            size=1,
            concurrency=4,
            routing="next_free",
            mailbox_limit=5,
            rate_limit=limit,
            autoscale=scale,
        ),
    }


def test_pool_without_typed_workers_has_one_role() -> None:
    settings = config(size=3, role="chemist", concurrency=2)

    assert list(settings.by_role) == ["chemist"]
    assert (settings.by_role["chemist"].size, settings.by_role["chemist"].concurrency) == (3, 2)


def test_pool_that_scales_by_itself_begins_as_small_as_it_may_be() -> None:
    few = Autoscale(min_size=2, max_size=4)
    none = Autoscale(min_size=0, max_size=4)

    assert PoolConfig(name="crew", autoscale=few).crew == ["research assistant"] * 2
    assert config(roles={"chemist": {"autoscale": none}, "historian": 1}).crew == ["historian"]
    assert config(size=3, autoscale=few).crew == ["research assistant"] * 3
    assert config(roles={"chemist": 0}, autoscale=none).crew == []


def test_defaults_are_those_of_the_contract() -> None:
    settings = config()

    assert (settings.concurrency, settings.memory, settings.routing) == (1, "task", "round_robin")
    assert (settings.turn_timeout, settings.start_timeout) == (600.0, 120.0)
    assert (settings.max_pending, settings.mailbox_limit) == (100_000, None)
    assert (settings.max_turns_per_task, settings.parse_attempts) == (50, 3)
    assert (settings.namespace, settings.detached) == ("raypool", False)
    assert settings.retry == RetryPolicy(
        max_attempts=4, max_deaths=3, initial_seconds=0.5, max_seconds=60.0
    )


def test_whole_seconds_are_seconds_too() -> None:
    assert config(turn_timeout=5).turn_timeout == 5.0


def test_options_may_be_given_in_their_order() -> None:
    autoscale: Any = Autoscale

    assert autoscale(1, 4, up_delay=2.0) == Autoscale(min_size=1, max_size=4, up_delay=2.0)
    with pytest.raises(ValueError, match="max_size must be at least min_size"):
        autoscale(4, 1)


@pytest.mark.parametrize(
    ("given", "named"), [((1,), {"min_size": 1}), ((1, 2, 3.0, 4.0, 5.0, 6.0), {})]
)
def test_option_that_is_given_twice_or_is_too_many_is_refused(
    given: tuple[float, ...], named: dict[str, Any]
) -> None:
    autoscale: Any = Autoscale

    with pytest.raises(TypeError, match="Autoscale takes each of min_size, max_size, "):
        autoscale(*given, **named)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().size = 4


def test_settings_survive_pickling() -> None:
    settings = config(retry=RetryPolicy(max_attempts=2), worker_resources={"num_cpus": 1})

    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "max_attempts must be greater than or equal to 1, got 0"),
        ({"max_deaths": 0}, "max_deaths must be greater than or equal to 1, got 0"),
        ({"initial_seconds": 0}, "initial_seconds must be greater than 0, got 0"),
        ({"max_seconds": -1.0}, "max_seconds must be greater than 0, got -1.0"),
        ({"attempts": 3}, "there is no option 'attempts'"),
    ],
)
def test_wrong_retry_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        RetryPolicy(**options)

    assert str(raised.value) == message


def test_workers_fit_anywhere_unless_told_otherwise() -> None:
    assert check_resources(None) == {"num_cpus": 0}
    assert check_resources({"memory": 300e6}) == {"num_cpus": 0, "memory": 300e6}
    assert check_resources({"num_cpus": 0.25}) == {"num_cpus": 0.25}


@pytest.mark.parametrize(
    ("resources", "error", "message"),
    [
        (["num_cpus"], TypeError, r"worker_resources must be a mapping, got \['num_cpus'\]"),
        ({"cpus": 1}, ValueError, "worker_resources must name num_cpus, .*, got 'cpus'"),
        ({"name": "x"}, ValueError, "got 'name'"),
    ],
)
def test_resources_that_ray_does_not_have_are_refused(
    resources: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_resources(resources)


@pytest.mark.parametrize(
    ("known", "size", "roles", "message"),
    [
        (("expert",), None, None, "scale takes a size or roles, and not both"),
        (("expert",), 3, {"expert": 3}, "scale takes a size or roles, and not both"),
        (("expert",), -1, None, "size must be a number of workers, 0 or more, got -1"),
        (("expert",), 2.5, None, "size must be a number of workers, 0 or more, got 2.5"),
        (("expert",), True, None, "size must be a number of workers, 0 or more, got True"),
        (
            ("historian", "chemist"),
            3,
            None,
            "scale must be told of which role: the pool has chemist, historian; "
            "scale(roles={'historian': 3}) scales one",
        ),
        (
            ("historian", "chemist"),
            None,
            {"poet": 1},
            "roles must name roles that the pool has (chemist, historian), got 'poet'",
        ),
        (
            ("historian", "chemist"),
            None,
            {"chemist": -2},
            "roles['chemist'] must be a number of workers, 0 or more, got -2",
        ),
        (("expert",), None, {}, "roles must name how many workers of which role, got {}"),
        (("expert",), None, 3, "roles must name how many workers of which role, got 3"),
    ],
)
def test_wrong_size_to_scale_to_is_refused(
    known: tuple[str, ...], size: Any, roles: Any, message: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        checked_sizes(known, size, roles)

    assert str(raised.value) == message


def test_size_to_scale_to_is_of_the_only_role_or_of_those_that_are_named() -> None:
    assert checked_sizes(("expert",), 0, None) == {"expert": 0}
    assert checked_sizes(("expert",), None, {"expert": 3}) == {"expert": 3}
    assert checked_sizes(("historian", "chemist"), None, {"chemist": 4}) == {"chemist": 4}
