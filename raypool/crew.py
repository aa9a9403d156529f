"""The worker actors of a pool: started, waited for, and started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import SchedulingStrategyT

from raypool.chain_run import TurnRules
from raypool.config import PoolConfig
from raypool.errors import PoolStartError
from raypool.link import WorkerGone, WorkerLink
from raypool.messages import PoolInfo
from raypool.naming import Naming
from raypool.worker import Worker, WorkerSpec, concurrency_groups

SPREAD: SchedulingStrategyT = "SPREAD"
PATIENCE_AFTER_ARRIVAL = 1.0
GOING_SECONDS = 5.0


class Crew:
    """Starts a pool's workers.

    Attributes:
        info: what clients, and the workers' agents, know of the pool.
    """

    def __init__(
        self, config: PoolConfig, payloads: Mapping[str, bytes], naming: Naming, epoch: int
    ) -> None:
        """Work by `config`, for the dispatcher of that epoch.

        `payloads` are what the workers of each role unpack.
        """
        self._epoch = epoch
        self._config = config
        self._payloads = payloads
        self._naming = naming
        self.info = PoolInfo(
            name=config.name,
            namespace=config.namespace,
            roles=tuple(config.by_role),
            max_pending=config.max_pending,
            keeps_ledger=config.ledger is not None,
        )

    def start_all(self, names: Iterable[str]) -> dict[str, WorkerLink]:
        """Ask Ray for workers, all or none; by name."""
        links: dict[str, WorkerLink] = {}
        try:
            for name in names:
                links[name] = self.start(name)
        except Exception:
            self.end_all(links)
            raise
        return links

    def end_all(self, links: Mapping[str, WorkerLink]) -> None:
        """End workers; returns when others can have their names, or Ray takes too long."""
        for link in links.values():
            link.kill()
        deadline = time.monotonic() + GOING_SECONDS
        for name in links:
            _await_gone(name, self._config.namespace, deadline)

    def find(self, names: Iterable[str]) -> dict[str, WorkerLink]:
        """Those of these workers that there are, by name."""
        links: dict[str, WorkerLink] = {}
        for name in names:
            with suppress(ValueError):
                handle = ray.get_actor(name, namespace=self._config.namespace)
                links[name] = WorkerLink(handle, self._epoch)
        return links

    def start(self, name: str) -> WorkerLink:
        """Ask Ray for one worker, in the place of any other of its name."""
        config, role = self._config, self._naming.role_of(name)
        _end_orphan(name, config.namespace)
        concurrency = config.by_role[role].concurrency
        groups: dict[str, Any] = {"concurrency_groups": concurrency_groups(concurrency)}
        actor_class: Any = ray.remote(**groups)(Worker)
        handle = actor_class.options(
            name=name,
            namespace=config.namespace,
            lifetime="detached",
            scheduling_strategy=SPREAD,
            max_restarts=0,
            max_task_retries=0,
            **config.worker_resources,
        ).remote(self._spec(name, role), self._payloads[role])
        return WorkerLink(handle, self._epoch)

    def _spec(self, name: str, role: str) -> WorkerSpec:
        config = self._config
        return WorkerSpec(
            pool=self.info,
            name=name,
            role=role,
            concurrency=config.by_role[role].concurrency,
            rules=TurnRules(
                memory=config.memory,
                turn_timeout=config.turn_timeout,
                max_attempts=config.retry.max_attempts,
                max_turns_per_task=config.max_turns_per_task,
                parse_attempts=config.parse_attempts,
                prices=config.prices,
            ),
            epoch=self._epoch,
        )


def _end_orphan(name: str, namespace: str) -> None:
    """A worker of that name, in this pool's only dispatcher, is one of a pool that is dead."""
    try:
        ray.kill(ray.get_actor(name, namespace=namespace), no_restart=True)
    except ValueError:
        return
    _await_gone(name, namespace, time.monotonic() + GOING_SECONDS)


def _await_gone(name: str, namespace: str, deadline: float) -> None:
    """Return when no actor has that name, at `deadline` by `time.monotonic` at the latest."""
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name, namespace=namespace)
        except ValueError:
            return
        time.sleep(0.01)


async def await_ready(
    config: PoolConfig,
    links: dict[str, WorkerLink],
    snapshots: dict[str, str | None],
    *,
    waits_for_place: bool = False,
) -> None:
    """Return when every worker is ready, its agent with the state that it has in `snapshots`.

    With `waits_for_place` the `start_timeout` begins once they are placed, however long that
    takes: Ray may have to add nodes first.

    Raises:
        PoolStartError: with the first cause, or what is missing after `start_timeout`.
    """
    loop = asyncio.get_running_loop()
    deadline = None if waits_for_place else loop.time() + config.start_timeout
    missing = await _each(links, (link.arrive() for link in links.values()), deadline)
    if missing:
        raise PoolStartError(await asyncio.to_thread(_not_placed, config, missing, len(links)))
    deadline = deadline or loop.time() + config.start_timeout
    starts = (link.start(snapshots.get(name)) for name, link in links.items())
    missing = await _each(links, starts, deadline)
    if missing:
        raise PoolStartError(
            f"worker {missing[0]!r} was not ready within {config.start_timeout:g} s: its backend "
            "or its agent's init_agent or pre_run is still busy; "
            "a longer start_timeout=… waits longer"
        )


async def _each(
    links: dict[str, WorkerLink], calls: Iterable[Awaitable[Any]], deadline: float | None
) -> list[str]:
    """Await a call to each worker; the names of those that have not answered in time."""
    if not links:
        return []
    tasks = {asyncio.ensure_future(call): name for name, call in zip(links, calls, strict=True)}
    remaining = None
    if deadline is not None:
        remaining = max(PATIENCE_AFTER_ARRIVAL, deadline - asyncio.get_running_loop().time())
    try:
        done, late = await asyncio.wait(
            tasks, timeout=remaining, return_when=asyncio.FIRST_EXCEPTION
        )
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise
    for task in done:
        error = task.exception()
        if error is not None:
            raise PoolStartError(_why(tasks[task], error)) from error
    for task in late:
        task.cancel()
    return [tasks[task] for task in tasks if task in late]


def _why(name: str, error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, PoolStartError):
        return str(cause)
    if isinstance(cause, WorkerGone):
        return f"worker {name!r} died as it started: {cause}"
    return f"worker {name!r} could not start: {type(cause).__name__}: {cause}"


def asked_of_ray(config: PoolConfig) -> str:
    """What each worker asks Ray for, for a person."""
    asked = {key: value for key, value in config.worker_resources.items() if value}
    return f"each asks for {asked or 'no resources'}"


def _not_placed(config: PoolConfig, missing: list[str], size: int) -> str:
    """What Ray lacks; asks it, which may take seconds."""
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return (
        f"{len(missing)} of {size} workers could not be placed within "
        f"{config.start_timeout:g} s: {asked_of_ray(config)}; the cluster has "
        f"{_brief(has)}, of which {_brief(free)} free. "
        "Ask for less with worker_resources=…, or add nodes"
    )


def _brief(resources: dict[str, float]) -> str:
    named = {key: value for key, value in resources.items() if not key.startswith("node:")}
    return ", ".join(f"{key} {value:g}" for key, value in sorted(named.items())) or "nothing"
