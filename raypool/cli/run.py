"""`raypool run`: every row of an input, answered."""

from __future__ import annotations

import sys
from typing import Any

import click

from raypool.cli.dry_run import dry_run
from raypool.cli.inputs import open_inputs
from raypool.cli.job import Job, rows_of
from raypool.cli.options import PoolOptions, make_backend, pool_options
from raypool.cli.problem import ANSWERED
from raypool.cli.rows import RowReader
from raypool.cli.run_options import RunOptions, run_options
from raypool.cli.saying import say_json
from raypool.cli.streams import take_stdout
from raypool.cli.target import Target, files_of


@click.command("run")
@run_options
@pool_options
def run_command(**options: Any) -> None:
    """Answer every row of INPUT, one line of OUTPUT each, as they complete.

    INPUT is JSON lines (.jsonl, .ndjson), CSV, TSV, Parquet, or text with a
    prompt a line; several, a quoted pattern as 'data/*.jsonl', or - for stdin.
    A row has a "prompt" or "messages" and perhaps an "id", or is a request for
    OpenAI's or Anthropic's batch API ("custom_id" and "body" or "params")
    whose model, max_tokens and system prompt are those of this command.
    --prompt-column, --template or --mapper make prompts of other columns.

    A line of OUTPUT has the row's id and fields, and then text, worker, model,
    stop_reason, usage, cost_usd, duration_ms, attempts and perhaps parsed, or
    the error (type, message). A field of the row by one of these names is kept
    as input_NAME. Rows with an error are in OUTPUT.failed.jsonl too, which can
    be an INPUT.

    The same command run again finishes what is unfinished and repeats nothing.
    Exit status: 0 all rows answered, 1 some failed, 2 wrong usage, 130
    interrupted.
    """
    pool_given, given = _split(options)
    try:
        status = _run(pool_given, given)
    except click.ClickException as error:
        if not given.json:
            raise
        say_json("trouble", message=error.format_message())
        status = error.exit_code
    sys.exit(status)


def _run(pool_given: PoolOptions, given: RunOptions) -> int:
    pool_given.check()
    given.check()
    stdout = take_stdout()
    inputs = open_inputs(given.inputs, given.row_format, files_of(given.output or ""))
    output_type = given.answer_type()
    backend = make_backend(pool_given)
    question = given.question(pool_given.terms(backend))
    reader = RowReader(inputs, question, limit=given.limit)
    reader.check()
    if given.dry_run:
        rows = rows_of(reader, given)
        dry_run(rows, pool_given, backend, output_type, is_json=given.json)
        return ANSWERED
    settings = {
        **pool_given.settings(backend),
        **question.settings(),
        "output_type": output_type and output_type.digest,
    }
    target = Target(
        given.output or "",
        given.ledger,
        stdout,
        is_rendered=given.is_rendered,
        restart=given.restart,
    )
    with target:
        job = Job(reader, target, pool_given, backend, given=given, output_type=output_type)
        return job.run(settings)


def _split(options: dict[str, Any]) -> tuple[PoolOptions, RunOptions]:
    own = {name: options.pop(name) for name in RunOptions.__struct_fields__}
    return PoolOptions(**options), RunOptions(**own)
