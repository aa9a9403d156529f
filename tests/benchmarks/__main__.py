"""`python -m tests.benchmarks`: raypool beside raw Ray and plain asyncio, in one run.

Ray runs its workers at nice 15 unless told otherwise, so on a shared machine every peer
outside Ray would win; the run sets `RAY_worker_niceness=0`.
"""

from __future__ import annotations

import os

import click
import ray
from ray._private import ray_constants

from tests.benchmarks import measure
from tests.benchmarks.groups import Sizes, groups


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Rounds that count, per scenario.")
@click.option("--scale", default=1.0, show_default=True, help="Of the number of tasks.")
@click.option("--only", default="", help="Run the scenarios whose name has this text.")
def main(rounds: int, scale: float, only: str) -> None:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    figures = []
    for group in groups(Sizes.scaled(scale)):
        with group as prepared:
            chosen = [scenario for scenario in prepared if only in scenario.name]
            figures += [measure.run(scenario, rounds) for scenario in chosen]
    measure.show(figures, rounds)


if __name__ == "__main__":
    main()
