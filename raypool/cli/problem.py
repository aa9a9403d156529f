"""How the command says that it cannot do what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

ANSWERED, SOME_FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
"""What the command's exit status means."""


class Problem(click.ClickException):
    """One line on stderr, and the exit status of wrong usage."""

    exit_code = WRONG_USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"raypool: {self.format_message()}", file=file, err=file is None)


@contextmanager
def in_one_line(*errors: type[Exception], hint: str = "") -> Iterator[None]:
    """Turn the expected `errors` into a `Problem`; any other is a defect, with its traceback.

    `hint` follows what the error says: what to type here instead.
    """
    try:
        yield
    except errors as error:
        raise Problem(f"{str(error) or type(error).__name__}{hint}") from error
