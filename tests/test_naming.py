"""The names of workers: the lowest free number, and each number one role's."""

from __future__ import annotations

from raypool.naming import Naming, number_of


def test_names_count_from_one() -> None:
    naming = Naming("crew")

    assert [naming.take("chemist") for _ in range(3)] == ["crew-1", "crew-2", "crew-3"]


def test_free_number_is_given_again_and_the_lowest_first() -> None:
    naming = Naming("crew")
    names = [naming.take("chemist") for _ in range(4)]

    for name in (names[2], names[0]):
        naming.give_back(name)

    assert [naming.take("chemist") for _ in range(3)] == ["crew-1", "crew-3", "crew-5"]


def test_number_that_another_role_had_stays_that_roles() -> None:
    naming = Naming("crew")
    naming.give_back(naming.take("chemist"))

    assert naming.take("historian") == "crew-2"
    assert naming.take("chemist") == "crew-1"
    assert naming.by_number == ["chemist", "historian"]
    assert naming.role_of("crew-2") == "historian"


def test_later_run_gives_each_role_the_numbers_that_it_had() -> None:
    had = ["historian", "chemist", "chemist"]

    naming = Naming("crew", had, ["chemist", "historian", "poet"])

    assert [naming.take("chemist") for _ in range(3)] == ["crew-2", "crew-3", "crew-4"]
    assert [naming.take("historian"), naming.take("poet")] == ["crew-1", "crew-5"]


def test_only_role_of_a_pool_may_be_called_otherwise_later() -> None:
    naming = Naming("crew", ["research assistant"] * 2, ["careful research assistant"])

    assert naming.take("careful research assistant") == "crew-1"
    assert naming.by_number == ["careful research assistant"] * 2


def test_number_is_found_in_a_name_that_has_other_numbers() -> None:
    assert number_of("run-2026-11") == 11
