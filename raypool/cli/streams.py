"""File descriptors: results on the real stdout, and nothing else there."""

from __future__ import annotations

import os
import select
import sys

STDOUT, STDERR = 1, 2


def take_stdout() -> int:
    """Keep the real stdout for results and point descriptor 1 at stderr.

    Returns the descriptor that results go to. Whatever prints from now on, this
    process, a library in C or a process started later, prints on stderr.
    """
    sys.stdout.flush()
    results = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    return results


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of `data`.

    Raises:
        OSError: it cannot be written; `BrokenPipeError` when nobody reads any more.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
