"""The benchmark still runs; its figures are for people to read."""

from __future__ import annotations

from tests.benchmarks import measure
from tests.benchmarks.scenarios import Sizes, scenarios


def test_every_scenario_gives_a_figure(local_ray: None) -> None:
    with scenarios(Sizes.scaled(0.002)) as prepared:
        figures = [measure.run(scenario, rounds=1) for scenario in prepared]

    assert len(figures) == 4
    assert all(one.raypool > 0 for one in figures)
    assert [one.ratio is None for one in figures] == [False, False, False, True]
    measure.show(figures, rounds=1)
