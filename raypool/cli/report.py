"""`raypool report`: a page about what a ledger holds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from raypool.cli.figures import count
from raypool.cli.problem import Problem, in_one_line
from raypool.cli.resume import ledger_beside
from raypool.cli.streams import take_stdout, write_whole
from raypool.errors import LedgerError

STREAM = "-"
SECONDS_BETWEEN_LINES = 5.0
_HEAD_BYTES = 512
_GENERATED = b'<meta name="generator" content="raypool report">'


@click.command("report")
@click.argument("ledger")
@click.option("-o", "--output", required=True, help="Where the page goes; - is stdout.")
@click.option(
    "--content", is_flag=True, help="Show prompts, answers and messages of errors, shortened."
)
def report_command(ledger: str, output: str, *, content: bool) -> None:
    """Make a page about the tasks in LEDGER, to be opened in any browser.

    It shows throughput, latency, tokens and cost by role and model, refusals
    and retries, and the slowest and the failed tasks, 1,000 of each at most.
    The page is one file that loads nothing from anywhere. Prompts and answers
    are left out without --content.

    LEDGER is a pool's, or that of a run: answers.jsonl.ledger beside
    answers.jsonl. A pool may be working with it.
    """
    from raypool.report import gather, render  # noqa: PLC0415 - --help must not wait for it

    stdout = take_stdout()
    if output != STREAM:
        _check_output(Path(output))
    path = _path(ledger)
    with in_one_line(LedgerError, hint=_hint(path)):
        figures = gather(path, content=content, on_progress=_Progress())
    page = render(figures)
    if output == STREAM:
        _write(page, stdout)
    else:
        _replace(Path(output), page)
        tasks = count(figures.totals.last_number, "task")
        print(f"raypool: {output} tells of {tasks}", file=sys.stderr)


class _Progress:
    """Says every few seconds how far the reading is."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            print(f"raypool: read {done:,} of {total:,}", file=sys.stderr, flush=True)


def _path(ledger: str) -> Path:
    """The file, unless it is the address of a database; that may have a password, and is not said.

    Raises:
        Problem: it is an address.
    """
    if "://" in ledger:
        raise Problem("a report is made of a ledger in a file; give the path of one")
    return Path(ledger)


def _hint(ledger: Path) -> str:
    """The ledger of a run, where its output was named."""
    if not ledger.is_file():
        return ""
    beside = ledger_beside(ledger)
    return f" (perhaps {beside})" if beside.is_file() else ""


def _check_output(path: Path) -> None:
    """Refuse to write over what is no report.

    Raises:
        Problem: says so.
    """
    if not path.exists() or _is_stream(path):
        return
    with _writing(path), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head and _GENERATED not in head:
        raise Problem(f"{path} is not a report and stays as it is; choose another output (-o)")


def _replace(path: Path, page: bytes) -> None:
    """Write the whole page or nothing of it."""
    with _writing(path):
        if _is_stream(path):
            path.write_bytes(page)
            return
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            new.write_bytes(page)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether it is a pipe or a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from error


def _write(page: bytes, descriptor: int) -> None:
    try:
        write_whole(descriptor, page)
    except BrokenPipeError:
        raise Problem("nobody reads stdout any more") from None
    except OSError as error:
        raise Problem(f"cannot write stdout: {error.strerror}") from error
