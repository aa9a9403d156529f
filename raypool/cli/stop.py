"""`raypool stop`: ends a running pool from anywhere on its cluster."""

from __future__ import annotations

import sys

import click

from raypool.cli.problem import in_one_line
from raypool.cli.streams import take_stdout
from raypool.errors import RaypoolError


@click.command("stop")
@click.argument("name")
@click.option("--drain", is_flag=True, help="Finish every accepted task first.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running turns may go on.",
)
@click.option("--namespace", default="raypool", show_default=True, help="Its Ray namespace.")
@click.option("--address", help="The Ray cluster.  [default: RAY_ADDRESS, else one that runs here]")
def stop_command(
    name: str, *, drain: bool, grace: float, namespace: str, address: str | None
) -> None:
    """End the pool NAME, with its workers and its temporary files.

    Nothing new starts, and what runs is interrupted, unless --drain or --grace
    lets it finish. What is unfinished stays in the ledger, if the pool has one,
    and the next start on it goes on.
    """
    from raypool.pool import Pool  # noqa: PLC0415 - --help must not wait for Ray

    take_stdout()
    with in_one_line(RaypoolError):
        pool = Pool.connect(name, namespace, address=address or "auto")
        pool.stop(drain=drain, grace=grace)
    print(f"raypool: pool {name!r} has stopped", file=sys.stderr)
