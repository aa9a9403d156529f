"""Ctrl-C and SIGTERM in a plain program: once finishes what runs, twice ends now."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raypool.sqlite_ledger import SqliteLedger
from raypool.testing import MessagesServer
from tests.programs import StartProgram, await_that, ray_address

QUESTIONS = [f"question {number}" for number in range(4)]
SECONDS = {"question 1": 4.0, "a story": 60.0, "another story": 60.0}

PROGRAM = """
import asyncio, sys
from raypool import Pool
from raypool.backends import AnthropicBackend

backend = AnthropicBackend(base_url=sys.argv[1], api_key="key")
options = {"backend": backend, "ledger": sys.argv[2]}
questions = sys.argv[4:]

def with_block():
    with Pool.start(1, **options) as pool:
        pool.submit_many(questions)
        pool.wait_for_all()

def with_map():
    with Pool.start(1, **options) as pool:
        for result in pool.map(questions):
            print(result.text, flush=True)

def without_block():
    global pool
    pool = Pool.start(1, **options)
    pool.submit_many(questions)
    pool.wait_for_all()

async def with_async_block():
    async with Pool.start(1, **options) as pool:
        pool.submit_many(questions)
        await asyncio.to_thread(pool.wait_for_all)

way = globals()[sys.argv[3]]
if way is with_async_block:
    asyncio.run(way())
else:
    way()
"""

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    """Takes long enough for the question that runs when a signal comes."""
    with MessagesServer(latency=lambda call: SECONDS.get(call.prompt, 0.5)) as server:
        yield server


def cut_short(ledger: Path) -> list[str]:
    """What may have been begun of what is unfinished in such a ledger."""
    with closing(SqliteLedger(ledger)) as opened:
        return [str(one.task.prompt) for one in opened.sent()]


def kept(ledger: Path) -> tuple[list[str], list[str]]:
    """What is answered and what is unfinished in a ledger that no pool has any more."""
    with closing(SqliteLedger(ledger)) as opened:
        answered = [str(one.ending.text) for one in opened.ended(0, 100)]
        return answered, [str(task.prompt) for task in opened.unfinished(0, 100)]


@pytest.mark.parametrize("way", ["with_block", "with_map", "without_block", "with_async_block"])
def test_ctrl_c_finishes_what_runs_and_says_how_to_go_on(
    start_program: StartProgram, tmp_path: Path, server: MessagesServer, way: str
) -> None:
    ledger = tmp_path / "run.db"
    arguments = (server.url, str(ledger), way, *QUESTIONS)
    program = start_program(PROGRAM, *arguments, address=ray_address())
    await_that(lambda: len(server.calls) == 2)

    program.send(signal.SIGINT)
    status, stderr = program.end()

    assert status != 0
    assert "stopping after the running turns" in stderr
    assert "stopped with 2 tasks unfinished; a start on the same ledger runs them" in stderr
    assert "Unhandled error" not in stderr
    assert kept(ledger) == (QUESTIONS[:2], QUESTIONS[2:])
    assert cut_short(ledger) == []


@pytest.mark.parametrize("way", ["with_block", "without_block"])
def test_sigterm_does_the_same_and_the_program_goes_on_where_it_was(
    start_program: StartProgram, tmp_path: Path, server: MessagesServer, way: str
) -> None:
    ledger = tmp_path / "run.db"
    arguments = (server.url, str(ledger), way, *QUESTIONS)
    program = start_program(PROGRAM, *arguments, address=ray_address())
    await_that(lambda: len(server.calls) == 2)

    program.send(signal.SIGTERM)
    status, stderr = program.end()

    assert status != 0
    assert kept(ledger) == (QUESTIONS[:2], QUESTIONS[2:]), stderr
    assert "a start on the same ledger runs them" in stderr

    again = start_program(PROGRAM, server.url, str(ledger), "with_block", address=ray_address())
    assert again.end()[0] == 0
    assert kept(ledger) == (QUESTIONS, [])
    assert [call.prompt for call in server.calls] == QUESTIONS


@pytest.mark.parametrize("way", ["with_block", "without_block", "with_async_block"])
def test_ctrl_c_twice_ends_now_and_the_ledger_is_whole(
    start_program: StartProgram, tmp_path: Path, server: MessagesServer, way: str
) -> None:
    ledger = tmp_path / "run.db"
    stories = ["a story", "another story"]
    arguments = (server.url, str(ledger), way, *stories)
    program = start_program(PROGRAM, *arguments, address=ray_address())
    await_that(lambda: len(server.calls) == 1)

    program.send(signal.SIGINT)
    program.await_error("stopping after the running turns")
    program.send(signal.SIGINT)
    _, stderr = program.end()

    assert "stopped with 2 tasks unfinished" in stderr
    assert kept(ledger) == ([], stories)
    assert "a story" in cut_short(ledger)
