"""Kills at every kind of moment: no answer is lost, none comes twice, no turn runs needlessly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import line, tables
from tests.chaos.rounds import play
from tests.chaos.stage import VICTIMS

ROUNDS = 3 * len(VICTIMS)
SEED = 8


@pytest.mark.timeout(1_800)
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    verdicts = list(play(tmp_path, rounds=ROUNDS, seed=SEED))

    print(tables(verdicts))
    assert [line(number, one) for number, one in enumerate(verdicts) if not one.is_clean] == []
    assert sum(one.kills for one in verdicts) >= 20
    assert {one.victim for one in verdicts if one.kills} == set(VICTIMS)
