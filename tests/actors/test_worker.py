"""The worker actor alone: its mailbox, its slots, and what answers while a turn runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from raypool import Agent, Pool, Response
from raypool.agent import Prompt, SessionOptions, Turn
from raypool.backends import FunctionBackend, ScriptedBackend
from raypool.chain_run import TurnRules
from raypool.config import Price
from raypool.link import WorkerLink
from raypool.messages import (
    Assignment,
    Notice,
    Outcome,
    PoolInfo,
    decode_batch,
    decode_outcomes,
    encode,
)
from raypool.payload import pack
from raypool.task import Content
from raypool.worker import CONTROL, WAITING, Worker, WorkerSpec, concurrency_groups

StartWorker = Callable[..., Any]

FIRST = 1
"""The epoch of a pool's first dispatcher."""

ALONE = PoolInfo("alone", "tests", ("tester",), max_pending=10, keeps_ledger=False)


class Numbers:
    """A backend function that answers with how many turns started before this one."""

    def __init__(self) -> None:
        self.started = 0

    async def answer(self, prompt: Content, options: SessionOptions) -> str:
        self.started += 1
        await asyncio.sleep(0)
        return str(self.started - 1)


class Dispatcher:
    """All that a worker looks for: something by its pool's name that answers."""

    def ping(self) -> None:
        """Answer."""


class BlockingAgent(Agent):
    """An agent whose callback blocks its thread."""

    def handle_response(self, turn: Turn, response: Response) -> None:
        time.sleep(2.0)


class Chaining(Agent):
    """An agent that asks another turn."""

    def handle_response(self, turn: Turn, response: Response) -> Prompt | None:
        return Prompt("two") if turn.number == 1 else None


@pytest.fixture
def start_worker(local_ray: None) -> Iterator[StartWorker]:
    dispatcher: Any = ray.remote(Dispatcher)
    actors: list[Any] = [
        dispatcher.options(name="alone/dispatcher", namespace="tests", num_cpus=0).remote()
    ]

    def start(
        backend: Any,
        *,
        agent: type[Agent] = Agent,
        concurrency: int = 1,
        prices: dict[str, Price] | None = None,
    ) -> Any:
        rules = TurnRules(turn_timeout=60.0, prices=prices)
        spec = WorkerSpec(ALONE, "alone-1", "tester", concurrency, rules)
        groups: dict[str, Any] = {"concurrency_groups": concurrency_groups(concurrency)}
        payload = pack(agent, {}, backend, Pool)
        actor_class: Any = ray.remote(**groups)(Worker)
        actor = actor_class.options(num_cpus=0).remote(spec, payload)
        actors.append(actor)
        ray.get(actor.start.remote())
        return actor

    yield start
    for actor in actors:
        ray.kill(actor)


def envelope(*numbers: int, prompt: str = "hello") -> bytes:
    return encode([Assignment(number, f"task-{number}", prompt) for number in numbers])


def streamed(batches: Any) -> list[Outcome]:
    """All outcomes of an envelope, in the order in which they come."""
    return [outcome for ref in batches for outcome in decode_batch(ray.get(ref)).outcomes]


def test_mailbox_starts_2000_calls_in_the_order_they_were_made(start_worker: StartWorker) -> None:
    worker = start_worker(FunctionBackend(Numbers().answer))

    calls = [worker.turn_of_one.remote(envelope(number), FIRST, []) for number in range(2_000)]
    outcomes = [outcome for reply in ray.get(calls) for outcome in decode_outcomes(reply)]

    assert [outcome.number for outcome in outcomes] == list(range(2_000))
    answers = [outcome.answer for outcome in outcomes]
    assert [int(answer.text) for answer in answers if answer] == list(range(2_000))


