"""A process that removes the temporary files of a program's pools once the program is gone.

It is this file, run by a bare Python that finds only the standard library. Its standard input
is a pipe whose other end the program has: through it come the directories, and its end tells
that the program has ended, however that came about.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

LEDGER = "ledger.db"
PREFIX = "raypool-"

_NAME = re.compile(rf"{PREFIX}\w{{8}}", re.ASCII)
_FILES = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm")
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 600.0


def is_temporary(directory: Path) -> bool:
    """Whether this is a directory of ours, made for a temporary ledger, with nothing else in it."""
    try:
        status = directory.lstat()
        is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        return (
            is_own
            and _NAME.fullmatch(directory.name) is not None
            and all(
                path.name in _FILES and stat.S_ISREG(path.lstat().st_mode)
                for path in directory.iterdir()
            )
        )
    except OSError:
        return False


def remove(directory: Path) -> bool:
    """Remove a temporary ledger and its directory, unless a pool has it; whether it is gone."""
    if not is_temporary(directory):
        return True
    held: int | None = None
    try:
        held = _hold(directory / LEDGER)
        for name in _FILES:
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()
    except OSError:
        return False
    finally:
        if held is not None:
            os.close(held)
    return True


def _hold(ledger: Path) -> int | None:
    """The sole use of the ledger as `FileHold` takes it, `None` when there is no such file.

    Raises:
        OSError: a pool has it.
    """
    try:
        descriptor = os.open(ledger, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def claim(directory: Path, *, alone: bool) -> int | None:
    """Have others see that somebody has the directory; `None` when that cannot be.

    A janitor claims what it watches, together with nobody, and a sweep what it removes, `alone`.
    Returns a descriptor; the claim ends when it is closed.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def keep_watch(told: Iterable[bytes]) -> None:
    """Hear of directories, a line each, until the program has ended; then remove them.

    A pool's ledger may be in use for a while longer: its dispatcher ends after its program.
    """
    claims: dict[Path, int | None] = {}
    for line in told:
        directory = Path(os.fsdecode(bytes.fromhex(line.decode())))
        claims[directory] = claim(directory, alone=False)
        _forget_what_is_gone(claims)
    directories = list(claims)
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while directories and time.monotonic() < give_up_at:
        directories = [one for one in directories if not remove(one)]
        time.sleep(_POLL_SECONDS)


def _forget_what_is_gone(claims: dict[Path, int | None]) -> None:
    for directory in [one for one in claims if not one.exists()]:
        descriptor = claims.pop(directory)
        if descriptor is not None:
            os.close(descriptor)


def _run() -> None:
    """Be nobody's child, and deaf, so that what ends a program with its children spares this."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    keep_watch(sys.stdin.buffer)


if __name__ == "__main__":
    _run()
