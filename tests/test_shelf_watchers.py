"""Who waits for what is shelved: as exact as a list for each task, and much smaller."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from raypool.shelf_watchers import ShelfWatchers

clients = st.sampled_from(["mine", "yours"])
puts = st.tuples(
    st.sampled_from([1, 1, 1, 2, 5]), clients, st.sampled_from([0, 0, 1, 7]), st.booleans()
)
looks = st.tuples(st.integers(0, 400), clients, st.integers(0, 60), st.booleans())


def filled(*numbers: int, client: str = "mine", offset: int = 0) -> ShelfWatchers:
    watchers, after = ShelfWatchers(), 0
    for number in numbers:
        watchers.add(number, (client, number + offset), after=after)
        after = number
    return watchers


def test_consecutive_tasks_of_a_client_are_one_entry() -> None:
    watchers = filled(*range(1, 10_001))

    assert len(watchers) == 1
    assert watchers.of(5_000) == ([("mine", 5_000)], False)


def test_every_other_task_of_a_client_is_one_entry_too() -> None:
    watchers = filled(*range(1, 10_001, 2), offset=100)

    assert len(watchers) == 1
    assert watchers.of(5_001) == ([("mine", 5_101)], False)


def test_clients_that_take_turns_are_told_apart() -> None:
    watchers = ShelfWatchers()
    watchers.add(1, ("mine", 1), after=0)
    watchers.add(2, ("yours", 1), after=1)
    watchers.add(3, ("mine", 2), after=2)

    assert [watchers.of(n)[0] for n in (1, 2, 3)] == [[("mine", 1)], [("yours", 1)], [("mine", 2)]]


def test_task_without_a_watcher_before_the_new_ones_has_none() -> None:
    watchers = ShelfWatchers()
    watchers.watch(10, ("mine", 3))
    watchers.add(31, ("mine", 24), after=30)

    assert watchers.of(20) == ([], False)


def test_watching_twice_is_watching_once() -> None:
    watchers = filled(1, 2, 3)

    for _ in range(2):
        watchers.watch(2, ("mine", 2))
        watchers.watch(2, ("yours", 9))

    assert watchers.of(2) == ([("mine", 2), ("yours", 9)], False)


def test_client_that_comes_back_watches_its_tasks_in_one_entry() -> None:
    watchers = ShelfWatchers()

    for number in range(1, 2_001):
        watchers.watch(number, ("mine", number + 7))

    assert len(watchers) == 1
    assert watchers.of(1_000) == ([("mine", 1_007)], False)


def test_what_has_been_read_is_forgotten() -> None:
    watchers = filled(1, 2, 3)
    watchers.add(4, ("yours", 1), after=3)
    watchers.watch(1, ("yours", 7), streams=True)

    watchers.forget_up_to(3)

    assert len(watchers) == 1
    assert watchers.of(4) == ([("yours", 1)], False)


@given(
    inherited=st.sets(st.integers(1, 50)),
    first_looks=st.lists(looks, max_size=12),
    puts=st.lists(puts, max_size=20),
    last_looks=st.lists(looks, max_size=12),
    read_to=st.integers(0, 60),
)
def test_each_task_has_the_watchers_that_were_added_for_it(
    inherited: set[int],
    first_looks: list[tuple[int, str, int, bool]],
    puts: list[tuple[int, str, int, bool]],
    last_looks: list[tuple[int, str, int, bool]],
    read_to: int,
) -> None:
    watchers, numbers, last = ShelfWatchers(), sorted(inherited), 50
    expected: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    streamed: set[int] = set()

    def look(looks: list[tuple[int, str, int, bool]]) -> None:
        for choice, client, ticket, streams in looks:
            if numbers:
                number = numbers[choice % len(numbers)]
                watchers.watch(number, (client, ticket), streams=streams)
                expected[number].add((client, ticket))
                streamed.update([number] * streams)

    look(first_looks)
    for step, client, offset, streams in puts:
        number = last + step
        watchers.add(number, (client, number + offset), after=last, streams=streams)
        expected[number].add((client, number + offset))
        streamed.update([number] * streams)
        numbers.append(number)
        last = number
    look(last_looks)
    watchers.forget_up_to(read_to)

    for number in numbers:
        if number > read_to:
            found, streams = watchers.of(number)
            assert len(found) == len(set(found))
            assert set(found) == expected[number]
            assert streams == (number in streamed)
