"""`OUTPUT.failed.jsonl`: the rows that have an error, as an input for another run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from raypool.cli.lines import input_line
from raypool.cli.problem import Problem
from raypool.cli.streams import write_whole


class FailedFile:
    """The rows of an output whose lines have an error; there is none while no row failed.

    `is_rendered` says that the run makes its prompts of the rows' fields.
    """

    def __init__(self, output: Path, *, is_rendered: bool) -> None:
        self.path = failed_beside(output)
        self._is_rendered = is_rendered
        self._descriptor: int | None = None

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restore(self, size: int, lines: Iterable[bytes]) -> None:
        """Go back to the first `size` bytes, and add the rows of these lines.

        Raises:
            Problem: it cannot be written.
        """
        try:
            if self.path.exists():
                os.truncate(self.path, size)
            for line in lines:
                self.write(line)
            if not self.size:
                self.close()
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise Problem(f"cannot write {self.path}: {error.strerror}") from error

    def write(self, line: bytes) -> None:
        """Add the row of a line of the output."""
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = os.open(self.path, flags, 0o666)
        write_whole(self._descriptor, input_line(line, is_rendered=self._is_rendered))

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def failed_beside(output: Path) -> Path:
    """Where the failed rows of an output are."""
    return output.with_name(f"{output.name}.failed.jsonl")
