"""Whose task is next: priorities, and each tenant's share."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from raypool.accounts import SWEEP_AT, Accounts
from raypool.line import Line
from raypool.records import AcceptedTask
from raypool.task_record import TaskRecord

tenants = st.sampled_from(["ann", "bob", "cid"])


def record(number: int, tenant: str | None = None, priority: int = 0) -> TaskRecord:
    task = AcceptedTask(number, f"task-{number}", "why?", tenant=tenant, priority=priority)
    return TaskRecord(task)


def line_of(*tenants: str, weights: dict[str, float] | None = None) -> Line:
    """A line with a task of each of these tenants, numbered from 1."""
    line = Line(Accounts(weights))
    for number, tenant in enumerate(tenants, start=1):
        line.add(record(number, tenant))
    return line


def take(line: Line, count: int) -> list[str | None]:
    """Whose the next tasks are, taken one by one."""
    return [line.take(1)[0].task.tenant for _ in range(count)]


def test_higher_priority_goes_first_and_equal_ones_by_number() -> None:
    line = Line()
    for number, priority in enumerate([0, 5, -1, 5, 0], start=1):
        line.add(record(number, priority=priority))

    assert [one.number for one in line.take(5)] == [2, 4, 1, 5, 3]


def test_tenant_with_few_tasks_does_not_wait_for_one_with_many() -> None:
    line = line_of(*["big"] * 1000, *["small"] * 3)

    assert take(line, 8).count("small") == 3


def test_shares_go_by_weights() -> None:
    line = line_of(*["big", "small"] * 300, weights={"big": 3.0})

    assert Counter(take(line, 200)) == {"big": 150, "small": 50}


def test_tenant_that_was_away_has_saved_nothing() -> None:
    line = line_of(*["ann", "bob"] * 2, *["ann"] * 400)
    take(line, 200)
    for number in range(1000, 1100):
        line.add(record(number, "bob"))

    assert take(line, 20).count("bob") == 10


def test_cancelled_tasks_cost_their_tenant_nothing() -> None:
    line = line_of(*["ann"] * 100)
    cancelled = [record(number, "bob") for number in range(200, 300)]
    for one in cancelled:
        line.add(one)
    for one in cancelled:
        one.has_ended = True
        line.discard(one)
    line.add(record(300, "bob"))

    assert "bob" in take(line, 2)


def test_shares_are_those_of_the_pool_and_not_of_each_line() -> None:
    accounts = Accounts()
    first, second = Line(accounts), Line(accounts)
    for number in range(1, 101):
        first.add(record(number, "ann"))
    for number in range(101, 201):
        second.add(record(number, "ann"))
        second.add(record(number + 100, "bob"))
    first.take(50)

    assert take(second, 50) == ["bob"] * 50


def test_accounts_of_tenants_that_are_gone_are_dropped() -> None:
    accounts = Accounts()
    line = Line(accounts)
    for number in range(3 * SWEEP_AT):
        line.add(record(number, f"user-{number}"))
        line.take(1)

    assert len(accounts) <= 2 * SWEEP_AT


@given(
    st.lists(tenants, min_size=1, max_size=60),
    st.fixed_dictionaries({"ann": st.sampled_from([0.5, 1.0, 2.0, 5.0])}),
)
def test_tenants_that_wait_have_been_served_the_same_but_for_a_task_of_each(
    arrivals: list[str], weights: dict[str, float]
) -> None:
    line = line_of(*arrivals, weights=weights)
    left, served = Counter(arrivals), Counter[str]()
    cost = {tenant: 1 / weights.get(tenant, 1.0) for tenant in left}

    for _ in arrivals:
        [tenant] = take(line, 1)
        assert tenant is not None
        left[tenant] -= 1
        served[tenant] += 1
        waiting = [one for one in left if left[one]]
        for one in waiting:
            for other in waiting:
                ahead = served[one] * cost[one] - served[other] * cost[other]
                assert ahead <= cost[one] + cost[other] + 1e-9


@given(st.lists(st.tuples(st.integers(-2, 2), tenants), max_size=40), st.integers(1, 7))
def test_whatever_the_priorities_and_tenants_nothing_is_lost_and_the_order_is_kept(
    asked: list[tuple[int, str]], count: int
) -> None:
    line = Line()
    for number, (priority, tenant) in enumerate(asked):
        line.add(record(number, tenant, priority))

    taken: list[TaskRecord] = []
    while some := line.take(count):
        taken += some

    assert sorted(one.number for one in taken) == list(range(len(asked)))
    priorities = [one.task.priority for one in taken]
    assert priorities == sorted(priorities, reverse=True)
    for key in set(asked):
        numbers = [one.number for one in taken if (one.task.priority, one.task.tenant) == key]
        assert numbers == sorted(numbers)
