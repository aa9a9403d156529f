"""How pools end: what is finished, what is kept, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
import ray

from raypool import InvalidTask, Pool, PoolStopped
from raypool.backends import ScriptedBackend
from tests.conftest import StartPool

PROGRAM = """
import sys
from raypool import Pool
from raypool.backends import ScriptedBackend

with Pool.start(2, backend=ScriptedBackend(latency=60.0)) as pool:
    pool.submit_many(["a", "b", "c"])
    print("started", flush=True)
    pool.wait_for_all()
"""


def pool_actors(pool: Pool) -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if actor["name"].startswith(pool.name)]


def wait_until_gone(pool: Pool) -> None:
    deadline = time.monotonic() + 20.0
    while pool_actors(pool) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pool_actors(pool) == []


def test_stop_leaves_no_actor_and_no_file(start_pool: StartPool, temporary_files: Path) -> None:
    before = set(temporary_files.glob("raypool-*"))
    pool = start_pool(2)
    assert len(pool_actors(pool)) == 3
    assert len(set(temporary_files.glob("raypool-*")) - before) == 1

    pool.stop()

    wait_until_gone(pool)
    assert set(temporary_files.glob("raypool-*")) == before
    assert repr(pool) == f"Pool {pool.name!r}: stopped"


def test_exception_in_the_block_leaves_no_actor_and_no_file(
    local_ray: None, temporary_files: Path
) -> None:
    before = set(temporary_files.glob("raypool-*"))
    pools: list[Pool] = []

    def ask_and_fail() -> None:
        with Pool.start(1, backend=ScriptedBackend(latency=60.0)) as pool:
            pools.append(pool)
            pool.submit("never answered")
            raise ZeroDivisionError

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ZeroDivisionError):
            ask_and_fail()

    assert ["stopped with 1 task unfinished" in str(one.message) for one in warned] == [True]
    wait_until_gone(pools[0])
    assert set(temporary_files.glob("raypool-*")) == before


def test_stopped_pool_refuses_everything(start_pool: StartPool) -> None:
    pool = start_pool(1)
    pool.stop()

    for use in (
        lambda: pool.submit("hello"),
        lambda: pool.submit_many(["hello"]),
        lambda: list(pool.map(["hello"])),
        pool.wait_for_all,
        pool.results,
        pool.status,
    ):
        with pytest.raises(PoolStopped, match=f"pool {pool.name!r} has stopped"):
            use()
    pool.stop()


def test_draining_finishes_every_accepted_task(start_pool: StartPool) -> None:
    pool = start_pool(2, backend=ScriptedBackend(latency=0.1))
    futures = pool.submit_many([f"question {n}" for n in range(20)])

    pool.stop(drain=True)

    assert [future.result(timeout=1).text for future in futures] == [
        f"question {n}" for n in range(20)
    ]


def test_grace_finishes_what_runs_and_nothing_else(start_pool: StartPool) -> None:
    pool = start_pool(1, backend=ScriptedBackend(latency=0.7))
    runs, waits = pool.submit_many(["runs", "waits"])
    while pool.poll(runs.id).state != "running":
        pass

    pool.stop(grace=20.0)

    assert runs.result(timeout=1).text == "runs"
    with pytest.raises(PoolStopped):
        waits.result(timeout=1)


def test_stop_interrupts_what_runs(start_pool: StartPool) -> None:
    pool = start_pool(1, backend=ScriptedBackend(latency=60.0))
    future = pool.submit("a long question")
    while pool.poll(future.id).state != "running":
        pass

    started = time.monotonic()
    pool.stop()

    assert time.monotonic() - started < 15.0
    with pytest.raises(PoolStopped):
        future.result(timeout=1)


def test_detached_pool_outlives_its_block(local_ray: None) -> None:
    with Pool.start(1, backend=ScriptedBackend(), detached=True) as pool:
        future = pool.submit("hello", id="before")
        future.result(timeout=30)

    again = Pool.connect(pool.name)
    assert again.poll("before").text == "hello"
    again.stop()
    wait_until_gone(again)


def test_dropped_pool_is_cleared_away(local_ray: None) -> None:
    pool = Pool.start(1, backend=ScriptedBackend())
    name = pool.name
    copy = Pool.connect(name)
    del copy

    ray.kill(ray.get_actor(f"{name}/dispatcher", namespace="raypool"))

    wait_until_gone(pool)


class Renamed(ScriptedBackend):
    """Another model."""

    model = "another-model"


def test_named_ledger_keeps_unfinished_tasks_for_the_next_start(
    start_pool: StartPool, tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    first = start_pool(1, ledger=str(path), backend=ScriptedBackend(latency=0.4))
    futures = first.submit_many([f"question {n}" for n in range(5)])
    futures[0].result(timeout=30)
    first.stop()

    second = start_pool(2, ledger=str(path), backend=Renamed())
    second.wait_for_all(timeout=30)

    assert second.name == first.name
    results = list(second.iter_results())
    assert [result.prompt for result in results].count("question 0") == 1
    assert sorted(result.prompt for result in results) == [f"question {n}" for n in range(5)]
    assert second.future(futures[4].id).result(timeout=30).text == "question 4"
    assert second.status().completed == 5
    last = futures[4].id
    assert second.submit("question 4", id=last).result(timeout=30).text == "question 4"
    with pytest.raises(InvalidTask, match="another model; give this one another id"):
        second.submit("question 0", id=futures[0].id).result(timeout=30)


def test_ledger_in_use_is_refused(start_pool: StartPool, tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    start_pool(1, ledger=path, name="holder")

    with pytest.raises(Exception, match=r"in use|runs already"):
        start_pool(1, ledger=path, namespace="elsewhere")


def is_raypools(process: psutil.Process) -> bool:
    """Ray itself outlives a driver that is killed for a while; what raypool started must not."""
    command = " ".join(process.cmdline())
    return "Dispatcher" in command or "ray::Worker" in command


def test_no_process_is_left_when_the_program_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "RAY_TMPDIR": "/tmp"}
    environment.pop("RAY_ADDRESS", None)
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert program.stdout is not None
    while program.stdout.readline().strip() != "started":
        assert program.poll() is None
    family = psutil.Process(program.pid).children(recursive=True)
    assert len([member for member in family if is_raypools(member)]) == 3

    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGINT)
    program.wait(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=30)

    assert alive == []
    program.stdout.close()
    assert list(tmp_path.glob("raypool-*")) == []
