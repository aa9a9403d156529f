"""A report of a pool that runs, and of the same pool after its end."""

from __future__ import annotations

from pathlib import Path

from raypool.agent import SessionOptions
from raypool.backends import FunctionBackend
from raypool.report import gather
from raypool.task import Content
from tests.conftest import StartPool
from tests.scenarios.conftest import QUICK


class Refused(Exception):
    """A refusal, with what a client library's has of the answer."""

    status_code = 429


def test_ledger_tells_of_refusals_and_retries_while_its_pool_runs_and_after(
    start_pool: StartPool, tmp_path: Path
) -> None:
    marks, ledger = tmp_path / "marks", tmp_path / "run.db"
    marks.mkdir()

    async def answer(prompt: Content, options: SessionOptions) -> str:
        for error in (Refused("no capacity"), ConnectionError("no line")):
            mark = marks / type(error).__name__
            if not mark.exists():
                mark.touch()
                raise error
        return "an answer"

    pool = start_pool(
        1, role="chemist", backend=FunctionBackend(answer), ledger=str(ledger), retry=QUICK
    )
    pool.submit("why?").result(timeout=60)
    while_it_runs = gather(ledger)
    pool.stop()
    after = gather(ledger)

    assert while_it_runs.totals.completed == after.totals.completed == 1
    assert [(group.role, group.completed) for group in after.groups] == [("chemist", 1)]
    assert sorted((one.kind, one.type, one.count) for one in after.setbacks) == [
        ("refused", "Refused", 1),
        ("retried", "ConnectionError", 1),
    ]
