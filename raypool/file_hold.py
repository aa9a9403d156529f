"""The sole use of a file, between processes and within one."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path
from typing import ClassVar

from raypool.errors import LedgerError


class InUse(LedgerError):
    """Another pool has the file."""


class FileHold:
    """The sole use of a file, made when it is missing, until `release` or the process's end.

    It is a `flock` on a descriptor of its own: others can still read the file, and SQLite's own
    locks, which are POSIX locks, do not meet it. A process that closes any descriptor of a file
    loses its POSIX locks on it, so a hold is released after SQLite's connections are closed, and
    a file that this process holds already is refused before it is opened.

    Raises:
        InUse: another pool has the file.
        LedgerError: it is not a regular file.
        OSError: the file cannot be opened.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _held: ClassVar[set[tuple[int, int]]] = set()

    def __init__(self, path: Path) -> None:
        with self._lock:
            if path.exists() and _identity(path.stat()) in self._held:
                raise _in_use(path)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._file = self._take(path)
            except BaseException:
                os.close(self._descriptor)
                raise
            self._held.add(self._file)

    def _take(self, path: Path) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LedgerError(f"the ledger {str(path)!r} is not a regular file: give another path")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path) from None
        return _identity(status)

    def first_bytes(self, count: int) -> bytes:
        """The first `count` bytes of the file, fewer when it is shorter."""
        return os.pread(self._descriptor, count, 0)

    def release(self) -> None:
        """Let others hold the file."""
        with self._lock:
            os.close(self._descriptor)
            self._held.remove(self._file)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _in_use(path: Path) -> InUse:
    return InUse(
        f"the ledger {str(path)!r} is in use by another pool: connect to that pool, stop it, "
        "or give another path"
    )
