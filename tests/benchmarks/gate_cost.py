"""What it costs the dispatcher to keep a limit: CPU time per turn, beside all that it does."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import psutil

from raypool import Budget, Pool, RateLimit
from raypool.backends import ScriptedBackend
from raypool.capacity.alone import LoneShare
from raypool.capacity.budget import BudgetBook
from raypool.capacity.gates import Gates
from raypool.capacity.limit_gate import LimitGate
from raypool.clock import FakeClock
from raypool.messages import Answer, Outcome, Terms
from raypool.records import AcceptedTask
from raypool.task_record import TaskRecord
from raypool.telemetry import EventName
from raypool.usage import Usage
from tests.benchmarks.measure import Scenario

TERMS = Terms("https://api", "key", "a-model", max_tokens=500, is_priced=True)
LIMIT = RateLimit(
    requests_per_minute=60_000,
    input_tokens_per_minute=10_000_000,
    output_tokens_per_minute=10_000_000,
)
BUDGET = Budget(tokens=10**12)
TURNS_PER_SECOND = 100.0
ANSWER = Answer("42", 500.0)
PROMPT = "why is the sky blue, and the sea, and what of it is the light's doing? "
WORKERS, CONCURRENCY = 2, 32
CLOCK_TICK = 0.01
"""In which steps the system counts the time of a process, in seconds."""


@contextmanager
def scenarios(count: int) -> Iterator[list[Scenario]]:
    """The gate alone, and the dispatcher of a pool without limits, over `count` turns each."""
    with ExitStack() as stack:
        dispatcher = BusyDispatcher(stack)
        yield [
            Scenario(
                "CPU of a gate with limits and budget, per turn",
                "µs",
                "≤ 0.02x",
                lambda: gate_cost(10 * count),
                lambda: dispatcher.cost(count),
                "the dispatcher of slow turns",
            )
        ]


def gate_cost(count: int) -> float:
    """Microseconds to set aside what a turn takes, and to put right what it took."""
    clock = FakeClock()
    gate = limiting_gate(clock)
    turns = [(task(number), outcome(number)) for number in range(1, count + 1)]
    started = time.process_time()
    for record, ended in turns:
        clock.advance(1 / TURNS_PER_SECOND)
        assert gate.reserve(record)
        gate.settle(record, ended)
    return (time.process_time() - started) / count * 1e6


def limiting_gate(clock: FakeClock) -> LimitGate:
    """A gate of limits, which are not reached, and a budget, which is not spent."""
    gates = Gates(
        BudgetBook(BUDGET),
        clock,
        prices={},
        has_memory=False,
        new_share=lambda _, limit: LoneShare(clock, limit),
        tell=tell_nobody,
    )
    return gates.of("chemist", TERMS, LIMIT)


def task(number: int) -> TaskRecord:
    return TaskRecord(AcceptedTask(number, str(number), PROMPT))


def outcome(number: int) -> Outcome:
    return Outcome(number, ANSWER, usage=Usage(30, 100), turns=1, requests=1)


def tell_nobody(_name: EventName, /, **_fields: Any) -> None:
    """Events are not what is measured."""


class BusyDispatcher:
    """The dispatcher of a pool whose turns are slow, so that each is sent by itself."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @cached_property
    def _pool_and_process(self) -> tuple[Pool, psutil.Process]:
        before = dispatchers()
        pool = Pool.start(
            WORKERS, concurrency=CONCURRENCY, backend=ScriptedBackend(latency=length_of)
        )
        self._stack.enter_context(pool)
        [process] = dispatchers() - before
        return pool, process

    def cost(self, count: int) -> float:
        """Microseconds of CPU that it takes for a turn of 0.5 s ± 50 %."""
        pool, process = self._pool_and_process
        lengths = random.Random(count)
        prompts = [f"{lengths.uniform(0.25, 0.75):.4f} question {n}" for n in range(count)]
        started = sum(process.cpu_times()[:2])
        for future in pool.submit_many(prompts):
            future.result()
        return max(CLOCK_TICK, sum(process.cpu_times()[:2]) - started) / count * 1e6


def length_of(prompt: str) -> float:
    """How long the turn of `0.43 …` lasts, in seconds."""
    return float(prompt.split(maxsplit=1)[0])


def dispatchers() -> set[psutil.Process]:
    """The dispatchers of the Ray that this process has started."""
    family = psutil.Process().children(recursive=True)
    return {one for one in family if "ray::Dispatcher" in _command_of(one)}


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""
