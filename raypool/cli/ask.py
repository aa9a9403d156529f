"""`raypool ask`: a few questions, answered here and now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from raypool.cli.budget_watch import BudgetWatch
from raypool.cli.figures import count
from raypool.cli.options import PoolOptions, make_backend, pool_options, start_pool
from raypool.cli.problem import ANSWERED, SOME_FAILED, in_one_line
from raypool.cli.streams import take_stdout, write_whole
from raypool.errors import PoolStopped, RaypoolError
from raypool.task import Task, check_prompt

if TYPE_CHECKING:
    from raypool.pool import Pool


@click.command("ask")
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@pool_options
def ask_command(questions: tuple[str, ...], **options: Any) -> None:
    """Answer each QUESTION on stdout, in order.

    One question gives its answer alone; of several, each answer follows its
    question, marked with ">". Errors go to stderr.
    """
    given = PoolOptions(**options)
    given.check()
    given = msgspec.structs.replace(given, size=min(given.size, len(questions)))
    stdout = take_stdout()
    try:
        with _started(questions, given) as pool:
            status = _answer_within(given.budget_usd, pool, questions, stdout)
    except BrokenPipeError:
        sys.exit(SOME_FAILED)
    except RaypoolError as error:
        click.echo(f"raypool: {error}", err=True)
        sys.exit(SOME_FAILED)
    sys.exit(status)


def _started(questions: tuple[str, ...], options: PoolOptions) -> Pool:
    waiting = Console(stderr=True).status(f"starting {count(options.size, 'worker')}")
    with in_one_line(RaypoolError, ValueError, TypeError):
        for question in questions:
            check_prompt(question)
        with waiting:
            return start_pool(options, make_backend(options))


def _answer_within(
    budget_usd: float | None, pool: Pool, questions: tuple[str, ...], stdout: int
) -> int:
    """Answer what the budget suffices for."""
    watch = BudgetWatch(pool, budget_usd=budget_usd)
    try:
        with watch:
            return _answer(pool, questions, stdout)
    except PoolStopped:
        if not watch.why:
            raise
        click.echo(f"raypool: {watch.why}", err=True)
        return SOME_FAILED
    finally:
        pool.stop()


def _answer(pool: Pool, questions: tuple[str, ...], stdout: int) -> int:
    status = ANSWERED
    gap = ""
    for question, result in zip(questions, pool.map(map(Task, questions)), strict=True):
        if result.state == "completed":
            heading = _marked(question) if len(questions) > 1 else ""
            write_whole(stdout, f"{gap}{heading}{result.text}\n".encode())
            gap = "\n"
        else:
            status = SOME_FAILED
            click.echo(f"raypool: {question!r:.80}: {result.error}", err=True)
    return status


def _marked(question: str) -> str:
    return "".join(f"> {line}\n" for line in question.splitlines())
