"""Temporary ledgers: where they are, and that none is left behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from raypool import janitor

logger = logging.getLogger(__name__)

STALE_SECONDS = 24 * 3600.0


def make_ledger(*, outlives_program: bool) -> str:
    """Where a new temporary ledger is to be, in a directory of its own.

    Unless it outlives this program, it is removed once the program has ended and no pool has it.
    What pools have left behind that were killed together with all that would have cleared up is
    removed too, after a day.

    Raises:
        OSError: no directory can be made.
    """
    place = Path(tempfile.gettempdir()).absolute()
    sweep(place)
    directory = Path(tempfile.mkdtemp(prefix=janitor.PREFIX, dir=place))
    if not outlives_program:
        _watch.add(directory)
    return str(directory / janitor.LEDGER)


def discard_ledger(path: str) -> None:
    """Remove the temporary ledger of a pool that has not started, or is just being killed."""
    directory = Path(path).parent
    if not janitor.remove(directory):
        _watch.add(directory)


def sweep(place: Path, stale_seconds: float = STALE_SECONDS) -> None:
    """Remove the temporary ledgers in `place` that nobody has used for so long."""
    for directory in place.glob(f"{janitor.PREFIX}*"):
        if janitor.is_temporary(directory) and _age(directory) > stale_seconds:
            claim = janitor.claim(directory, alone=True)
            if claim is not None:
                janitor.remove(directory)
                os.close(claim)


def _age(directory: Path) -> float:
    """Seconds since something in it was last written."""
    written = [directory.stat().st_mtime]
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            written.append(path.stat().st_mtime)
    return time.time() - max(written)


class Watch:
    """What tells this program's janitor of directories; the janitor starts with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._directories: list[Path] = []
        self._pipe: int | None = None

    def add(self, directory: Path) -> None:
        """Have a directory removed when this program has ended."""
        with self._lock:
            self._directories = [one for one in self._directories if one.exists()]
            self._directories.append(directory)
            try:
                self._tell(directory)
            except OSError as error:
                logger.warning(
                    "the temporary files of pools may outlast this program by a day: "
                    "no process can be started that removes them: %s",
                    error,
                )

    def _tell(self, directory: Path) -> None:
        if self._pipe is not None:
            try:
                return _write(self._pipe, [directory])
            except BrokenPipeError:
                os.close(self._pipe)
                self._pipe = None
        self._pipe = _start_janitor()
        return _write(self._pipe, self._directories)


def _write(pipe: int, directories: list[Path]) -> None:
    for directory in directories:
        os.write(pipe, f"{os.fsencode(directory).hex()}\n".encode())


def _start_janitor() -> int:
    """The end of its pipe that is this program's."""
    its_end, our_end = os.pipe()
    try:
        subprocess.run(  # noqa: S603 - it is a file of ours
            [sys.executable, "-I", "-S", janitor.__file__],
            stdin=its_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(our_end)
        raise OSError(f"{error}") from error
    finally:
        os.close(its_end)
    return our_end


_watch = Watch()
