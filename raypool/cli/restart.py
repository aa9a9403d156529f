"""`--restart`: what earlier runs have left is kept under other names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

_PARTS = ("", "-wal", "-shm")
"""What the files of a database are called beside their name."""


def move_aside(paths: Sequence[Path]) -> list[str]:
    """Give those of `paths` that exist the first number that is free for all: `out.jsonl.1`.

    Raises:
        OSError: one cannot be moved.
    """
    for number in itertools.count(1):
        moves = [
            (Path(f"{path}{part}"), Path(f"{path}.{number}{part}"))
            for path in paths
            for part in _PARTS
            if Path(f"{path}{part}").exists()
        ]
        if not any(new.exists() for _, new in moves):
            break
    for old, new in moves:
        old.rename(new)
    return [str(new) for _, new in moves if not str(new).endswith(_PARTS[1:])]
