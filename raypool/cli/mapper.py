"""Names of Python objects on the command line, and `--mapper`, a function that makes prompts."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from raypool.cli.question import Asked, Question
from raypool.errors import InvalidTask


class Mapper(Question):
    """A function that takes a row as a dict and gives a prompt, or `None` to leave it out.

    Raises:
        click.UsageError: there is no such function.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._make: Callable[[dict[str, Any]], Any] = imported(name, "--mapper")
        if not callable(self._make):
            raise click.UsageError(f"--mapper: {name} is no function")

    def of(self, fields: dict[str, Any]) -> Asked | None:
        try:
            prompt = self._make(copy.deepcopy(fields))
        except Exception as error:
            raise InvalidTask(f"--mapper {self._name}: {type(error).__name__}: {error}") from error
        if prompt is None:
            return None
        if not isinstance(prompt, str | list):
            kind = type(prompt).__name__
            raise InvalidTask(
                f"--mapper {self._name} must give a text, messages or None, got {kind}"
            )
        return Asked(prompt, fields)

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        """Only the function knows what it needs."""

    def settings(self) -> dict[str, Any]:
        return {"mapper": self._name}


def imported(name: str, option: str) -> Any:
    """The object `pkg.mod:name`, from the current directory or what is installed.

    Raises:
        click.UsageError: there is none.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise click.UsageError(f"{option} must be package.module:name, got {name!r}")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise click.UsageError(
            f"{option}: cannot import {name}: {type(error).__name__}: {error}"
        ) from error
    return found
