"""What is shown while a run goes on: a bar, lines, or nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from raypool.cli.interrupt import Interrupts
from raypool.cli.picture import Picture, Total
from raypool.cli.progress import (
    JsonProgress,
    LiveProgress,
    Progress,
    ProgressLines,
    progress_of,
)
from raypool.cli.tally import Tally


@pytest.fixture
def picture() -> Picture:
    return Picture(Tally(), lambda: Total(10))


class TestProgress:
    def test_lines_are_printed_every_few_seconds_on_stderr(
        self, picture: Picture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with ProgressLines(picture, seconds=0.01) as progress:
            progress.begin("starting 4 workers")
            said = ""
            while "0/10 rows" not in said:
                said += capsys.readouterr().err

        assert said.startswith("raypool: starting 4 workers\n")
        assert "raypool: starting 4 workers · 0/10 rows\n" in said
        assert capsys.readouterr().out == ""

    def test_objects_are_printed_for_programs(
        self, picture: Picture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert isinstance(progress_of(picture, quiet=False, json=True), JsonProgress)
        with JsonProgress(picture, seconds=0.01) as progress:
            progress.begin("starting 4 workers")
            said = ""
            while "progress" not in said:
                said += capsys.readouterr().err
        first, second, *_ = [json.loads(line) for line in said.splitlines()]

        assert first == {"event": "phase", "phase": "starting 4 workers"}
        assert (second["rows"], second["total"], second["total_is_exact"]) == (0, 10, True)
        assert (second["cost_usd"], second["unpriced"]) == (0.0, 0)

    def test_bar_shows_the_picture_and_leaves_nothing_behind(self, picture: Picture) -> None:
        terminal = io.StringIO()
        console = Console(file=terminal, force_terminal=True, width=60)
        with LiveProgress(picture, console) as progress:
            progress.begin("starting")

        assert "0/10 rows" in terminal.getvalue()
        assert terminal.getvalue().endswith("\x1b[2K")

    def test_bar_fits_into_a_narrow_terminal(self, picture: Picture) -> None:
        terminal = io.StringIO()
        picture.phase = "stopping after the running turns, Ctrl-C again stops now"
        with LiveProgress(picture, Console(file=terminal, force_terminal=True, width=40)):
            pass

        assert "…" in terminal.getvalue()
        assert "Ctrl-C again stops now" not in terminal.getvalue()

    def test_output_that_is_no_terminal_has_lines_and_quiet_has_nothing(
        self, picture: Picture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stderr", io.StringIO())

        assert isinstance(progress_of(picture, quiet=False), ProgressLines)
        assert type(progress_of(picture, quiet=True)) is Progress


class Stopped:
    """A pool that remembers how it was told to stop."""

    def __init__(self) -> None:
        self.graces: list[float] = []
        self.was_told = threading.Semaphore(0)

    def stop(self, *, grace: float = 0.0) -> None:
        self.graces.append(grace)
        self.was_told.release()


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts(Progress()) as interrupts:
        yield interrupts


class TestInterrupts:
    def test_signal_before_there_is_a_pool_ends_what_runs(self, interrupts: Interrupts) -> None:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)

        assert interrupts.count == 1

    def test_first_signal_stops_cleanly_and_the_second_at_once(
        self, interrupts: Interrupts
    ) -> None:
        pool, has_stopped_reading = Stopped(), threading.Event()
        interrupts.watch(pool, has_stopped_reading.set)

        os.kill(os.getpid(), signal.SIGINT)
        assert pool.was_told.acquire(timeout=10)
        os.kill(os.getpid(), signal.SIGTERM)
        assert pool.was_told.acquire(timeout=10)

        assert pool.graces == [30.0, 0.0]
        assert has_stopped_reading.is_set()
        assert interrupts.count == 2
