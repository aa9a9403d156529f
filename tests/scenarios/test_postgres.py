"""Pools whose ledger is in PostgreSQL: who may die, and who may know the password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from raypool import Pool, PoolStartError
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool
from tests.postgres_server import ENCODED_PASSWORD, PASSWORD, PostgresServer

pytestmark = pytest.mark.timeout(240)

TASKS = 40


def test_pool_survives_the_loss_of_its_dispatchers_node(
    local_ray: None, postgres: PostgresServer
) -> None:
    """In a process of its own, whose cluster is not the one of the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.scenarios.losing_a_node", postgres.new_url(), str(TASKS)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=220,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "began on": True,
        "answers": [f"q-{number}" for number in range(TASKS)],
        "completed": TASKS,
        "moved": True,
    }


def test_server_crashes_while_the_pool_runs_and_later_the_run_goes_on(
    start_pool: StartPool, postgres: PostgresServer
) -> None:
    url = postgres.new_url()
    pool = start_pool(2, backend=ScriptedBackend(latency=0.02), ledger=url, name="crew")
    futures = pool.submit_many(f"q-{number}" for number in range(100))
    futures[10].result(60)
    postgres.restart()
    futures += pool.submit_many(f"q-{number}" for number in range(100, 120))

    assert [future.result(60).text for future in futures] == [f"q-{n}" for n in range(120)]
    assert pool.status().completed == 120
    results = Counter(result.prompt for result in pool.iter_results())
    assert results == Counter(f"q-{number}" for number in range(120))
    pool.stop()

    with Pool.start(1, backend=ScriptedBackend(), ledger=url) as again:
        assert (again.name, again.status().completed) == ("crew", 120)


def test_password_is_nowhere_but_in_memory(
    start_pool: StartPool, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    pool = start_pool(1, ledger=postgres.new_url())
    pool.submit("why?").result(60)

    told = f"{pool!r} {pool.status()!r} {caplog.text} {list(pool.iter_results())!r}"
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            told += " ".join(process.cmdline()) + " ".join(process.environ().values())
    node: Any = ray._private.worker._global_node
    for log in Path(node.get_session_dir_path(), "logs").rglob("*.*"):
        told += log.read_text(errors="replace")

    assert PASSWORD not in told
    assert ENCODED_PASSWORD not in told


def test_ledger_that_cannot_be_opened_is_why_no_pool_starts(
    start_pool: StartPool, postgres: PostgresServer
) -> None:
    with pytest.raises(PoolStartError, match="there is no such database") as error:
        start_pool(1, ledger=postgres.url.replace("/postgres", "/nothing"))

    assert ENCODED_PASSWORD not in str(error.value)
