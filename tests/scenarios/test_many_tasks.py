"""More tasks than the dispatcher keeps in memory: nobody notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raypool import TaskCancelled
from raypool.backends import ScriptedBackend
from raypool.shelves import MOST_IN_MEMORY
from tests.conftest import StartPool
from tests.scenarios.test_dispatcher_dies import kill_dispatcher

pytestmark = pytest.mark.timeout(300)

COUNT = MOST_IN_MEMORY + 3_000
DEADLINE_SECONDS = 200.0


class Held:
    """Answers once a file is there, whichever process asks."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    async def __call__(self, prompt: str) -> str:
        while not Path(self._path).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.02)
        return prompt.upper()


def test_they_are_counted_cancelled_found_and_outlive_the_dispatcher(
    start_pool: StartPool, tmp_path: Path
) -> None:
    backend = ScriptedBackend(Held(tmp_path / "go"))
    ledger = tmp_path / "run.db"
    pool = start_pool(2, backend=backend, ledger=ledger, max_pending=COUNT)
    prompts = [f"question {number}" for number in range(COUNT)]
    *futures, last = pool.submit_many(prompts)

    assert last.accepted(DEADLINE_SECONDS)
    assert last.worker is None
    assert futures[0].worker is not None
    status = pool.status()
    assert status.queued + status.running == COUNT
    last.cancel()
    with pytest.raises(TaskCancelled):
        last.result(DEADLINE_SECONDS)
    found = pool.future(futures[-1].id)

    kill_dispatcher(pool)
    (tmp_path / "go").touch()

    pool.wait_for_all(DEADLINE_SECONDS)
    assert found.result(DEADLINE_SECONDS).text == prompts[-2].upper()
    assert [future.result().text for future in futures] == [one.upper() for one in prompts[:-1]]
    status = pool.status()
    assert (status.completed, status.cancelled, status.queued) == (COUNT - 1, 1, 0)
