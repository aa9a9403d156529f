"""`raypool run`: every row of an input, answered."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import click

from raypool.cli.job import Job
from raypool.cli.options import PoolOptions, make_backend, pool_options
from raypool.cli.rows import Format
from raypool.cli.source import open_source
from raypool.cli.streams import take_stdout
from raypool.cli.target import Target


@click.command("run")
@click.argument("input_name", metavar="INPUT")
@click.option("-o", "--output", required=True, help="Where the results go; - is stdout.")
@click.option(
    "--format",
    "row_format",
    type=click.Choice(["jsonl", "text"]),
    help="What the lines of INPUT are.  [default: by its name; stdin by its first character]",
)
@click.option("--ledger", help="What a later run goes on from.  [default: OUTPUT.ledger]")
@click.option("--retry-failed", is_flag=True, help="Ask the rows that failed once more.")
@click.option("--quiet", is_flag=True, help="Say only what goes wrong.")
@pool_options
def run_command(  # noqa: PLR0917 - click gives an argument for each option
    input_name: str,
    output: str,
    row_format: Format | None,
    ledger: str | None,
    retry_failed: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Answer every row of INPUT, one line of OUTPUT each, as they complete.

    INPUT is JSON lines (.jsonl, .ndjson), each an object with a "prompt" or
    "messages" and perhaps an "id" or "custom_id"; any other file is text, a
    prompt a line; - is stdin. Blank lines are no rows. Each prompt is sent as
    it stands.

    A line of OUTPUT has the row's id and fields, and then text, worker, model,
    stop_reason, usage, cost_usd, duration_ms and attempts, or the error (type,
    message). A field of the row by one of these names is kept as input_NAME.

    The same command run again finishes what is unfinished and repeats nothing.
    Exit status: 0 all rows answered, 1 some failed, 2 wrong usage, 130
    interrupted.
    """
    given = PoolOptions(**options)
    given.check()
    stdout = take_stdout()
    with closing(open_source(input_name, row_format)) as source:
        backend = make_backend(given)
        with Target(output, ledger, stdout) as target:
            job = Job(source, target, given, backend, is_quiet=quiet)
            sys.exit(job.run(retry_failed=retry_failed))
