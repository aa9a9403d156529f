"""The `raypool` command: parses arguments, calls a pool, prints."""

from __future__ import annotations

import click

from raypool.cli.ask import ask_command
from raypool.cli.run import run_command

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raypool")
def main() -> None:
    """A pool of long-lived LLM agents on Ray."""


main.add_command(ask_command)
main.add_command(run_command)
