"""What is measured, and against what."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from raypool import Pool
from raypool.backends import ScriptedBackend
from tests.benchmarks.measure import Scenario

WORKERS = 4
SLOW_SECONDS = 0.5
SLOTS = 1_024


@dataclass(frozen=True)
class Sizes:
    """How many tasks each scenario has."""

    no_ops: int = 20_000
    submits: int = 10_000
    slow_turns: int = 6_144
    waits: int = 20

    @classmethod
    def scaled(cls, scale: float) -> Sizes:
        """The usual sizes times `scale`."""
        full = cls()
        return cls(
            no_ops=max(8, int(full.no_ops * scale)),
            submits=max(8, int(full.submits * scale)),
            slow_turns=max(8, int(full.slow_turns * scale)),
            waits=max(2, int(full.waits * scale)),
        )


class Echo:
    """The fastest kind of Ray actor: threaded, and it does nothing."""

    def echo(self, prompt: str) -> str:
        return prompt


async def time_of_answer(prompt: str) -> str:
    """The time at which the turn ends, in seconds since the epoch."""
    await asyncio.sleep(0.05)
    return str(time.time())


def length_of(prompt: str) -> float:
    """How long the turn of `0.43 …` lasts, in seconds."""
    return float(prompt.split(maxsplit=1)[0])


@contextmanager
def scenarios(sizes: Sizes) -> Iterator[list[Scenario]]:
    """The scenarios, with the pools and actors that they need running."""
    actor_class: Any = ray.remote(Echo)
    actors = [actor_class.options(num_cpus=0).remote() for _ in range(WORKERS)]
    slots = SLOTS // 2
    with (
        Pool.start(WORKERS, backend=ScriptedBackend()) as quick,
        Pool.start(2, backend=ScriptedBackend(latency=length_of), concurrency=slots) as slow,
        Pool.start(WORKERS, backend=ScriptedBackend(time_of_answer)) as stamping,
    ):
        yield [
            Scenario(
                "no-op turns, submit_many, 4 workers",
                "turns/s",
                "≥ 5x",
                lambda: no_op_turns(quick, sizes.no_ops),
                lambda: raw_calls(actors, sizes.no_ops),
                "raw calls, 4 threaded actors",
            ),
            Scenario(
                "submit() accepted",
                "calls/s",
                "≥ 10x",
                lambda: submits(quick, sizes.submits),
                lambda: raw_submits(actors, sizes.submits),
                "actor.method.remote()",
            ),
            Scenario(
                "1,024 turns of 0.5 s ± 50 % in flight",
                "turns/s",
                "≥ 0.95x",
                lambda: slow_turns(slow, sizes.slow_turns),
                lambda: asyncio.run(semaphore_turns(sizes.slow_turns)),
                "asyncio + semaphore",
            ),
            Scenario(
                "last completion to wait_for_all",
                "ms",
                "≤ 10 ms",
                lambda: wait_after_last(stamping, sizes.waits),
            ),
        ]


def no_op_turns(pool: Pool, count: int) -> float:
    """Turns per second, from `submit_many` to the last result in this process."""
    prompts = [f"question {n}" for n in range(count)]
    started = time.perf_counter()
    futures = pool.submit_many(prompts)
    for future in futures:
        future.result()
    return count / (time.perf_counter() - started)


def raw_calls(actors: list[Any], count: int) -> float:
    """Calls per second, round robin, to the last result in this process."""
    prompts = [f"question {n}" for n in range(count)]
    started = time.perf_counter()
    ray.get([actors[n % len(actors)].echo.remote(prompt) for n, prompt in enumerate(prompts)])
    return count / (time.perf_counter() - started)


def submits(pool: Pool, count: int) -> float:
    """Calls of `submit` per second; the turns are waited for outside of the time."""
    started = time.perf_counter()
    futures = [pool.submit(f"question {n}") for n in range(count)]
    rate = count / (time.perf_counter() - started)
    for future in futures:
        future.result()
    return rate


def raw_submits(actors: list[Any], count: int) -> float:
    """Calls of `.remote()` per second; the results are waited for outside of the time."""
    started = time.perf_counter()
    refs = [actors[n % len(actors)].echo.remote(f"question {n}") for n in range(count)]
    rate = count / (time.perf_counter() - started)
    ray.get(refs)
    return rate


def slow_prompts(count: int) -> list[str]:
    """Prompts that name lengths of 0.5 s ± 50 %."""
    lengths = random.Random(count)
    return [f"{lengths.uniform(0.25, 0.75):.4f} question {n}" for n in range(count)]


def slow_turns(pool: Pool, count: int) -> float:
    """Turns per second with 1,024 in flight."""
    prompts = slow_prompts(count)
    started = time.perf_counter()
    for future in pool.submit_many(prompts):
        future.result()
    return count / (time.perf_counter() - started)


async def semaphore_turns(count: int) -> float:
    """Turns per second of one process with as many in flight."""
    slots = asyncio.Semaphore(SLOTS)

    async def turn(prompt: str) -> str:
        async with slots:
            await asyncio.sleep(length_of(prompt))
            return prompt

    prompts = slow_prompts(count)
    started = time.perf_counter()
    await asyncio.gather(*(turn(prompt) for prompt in prompts))
    return count / (time.perf_counter() - started)


def wait_after_last(pool: Pool, count: int) -> float:
    """Milliseconds from the last turn's end to the return of `wait_for_all`; a median."""
    waits = []
    for _ in range(count):
        futures = pool.submit_many(["question"] * (2 * WORKERS))
        pool.wait_for_all()
        returned = time.time()
        last = max(float(future.result().text) for future in futures)
        waits.append((returned - last) * 1_000)
    return sorted(waits)[len(waits) // 2]
