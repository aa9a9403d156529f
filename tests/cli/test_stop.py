"""`raypool stop`, as a process, and a second Ctrl-C in `raypool run`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import ray

from raypool import Pool, PoolStopped
from raypool.backends import ScriptedBackend
from raypool.sqlite_ledger import SqliteLedger
from raypool.testing import MessagesServer
from tests.programs import Program, await_that, ray_address

COMMAND = "from raypool.cli import main; main(prog_name='raypool')"

pytestmark = pytest.mark.usefixtures("local_ray")

RunCommand = Callable[..., Program]


@pytest.fixture
def run_command(tmp_path: Path) -> Iterator[RunCommand]:
    started: list[Program] = []

    def start(*arguments: str) -> Program:
        started.append(Program(COMMAND, tmp_path, *arguments, address=ray_address()))
        return started[-1]

    yield start
    for program in started:
        program.close()


def test_stop_lets_running_turns_finish_and_keeps_the_rest(
    run_command: RunCommand, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "run.db")
    backend = ScriptedBackend(latency=lambda prompt: 12.0 if prompt == "runs" else 0.0)
    pool = Pool.start(1, backend=backend, ledger=ledger, detached=True)
    runs, waits = pool.submit_many(["runs", "waits"])
    runs.accepted(timeout=30)

    status, stderr = run_command("stop", pool.name, "--grace", "60").end()

    assert (status, stderr) == (0, f"raypool: pool {pool.name!r} has stopped\n")
    assert runs.result(timeout=30).text == "runs"
    with pytest.raises(PoolStopped):
        waits.result(timeout=30)
    with closing(SqliteLedger(ledger)) as opened:
        assert [task.prompt for task in opened.unfinished(0, 10)] == ["waits"]


def is_stopping(pool: Pool) -> bool:
    try:
        pool.submit("too late?").accepted(timeout=30)
    except PoolStopped:
        return True
    return False


def has_actors(pool: Pool) -> bool:
    named = ray.util.list_named_actors(all_namespaces=True)
    return any(actor["name"].startswith(pool.name) for actor in named)


def test_stop_that_is_killed_ends_the_pool_all_the_same(
    run_command: RunCommand, tmp_path: Path
) -> None:
    backend = ScriptedBackend(latency=lambda prompt: 12.0 if prompt == "runs" else 0.0)
    pool = Pool.start(1, backend=backend, ledger=str(tmp_path / "run.db"), detached=True)
    runs = pool.submit("runs")
    runs.accepted(timeout=30)
    stop = run_command("stop", pool.name, "--grace", "60")
    await_that(lambda: is_stopping(pool))

    stop.process.kill()

    assert runs.result(timeout=30).text == "runs"
    await_that(lambda: not has_actors(pool))


def test_stop_of_a_pool_that_does_not_run_says_so(run_command: RunCommand) -> None:
    status, stderr = run_command("stop", "nobody").end()

    assert status == 2
    assert "raypool: no pool 'nobody' runs in namespace 'raypool'" in stderr
    assert "Traceback" not in stderr


def test_second_ctrl_c_ends_a_run_now_and_its_ledger_is_whole(
    run_command: RunCommand, tmp_path: Path
) -> None:
    rows, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    rows.write_text("one\ntwo\nthree\n")
    with MessagesServer(latency=lambda call: 0.0 if call.prompt == "one" else 60.0) as server:
        options = ("--base-url", server.url, "--model", "any", "--size", "1")
        run = run_command("run", str(rows), "-o", str(output), *options)
        await_that(lambda: len(server.calls) == 2)

        run.send(signal.SIGINT)
        run.await_error("stopping after the running turns")
        run.send(signal.SIGINT)
        status, stderr = run.end()

    assert status == 130
    assert "to finish the rest: raypool run" in stderr
    with closing(SqliteLedger(f"{output}.ledger")) as opened:
        assert [task.prompt for task in opened.unfinished(0, 10)] == ["two", "three"]
        assert len(opened.ended(0, 10)) == 1
