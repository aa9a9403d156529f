"""A desk for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.desk import Desk


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Desk:
    desk = Desk(tmp_path, capfd)
    (tmp_path / ".stdout").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("raypool.cli.job.start_pool", desk.start_pool)
    monkeypatch.setattr("raypool.cli.run.take_stdout", desk.take_stdout)
    return desk
