"""Twenty kills at random moments: no answer is lost, none comes twice, no turn runs needlessly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.rounds import run


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, seed: int) -> None:
    verdict = run(tmp_path / "round", kills=4, tasks=120, seed=seed)

    assert verdict.kills.total() >= 4
    assert verdict.is_clean, verdict