def test_envelope_of_many_streams_every_outcome_once_and_in_order(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(ScriptedBackend(latency=0.001))

    outcomes = streamed(worker.turn.remote(envelope(*range(300)), FIRST, []))

    assert [outcome.number for outcome in outcomes] == list(range(300))


def test_concurrency_of_64_runs_64_turns_at_once(start_worker: StartWorker) -> None:
    worker = start_worker(ScriptedBackend(latency=1.0), concurrency=64)

    started = time.monotonic()
    outcomes = streamed(worker.turn.remote(envelope(*range(128)), FIRST, []))

    assert len(outcomes) == 128
    assert 2.0 <= time.monotonic() - started < 4.0


@pytest.mark.parametrize(
    ("backend", "agent"),
    [
        (ScriptedBackend(lambda prompt: time.sleep(2.0) or prompt), Agent),  # type: ignore[func-returns-value]
        (ScriptedBackend(latency=2.0), Agent),
        (ScriptedBackend(), BlockingAgent),
    ],
    ids=["a reply that blocks", "a turn that waits", "a callback that blocks"],
)
def test_status_answers_within_milliseconds_while_a_turn_runs(
    start_worker: StartWorker, backend: ScriptedBackend, agent: type[Agent]
) -> None:
    worker = start_worker(backend, agent=agent)
    running = worker.turn_of_one.remote(envelope(7), FIRST, [])
    while ray.get(worker.status.remote()).running != [7]:
        pass

    times = []
    for _ in range(20):
        asked = time.monotonic()
        report = ray.get(worker.status.remote())
        times.append(time.monotonic() - asked)
        assert report.running == [7]

    assert sorted(times)[10] < 0.05
    assert len(decode_outcomes(ray.get(running))) == 1


def test_waiting_status_leaves_plain_status_free(start_worker: StartWorker) -> None:
    worker = start_worker(ScriptedBackend(latency=0.5))
    running = worker.turn_of_one.remote(envelope(1), FIRST, [])

    waiting = worker.status.options(concurrency_group=WAITING).remote(after=1)
    report = ray.get(worker.status.options(concurrency_group=CONTROL).remote())

    assert report.finished == 0
    assert ray.get(waiting).finished == 1
    ray.get(running)


def test_cancelled_tasks_are_dropped_from_an_envelope_that_runs(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(ScriptedBackend(latency=0.3))

    stream = worker.turn.remote(envelope(1, 2, 3), FIRST, [])
    ray.get(worker.cancel.remote([2]))
    outcomes = streamed(stream)

    answered = {outcome.number: outcome.answer is not None for outcome in outcomes}
    assert answered == {1: True, 2: False, 3: True}


def test_recall_gives_back_what_has_not_started_and_lets_the_rest_run(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(ScriptedBackend(latency=0.5))

    stream = worker.turn.remote(envelope(1, 2, 3), FIRST, [])
    while ray.get(worker.status.remote()).running != [1]:
        pass
    recalled = asyncio.run(WorkerLink(worker).recall([1, 2, 3]))
    outcomes = streamed(stream)

    assert recalled == [2, 3]
    returned = {outcome.number: outcome.is_returned for outcome in outcomes}
    assert returned == {1: False, 2: True, 3: True}


def test_task_pauses_in_one_call_and_goes_on_in_another(start_worker: StartWorker) -> None:
    worker = start_worker(ScriptedBackend(), agent=Chaining)
    work = encode([Assignment(1, "task-1", "one", exchanges=1)])

    [first] = decode_outcomes(ray.get(worker.turn_of_one.remote(work, FIRST, [])))
    [last] = decode_outcomes(ray.get(worker.turn_of_one.remote(work, FIRST, [])))

    assert (first.is_paused, first.answer, first.requests) == (True, None, 1)
    assert last.answer is not None
    assert (last.answer.text, last.turns, last.requests) == ("two", 2, 1)


def test_worker_that_starts_tells_its_terms_and_prices_by_the_table_of_the_pool(
    start_worker: StartWorker,
) -> None:
    prices = {"scripted": Price(input_mtok=1_000_000, output_mtok=2_000_000)}
    worker = start_worker(ScriptedBackend(), prices=prices)
    link = WorkerLink(worker)

    asyncio.run(link.start(None))
    [outcome] = decode_outcomes(ray.get(worker.turn_of_one.remote(envelope(1), FIRST, [])))

    assert (link.terms.model, link.terms.provider, link.terms.is_priced) == ("scripted", "", True)
    assert outcome.cost_usd == 3.0


def test_worker_has_its_own_process_and_says_which(start_worker: StartWorker) -> None:
    worker = start_worker(ScriptedBackend())

    report = ray.get(worker.status.remote())

    assert report.pid != os.getpid()
    assert report.node == ray.get_runtime_context().get_node_id()


def test_notices_are_handed_in_at_once_and_answered_when_they_are_heard(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(ScriptedBackend(latency=0.5))
    running = worker.turn_of_one.remote(envelope(1), FIRST, [])

    ray.get([worker.notify.remote(encode(Notice(number, "hear"))) for number in range(2, 50)])
    assert ray.get(worker.status.remote()).finished == 0
    answered: list[int] = []
    while len(answered) < 48:
        outcomes = decode_outcomes(ray.get(worker.answers.remote()))
        answered += [outcome.number for outcome in outcomes]

    assert answered == list(range(2, 50))
    ray.get(running)
