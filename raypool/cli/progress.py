"""What is said on stderr while a run goes on."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raypool.cli.picture import Picture
from raypool.cli.saying import say_json

SECONDS_BETWEEN_LINES = 5.0
REFRESHES_PER_SECOND = 4.0
BAR_WIDTH = 24


class Progress:
    """Shows nothing; what is shown by others is shown inside their block."""

    def begin(self, phase: str) -> None:
        """Show what goes on besides answering from now on, if anything does; any thread may."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show nothing any more."""


class ProgressLines(Progress):
    """A plain line every few seconds, for logs."""

    def __init__(self, picture: Picture, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self._picture = picture
        self._seconds = seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def begin(self, phase: str) -> None:
        self._picture.phase = phase
        if phase:
            self._say(phase)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._is_over.wait(self._seconds):
            self._say(str(self._picture))

    def _say(self, text: str) -> None:
        print(f"raypool: {text}", file=sys.stderr, flush=True)


class JsonProgress(ProgressLines):
    """A JSON object every few seconds, for programs."""

    def begin(self, phase: str) -> None:
        self._picture.phase = phase
        say_json("phase", phase=phase)

    def _tick(self) -> None:
        while not self._is_over.wait(self._seconds):
            say_json("progress", **self._picture.figures())


class LiveProgress(Progress):
    """A bar at the bottom of a terminal; it leaves nothing behind."""

    def __init__(self, picture: Picture, console: Console) -> None:
        self._picture = picture
        self._live = Live(
            get_renderable=self._bar,
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )

    def begin(self, phase: str) -> None:
        self._picture.phase = phase

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _bar(self) -> RenderableType:
        row = Table.grid(padding=(0, 1))
        row.add_row(
            self._meter(),
            Text(str(self._picture), no_wrap=True, overflow="ellipsis"),
        )
        return row

    def _meter(self) -> ProgressBar:
        total = self._picture.total()
        if total is None:
            return ProgressBar(width=BAR_WIDTH, pulse=True)
        return ProgressBar(total.rows, self._picture.tally.done, BAR_WIDTH)


def progress_of(picture: Picture, *, quiet: bool, json: bool = False) -> Progress:
    """A bar on a terminal, lines elsewhere, or `json`; nothing when it must be `quiet`."""
    if quiet:
        return Progress()
    if json:
        return JsonProgress(picture)
    console = Console(stderr=True)
    return LiveProgress(picture, console) if console.is_terminal else ProgressLines(picture)
