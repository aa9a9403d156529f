"""Where the lines go: a stream, or a file that can be continued."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from raypool.cli.lines import BAD_ROW
from raypool.cli.problem import Problem
from raypool.cli.rows import request_digest
from raypool.cli.streams import write_whole
from raypool.cli.written import Written


class OutputLost(Exception):
    """Raised when an output can no longer be written: a full disk, a closed pipe."""


class Output:
    """Lines, each written whole; any thread may write."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write one line.

        Raises:
            OutputLost: says why it cannot be written.
        """
        try:
            with self._lock:
                write_whole(self._descriptor, line)
        except BrokenPipeError:
            raise OutputLost(f"nobody reads {self._name} any more") from None
        except OSError as error:
            raise OutputLost(f"cannot write {self._name}: {error.strerror}") from error

    @property
    def size(self) -> int:
        """Its bytes."""
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Have the disk keep what was written.

        Raises:
            OutputLost: it does not.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise OutputLost(f"cannot write {self._name}: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._descriptor)


class OutputFile(Output):
    """An output that a later run can continue; one run at a time has it.

    Raises:
        Problem: it cannot be written, or another run has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._is_new = not path.exists()
        self._name = str(path)
        with self._writing():
            super().__init__(_open(self.path, os.O_CREAT), self._name)
        self._claim(self._descriptor)
        self._former: list[int] = []
        self._was_empty = self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been written yet."""
        return self.size == 0

    def agree(self, *, drop_failed: bool = False) -> Written:
        """Leave the whole lines of rows that have ended, each once, and say which they are.

        A torn last line is cut off. Lines of bad rows go, since the input may
        have been mended; `drop_failed` drops those of failed rows too. What is
        dropped leaves in one step: whoever looks sees all of it or none.

        Raises:
            Problem: the file has lines that are not raypool's, or cannot be written.
        """
        with self._writing():
            scan = _Scan(self._name, drop_failed=drop_failed)
            with self.path.open("rb") as stream:
                end = scan.read(stream)
            os.ftruncate(self._descriptor, end)
            if 0 in scan.stays:
                self._replace(scan.stays)
        return scan.written

    def agree_after(self, size: int) -> Written | None:
        """Do the same with the lines after the first `size` bytes, which stay as they are.

        `None` when the file does not have so many, or no line ends there.

        Raises:
            Problem: as `agree`.
        """
        with self._writing(), self.path.open("rb") as stream:
            if size:
                stream.seek(size - 1)
                if stream.read(1) != b"\n":
                    return None
            scan = _Scan(self._name)
            end = scan.read(stream)
            stream.seek(size)
            tail = stream.read(end)
            kept = [
                line
                for line, stays in zip(tail.splitlines(keepends=True), scan.stays, strict=True)
                if stays
            ]
            os.ftruncate(self._descriptor, size)
            for line in kept:
                write_whole(self._descriptor, line)
        return scan.written

    def failed_lines(self, start: int = 0) -> Iterator[bytes]:
        """The lines with an error, from the byte `start` on.

        Raises:
            OSError: it cannot be read.
        """
        with self.path.open("rb") as stream:
            stream.seek(start)
            decode = msgspec.json.Decoder(_Line).decode
            for line in stream:
                if b'"error"' in line and decode(line).error:
                    yield line

    def discard(self) -> None:
        """Leave the file as it was found, provided that it was new or empty."""
        if self._is_new or self._was_empty:
            os.ftruncate(self._descriptor, 0)
        if self._is_new:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another run have the file."""
        for descriptor in self._former:
            os.close(descriptor)
        super().close()

    def _replace(self, stays: bytearray) -> None:
        temporary = self.path.with_name(f"{self.path.name}.new")
        descriptor = _open(temporary, os.O_CREAT | os.O_TRUNC)
        self._claim(descriptor)
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
        with self.path.open("rb") as old, os.fdopen(os.dup(descriptor), "wb") as new:
            new.writelines(line for line, is_kept in zip(old, stays, strict=True) if is_kept)
        os.fsync(descriptor)
        temporary.replace(self.path)
        self._former.append(self._descriptor)
        self._descriptor = descriptor

    def _claim(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Problem(f"another raypool run is writing {self._name}") from None
        except OSError:
            return  # a file system without locks: nothing can be promised there

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Problem(f"cannot write {self._name}: {error.strerror}") from error


def _open(path: Path, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | flags, 0o666)


class _Line(msgspec.Struct):
    """What tells one line of an output from another."""

    id: Any = None
    prompt: Any = None
    messages: Any = None
    error: dict[str, Any] | None = None


class _Scan:
    """One reading of lines of an output.

    Attributes:
        written: the rows whose lines stay.
        stays: of every whole line whether it stays, in a byte.
    """

    def __init__(self, name: str, *, drop_failed: bool = False) -> None:
        self.written = Written()
        self.stays = bytearray()
        self._name = name
        self._drop_failed = drop_failed
        self._decode = msgspec.json.Decoder(_Line).decode

    def read(self, stream: BinaryIO) -> int:
        """Note every line; how many bytes the whole ones have."""
        length = 0
        for line in stream:
            if not line.endswith(b"\n"):
                break
            length += len(line)
            self.stays.append(self._note(self._parsed(line)))
        return length

    def _parsed(self, line: bytes) -> _Line:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            parsed = self._decode(line)
            if parsed.id is not None or parsed.error is not None:
                return parsed
        raise Problem(
            f"line {len(self.stays) + 1} of {self._name} is not one that raypool wrote; "
            "choose another output (-o), or take the line out"
        )

    def _note(self, line: _Line) -> bool:
        """Whether the line stays."""
        is_bad = line.error is not None and line.error.get("type") == BAD_ROW
        if is_bad or (line.error and self._drop_failed):
            return False
        asked = line.messages if line.prompt is None else line.prompt
        return self.written.add(str(line.id), request_digest(asked), failed=bool(line.error))
