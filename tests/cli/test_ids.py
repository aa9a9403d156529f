"""Ids of rows: one each, in few bytes, the same when they are read again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raypool.cli.ids import HashTable, Ids, hash_of


@given(st.lists(st.integers(1, 40)))
def test_table_finds_what_was_put_where_it_was_put(numbers: list[int]) -> None:
    table = HashTable()
    model: dict[int, int] = {}
    for number in numbers:
        assert table.find(number) == model.get(number)
        if number in model:
            table.put(0)
        else:
            model[number] = len(table)
            table.put(number)

    assert len(table) == len(numbers)
    assert all(table.find(number) == place for number, place in model.items())


def test_table_grows_and_what_was_kept_is_loaded_again() -> None:
    table = HashTable()
    numbers = [hash_of(str(number)) for number in range(20_000)]
    for number in numbers:
        table.put(number)
    data = table.hashes.tobytes()

    loaded = HashTable()
    loaded.load(iter([data[:80_000], data[80_000:]]))

    assert [loaded.find(number) for number in numbers] == list(range(20_000))
    assert loaded.find(hash_of("another")) is None


@given(taken=st.integers(0, 70), others=st.sets(st.integers(1, 80), max_size=5))
def test_free_id_is_free_and_the_next_one_unless_somebody_took_it(
    taken: int, others: set[int]
) -> None:
    ids = Ids()
    for occurrence in range(1, taken + 1):
        ids.take(f"d-{occurrence}")
    for occurrence in others:
        if occurrence > taken:
            ids.take(f"d-{occurrence}")

    free = ids.free_id("d")

    assert ids.first_with(free) is None
    if not others:
        assert free == f"d-{taken + 1}"
