"""What happens in a pool, as its clients and its handler are told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypool import Pool, RetryPolicy
from raypool.backends import ScriptedBackend
from raypool.telemetry import EVENTS, TelemetryEvent
from tests.conftest import StartPool
from tests.scenarios.acting import Acting, worker_of
from tests.scenarios.watching import wait_for_event, watching


def answer(prompt: str) -> str:
    if prompt == "no line":
        raise ConnectionError(prompt)
    return prompt


def write_to(path: Path) -> object:
    def handle(event: TelemetryEvent) -> None:
        if event.name == "task.failed":
            raise ValueError("enough of this")
        with path.open("a") as lines:
            lines.write(json.dumps([event.name, event.task]) + "\n")

    return handle


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the handler of the module's pool writes."""
    return tmp_path_factory.mktemp("handler") / "events.jsonl"


@pytest.fixture(scope="module")
def pool(local_ray: None, lines: Path) -> Iterator[Pool]:
    with Pool.start(
        roles={"left": 1, "right": 1},
        agent=Acting,
        backend=ScriptedBackend(answer),
        retry=RetryPolicy(max_attempts=2, initial_seconds=0.02),
        on_event=write_to(lines),  # type: ignore[arg-type]
    ) as pool:
        yield pool


def wait_for_line(lines: Path, words: str) -> list[str]:
    """The lines so far, once one has these words in it; the test's time limit is the end."""
    while not lines.exists() or words not in lines.read_text():
        pass
    return lines.read_text().splitlines()


def test_handler_hears_of_every_task_beside_the_dispatcher(pool: Pool, lines: Path) -> None:
    pool.submit("hello", id="heard").result(timeout=30)

    told = [json.loads(line) for line in wait_for_line(lines, '["task.completed", "heard"]')]

    assert told[:2] == [["worker.started", None]] * 2
    assert {name for name, task in told if task == "heard"} >= {"task.accepted", "task.completed"}


def test_two_clients_are_told_the_same(pool: Pool) -> None:
    with Pool.connect(pool.name) as other, watching(pool) as here, watching(other) as there:
        pool.submit("hello", id="told twice").result(timeout=30)
        for events in (here, there):
            for name in ("task.accepted", "prompt.start", "prompt.stop", "task.completed"):
                wait_for_event(events, name, task="told twice")

    told = [[event for event in events if event.task == "told twice"] for events in (here, there)]
    assert told[0] == told[1]


def test_events_have_the_documented_fields_and_no_text(pool: Pool) -> None:
    worker = worker_of(pool, "left")
    with watching(pool) as events:
        pool.submit("a secret question", role="left", metadata={"halt": "review"}).result(30)
        wait_for_event(events, "halted")
        pool.resume(worker)
        pool.notify(worker, "a secret event")
        wait_for_event(events, "resumed")
        wait_for_event(events, "event.received")

    for event in events:
        assert set(event.fields) <= set(EVENTS[event.name].fields), event  # type: ignore[index]
        assert event.pool == pool.name
    assert wait_for_event(events, "halted").fields == {"reason": "review"}
    assert wait_for_event(events, "halted").worker == worker
    assert "secret" not in repr(events)


def test_coroutine_reads_events_too(pool: Pool) -> None:
    async def read() -> str:
        async for event in pool.events():
            return event.name
        return "nothing"

    async def read_and_ask() -> str:
        reading = asyncio.ensure_future(read())
        while not reading.done():
            await pool.submit("hello")
            await asyncio.sleep(0.01)
        return await reading

    assert asyncio.run(read_and_ask()) in EVENTS


def test_handler_that_raises_is_detached_and_the_pool_goes_on(pool: Pool, lines: Path) -> None:
    pool.submit("before", id="before").result(timeout=30)
    wait_for_line(lines, '["task.completed", "before"]')

    with watching(pool) as events:
        failed = pool.submit("no line", role="right")
        assert failed.exception(timeout=30) is not None
        assert wait_for_event(events, "task.retried").fields["error_type"] == "ConnectionError"
        assert wait_for_event(events, "task.failed").task == failed.id
        pool.submit("after", id="after").result(timeout=30)
        wait_for_event(events, "task.completed", task="after")

    assert '"before"' in lines.read_text()
    assert '"after"' not in lines.read_text()


def test_stream_of_events_ends_with_its_pool(start_pool: StartPool) -> None:
    pool = start_pool(1)
    names: list[str] = []
    reader = threading.Thread(target=lambda: names.extend(one.name for one in pool.events()))
    reader.start()
    while not names:
        pool.submit("hello").result(timeout=30)

    pool.stop()
    reader.join(timeout=30)

    assert not reader.is_alive()
    assert names[-1] == "worker.stopped"
