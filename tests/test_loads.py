"""Which of many has the fewest: by count, and among equals in rotation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raypool.loads import Loads

loads = st.integers(0, 5)


@given(st.lists(loads, min_size=1, max_size=8), st.data())
def test_the_first_with_the_fewest_is_found_from_any_place_on(
    counts: list[int], data: st.DataObject
) -> None:
    kept = Loads(counts)
    for _ in range(20):
        start = data.draw(st.integers(0, len(counts)))
        rotation = [*range(start, len(counts)), *range(start)]
        assert kept.place_of_fewest(start) == min(rotation, key=lambda place: counts[place])

        place = data.draw(st.integers(0, len(counts) - 1))
        counts[place] = data.draw(loads)
        kept.change(place, counts[place])
