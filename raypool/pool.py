"""The handle of a pool: what users start, ask, watch and stop."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import warnings
import weakref
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from raypool.agent import Agent, RoleAgent
from raypool.backends.base import Backend
from raypool.config import Autoscale, Budget, Price, RateLimit, RetryPolicy, checked_sizes
from raypool.connection import connect
from raypool.errors import InvalidTask, PoolStartError, PoolStopped
from raypool.interruption import GRACE_SECONDS, SIGNALS_RAISE, is_interruption
from raypool.messages import PoolInfo, Stopped
from raypool.names import find_dispatcher
from raypool.payload import pack_routing
from raypool.racing import Racing
from raypool.recipes import Recipe
from raypool.routing import Routing
from raypool.starting import ask_info, start_dispatcher
from raypool.task import check_json
from raypool.telemetry import EventHandler

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0


_owned: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool(Racing):
    """A running pool of workers, each a long-lived Ray actor with one agent.

    Made by `Pool.start` or `Pool.connect`. Any number of threads, coroutines and Ray
    tasks may use one at once; a pickled one attaches to the same pool where it is
    unpickled. Every method but the `async` ones blocks for as long as it says.
    """

    # Starting and ending

    @classmethod
    def start(
        cls,
        size: int | None = None,
        *,
        roles: Mapping[str, int | Mapping[str, Any]] | None = None,
        role: str = "research assistant",
        agent: type[Agent] = RoleAgent,
        agent_options: Mapping[str, Any] | None = None,
        backend: Backend | None = None,
        concurrency: int = 1,
        memory: Literal["task", "worker"] = "task",
        routing: str | Routing = "round_robin",
        mailbox_limit: int | None = None,
        rate_limit: RateLimit | None = None,
        retry: RetryPolicy | None = None,
        autoscale: Autoscale | None = None,
        budget: Budget | None = None,
        prices: Mapping[str, Price] | None = None,
        tenants: Mapping[str, float] | None = None,
        hedge_after: float | str | None = None,
        hedge_share: float = 0.05,
        turn_timeout: float = 600.0,
        max_turns_per_task: int = 50,
        parse_attempts: int = 3,
        on_event: EventHandler | None = None,
        start_timeout: float = 120.0,
        max_pending: int = 100_000,
        ledger: str | None = None,
        name: str | None = None,
        namespace: str = "raypool",
        detached: bool = False,
        address: str | None = None,
        worker_resources: Mapping[str, Any] | None = None,
    ) -> Pool:
        """Start a pool and return when every agent is ready.

        Args:
            size: how many workers; may be left out with `autoscale`, which then begins with
                its `min_size`.
            roles: instead of `size`, how many workers of each role: a number, or a mapping with
                a `size` and what these workers have of their own of `agent`, `agent_options`,
                `backend`, `concurrency`, `routing`, `mailbox_limit`, `rate_limit` and
                `autoscale`.
            role: the role of every worker, with `size`.
            agent: the class of the agents, instantiated without arguments in each worker.
            agent_options: what every agent finds in `AgentStart.options`.
            backend: what turns talk to; `None` means `AnthropicBackend()`.
            concurrency: how many turns each worker runs at once.
            memory: `"task"` gives each task a conversation of its own; `"worker"` gives
                each worker one for its whole life.
            routing: who gets a task. `"round_robin"`: task k goes to worker k mod N;
                `"least_loaded"`: to the worker that has the fewest; `"next_free"`: to the
                first that is free; or an object with the `raypool.routing.Routing` protocol.
            mailbox_limit: at most so many tasks are sent to a worker beyond those it runs;
                `None` adapts to how fast it is.
            rate_limit: what may be sent to the provider; `None` means `RateLimit()`, which
                finds the provider's own limit.
            retry: how often a failed turn is tried again; `None` means `RetryPolicy()`.
            autoscale: how many workers there are, by what waits; `None` keeps their number.
            budget: the most that may be spent; `None` sets no limit.
            prices: what models cost, by their names; they come before the known prices.
            tenants: the weights by which tenants share the workers; 1 for others.
            hedge_after: when a second copy of a task is started, as in `Task`.
            hedge_share: how many turns may be second copies, as a share of all.
            turn_timeout: the longest that one turn may run, in seconds.
            max_turns_per_task: the most turns of one task, when its agent asks for more or its
                model calls tools; a task that reaches it fails.
            parse_attempts: how many answers in all a model may give before one fits the
                output type.
            on_event: is called with every `TelemetryEvent`, on a thread beside the
                dispatcher; one that raises is detached.
            start_timeout: the longest to wait for the workers, in seconds.
            max_pending: how many tasks a client may have unfinished before `submit` waits.
            ledger: what keeps tasks and results beyond the pool's life: a file, relative to
                the current directory, or a PostgreSQL database, as
                `postgresql://USER@HOST/DATABASE?schema=NAME`. `None`: a temporary file. A file
                that another pool has is waited for, 10 seconds.
            name: the pool's name; `None` means the ledger's, or a new one.
            namespace: the Ray namespace of the pool's actors.
            detached: the pool outlives this process, until somebody stops it.
            address: the Ray to use. `None`: the one this process uses, else
                `RAY_ADDRESS`, else a new local one.
            worker_resources: Ray resources that each worker asks for, as `num_cpus`,
                `num_gpus`, `memory` (bytes) and `resources`; `None` means none.

        Raises:
            PoolStartError: with the first cause; nothing is left running.
            ValueError, TypeError: an option is wrong; names it.
        """
        options = {
            "size": size,
            "role": role,
            "concurrency": concurrency,
            "memory": memory,
            "routing": pack_routing(routing),
            "mailbox_limit": mailbox_limit,
            "rate_limit": RateLimit() if rate_limit is None else rate_limit,
            "retry": RetryPolicy() if retry is None else retry,
            "autoscale": autoscale,
            "budget": budget,
            "prices": _mapping(prices),
            "tenants": _mapping(tenants),
            "hedge_after": hedge_after,
            "hedge_share": hedge_share,
            "turn_timeout": turn_timeout,
            "max_turns_per_task": max_turns_per_task,
            "parse_attempts": parse_attempts,
            "start_timeout": start_timeout,
            "max_pending": max_pending,
            "namespace": namespace,
            "detached": detached,
        }
        info, dispatcher = start_dispatcher(
            options,
            roles=roles,
            name=name,
            ledger=ledger,
            recipe=Recipe(agent, agent_options, backend),
            attach=_attach_agent,
            on_event=on_event,
            address=address,
            worker_resources=worker_resources,
        )
        pool = cls(info, dispatcher, owns=not detached)
        if not detached:
            _owned.add(pool)
        return pool

    @classmethod
    def connect(cls, name: str, namespace: str = "raypool", *, address: str | None = None) -> Pool:
        """Attach to a running pool from any process of its cluster.

        Raises:
            PoolStartError: no pool of that name runs in that namespace.
        """
        connect(address)
        try:
            dispatcher = find_dispatcher(name, namespace)
        except ValueError:
            raise PoolStartError(
                f"no pool {name!r} runs in namespace {namespace!r}; "
                f"Pool.start(…, name={name!r}, detached=True) starts one"
            ) from None
        return cls(ask_info(dispatcher, name), dispatcher)

    def stop(self, *, drain: bool = False, grace: float = 0.0) -> None:
        """End the pool: its workers, its dispatcher and its temporary files.

        Nothing new starts, and what runs is interrupted. With `drain` every accepted
        task is finished first; with `grace` running turns have that many seconds to
        finish. Ctrl-C and SIGTERM give them 30, where they end the block of `Pool.start` or the
        program. Futures that are unfinished then raise `PoolStopped`; in a named ledger
        their tasks stay queued, and a later start runs them. A second call does nothing,
        but one without `drain` and `grace` ends the wait of an earlier one.

        While the ledger cannot be written, `drain` waits until it can; any other stop gives it
        some seconds more than `grace`, and logs of how many tasks the answers were not recorded.
        """
        self._stop(drain, grace)

    def close(self) -> None:
        """Send what is still in this process and close this handle; the pool goes on."""
        if self._client_here is not None:
            self._client_here.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._owns:
            self._end_with_program(error, stacklevel=3)
        else:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        leaving = asyncio.ensure_future(asyncio.to_thread(self.__exit__, *error))
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            if self._owns:
                await asyncio.to_thread(self.stop)
            await leaving
            raise

    # Workers

    def notify(self, worker: str, event: Any) -> None:
        """Have the agent of a worker handle an event; returns at once.

        It is heard at the end of a running turn, in the order of arrival, before anything
        from the mailbox. `wait_for_all` waits for it too, and for what agents notify each
        other of because of it.

        Args:
            worker: the worker's name.
            event: whatever JSON can hold.

        Raises:
            UnknownWorker: the pool has no worker of that name.
            TypeError: JSON cannot hold the event.
        """
        self._check_worker(worker)
        try:
            check_json(event, "an event")
        except InvalidTask as error:
            raise TypeError(str(error)) from None
        packed = msgspec.msgpack.encode(event)
        self._client.call("notify", worker, packed, self._is_agents)

    def interrupt(self, worker: str) -> int:
        """Interrupt the running turn of a worker, or all of them; how many there were.

        The agent's `handle_error` gets an `Interrupted`, which the task fails with unless
        that decides otherwise; the worker goes on with its next task.

        Raises:
            UnknownWorker: the pool has no worker of that name.
        """
        self._check_worker(worker)
        interrupted: int = self._client.call("interrupt", worker)
        return interrupted

    def resume(self, worker: str) -> None:
        """Have a halted worker take tasks again; does nothing for one that is not halted.

        Raises:
            UnknownWorker: the pool has no worker of that name.
        """
        self._check_worker(worker)
        self._client.call("resume", worker)

    def set_budget(self, budget: Budget | None) -> None:
        """Have another budget from now on; what is spent already counts. `None`: none at all.

        A pool whose budget was spent goes on as far as the new one goes.

        Raises:
            ValueError: it is in USD, and the price of a model is not known; says what to do.
            TypeError: it is no `Budget`.
        """
        if budget is not None and not isinstance(budget, Budget):
            raise TypeError(f"set_budget takes a Budget or None, got {budget!r:.80}")
        problem: str | None = self._client.call("set_budget", budget)
        if problem is not None:
            raise ValueError(problem)

    def resume_sending(self) -> None:
        """Send again at once, after fatal errors have stopped the sending.

        Does nothing for a pool that sends; a spent budget is raised by `set_budget`.
        """
        self._client.call("resume_sending")

    def scale(self, size: int | None = None, *, roles: Mapping[str, int] | None = None) -> None:
        """Have so many workers, or so many of each of these roles; returns when it is so.

        A pool that grows waits until the new workers are ready. One that shrinks lets idle
        workers go at once and busy ones after their running turn: then they take no more tasks,
        others get what they had not started, and their sessions go on elsewhere. Without workers
        tasks wait. With `autoscale` the size goes on from there, within its bounds.

        Args:
            size: how many workers, of a pool with one role.
            roles: how many workers of each role that is named; the others stay as they are.

        Raises:
            ValueError: it is no number of workers, or of a role that the pool does not have.
            PoolStartError: the new workers cannot come; the pool goes on as it was.
            PoolStopped: the pool has stopped, or stops.
        """
        self._client.call("scale", checked_sizes(self._info.roles, size, roles))

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._info,)

    def _stop(self, drain: bool, grace: float) -> int:
        """Stop the pool; how many accepted tasks it leaves unfinished."""
        try:
            client = self._client
            client.flush(None if drain else FLUSH_SECONDS)
            stopped: Stopped = client.call("stop", drain, float(grace))
        except PoolStopped:
            return 0
        client.end(str(self._stopped()))
        _owned.discard(self)
        if stopped.unrecorded:
            logger.error("%s", self._unrecorded_error(stopped))
        return stopped.unfinished

    def _end_with_program(self, error: BaseException | None, *, stacklevel: int) -> None:
        """Stop, and warn of what is unfinished; `error` is what the program ends with.

        One that is told to end lets running turns finish, until it is told so again.
        """
        grace = 0.0
        if is_interruption(error):
            grace = GRACE_SECONDS
            logger.warning(
                "pool %r: stopping after the running turns, %g s at most; Ctrl-C again stops now",
                self.name,
                grace,
            )
        try:
            unfinished = self._stop(drain=False, grace=grace)
        except SIGNALS_RAISE:
            self._warn(self._stop(drain=False, grace=0.0), stacklevel)
            raise
        self._warn(unfinished, stacklevel)

    def _warn(self, unfinished: int, stacklevel: int) -> None:
        if unfinished:
            warnings.warn(self._unfinished_warning(unfinished), stacklevel=stacklevel + 1)

    def _unrecorded_error(self, stopped: Stopped) -> str:
        tasks = "1 task" if stopped.unrecorded == 1 else f"{stopped.unrecorded} tasks"
        again = "; a start on the same ledger runs them again" if self._info.keeps_ledger else ""
        return (
            f"pool {self.name!r} stopped, and how {tasks} had ended could not be recorded{again}: "
            f"{stopped.ledger_error}"
        )

    def _unfinished_warning(self, unfinished: int) -> str:
        kept = (
            "; a start on the same ledger runs them"
            if self._info.keeps_ledger
            else "; wait_for_all() or stop(drain=True) finishes them first"
        )
        tasks = "1 task" if unfinished == 1 else f"{unfinished} tasks"
        return f"pool {self.name!r} stopped with {tasks} unfinished{kept}"


def _mapping(given: object) -> object:
    """A mapping as `PoolConfig` takes it; it refuses what is none."""
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else given


def _attach(info: PoolInfo) -> Pool:
    return Pool(info)


def _attach_agent(info: PoolInfo) -> Pool:
    """The handle of the pool that one of its own agents has."""
    return Pool(info, is_agents=True)


@atexit.register
def _stop_owned() -> None:
    """A pool ends with its program, as it would with its block."""
    for pool in list(_owned):
        with suppress(Exception):
            pool._end_with_program(getattr(sys, "last_value", None), stacklevel=2)
