"""The benchmark still runs; its figures are for people to read."""

from __future__ import annotations

import pytest

from tests.benchmarks import measure
from tests.benchmarks.groups import Sizes, groups


@pytest.mark.timeout(300)
def test_every_scenario_gives_a_figure(local_ray: None) -> None:
    figures = []
    for group in groups(Sizes.scaled(0.002)):
        with group as prepared:
            figures += [measure.run(scenario, rounds=1, warm_ups=0) for scenario in prepared]

    assert len(figures) == 16
    assert all(one.raypool > 0 for one in figures)
    assert [one.scenario.unit for one in figures if one.ratio is None] == [
        "ms",
        "tasks/s",
        "MB",
        "outcomes/s",
        "s",
    ]
    measure.show(figures, rounds=1)
