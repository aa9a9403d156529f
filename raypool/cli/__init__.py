"""The `raypool` command: parses arguments, calls a pool, prints."""

from __future__ import annotations

import sys
from typing import Any

import click

from raypool.cli.ask import ask_command
from raypool.cli.interrupt import leave_at_once
from raypool.cli.problem import INTERRUPTED
from raypool.cli.report import report_command
from raypool.cli.run import run_command
from raypool.cli.stop import stop_command

__all__ = ["main"]


class _Commands(click.Group):
    """Ends with the exit status of an interruption when Ctrl-C finds nothing to be saved."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Be what this process is for; `main` is for those who have more to do in it."""
        try:
            return super().__call__(*args, **kwargs)
        finally:
            leave_at_once()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raypool")
def main() -> None:
    """A pool of long-lived LLM agents on Ray."""


main.add_command(ask_command)
main.add_command(report_command)
main.add_command(run_command)
main.add_command(stop_command)
