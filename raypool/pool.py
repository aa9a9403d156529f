"""The handle of a pool: what users start, ask, watch and stop."""

from __future__ import annotations

import asyncio
import atexit
import threading
import warnings
import weakref
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import uuid_utils

from raypool.agent import Agent, RoleAgent
from raypool.backends.base import Backend
from raypool.client import Client
from raypool.config import Autoscale, Budget, Price, RateLimit, RetryPolicy
from raypool.connection import connect
from raypool.errors import (
    InvalidTask,
    PoolStartError,
    PoolStopped,
    RaypoolError,
    UnknownRole,
    UnknownTask,
    UnknownWorker,
)
from raypool.future import TaskFuture
from raypool.mapping import as_task, map_tasks
from raypool.messages import PoolInfo, decode_ended, decode_found
from raypool.names import find_dispatcher
from raypool.payload import pack_routing
from raypool.records import task_result
from raypool.response import TaskResult, WorkerResults
from raypool.routing import Routing
from raypool.starting import ask_info, start_dispatcher
from raypool.status import PoolStatus
from raypool.stream import Stream
from raypool.task import Content, Task, check_json, check_task
from raypool.telemetry import EventHandler, TelemetryEvent, decode_events
from raypool.verdicts import result_of_found
from raypool.waiting import wait_for_all

RESULTS_PAGE = 1_000
REPR_TIMEOUT_SECONDS = 2.0
FLUSH_SECONDS = 5.0


_owned: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """A running pool of workers, each a long-lived Ray actor with one agent.

    Made by `Pool.start` or `Pool.connect`. Any number of threads, coroutines and Ray
    tasks may use one at once; a pickled one attaches to the same pool where it is
    unpickled. Every method but the `async` ones blocks for as long as it says.
    """

    def __init__(
        self,
        info: PoolInfo,
        dispatcher: Any = None,
        *,
        owns: bool = False,
        is_agents: bool = False,
    ) -> None:
        self._info = info
        self._is_agents = is_agents
        self._dispatcher = dispatcher
        self._owns = owns
        self._client_here: Client | None = None
        self._attaching = threading.Lock()

    # Starting and ending

    @classmethod
    def start(
        cls,
        size: int | None = None,
        *,
        roles: Mapping[str, int] | None = None,
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
            size: how many workers.
            roles: instead of `size`, how many workers of each role.
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
            ledger: a file that keeps tasks and results beyond the pool's life; relative to
                the current directory. `None` keeps them in a temporary one.
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
            "roles": dict(roles) if isinstance(roles, Mapping) else roles,
            "role": role,
            "concurrency": concurrency,
            "memory": memory,
            "routing": pack_routing(routing),
            "mailbox_limit": mailbox_limit,
            "rate_limit": RateLimit() if rate_limit is None else rate_limit,
            "retry": RetryPolicy() if retry is None else retry,
            "autoscale": autoscale,
            "budget": budget,
            "prices": dict(prices or {}),
            "tenants": dict(tenants or {}),
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
            name=name,
            ledger=ledger,
            agents=(agent, agent_options, backend, _attach_agent),
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
        finish. Futures that are unfinished then raise `PoolStopped`; in a named ledger
        their tasks stay queued, and a later start runs them. A second call does nothing,
        but one without `drain` and `grace` ends the wait of an earlier one.
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
        if not self._owns:
            self.close()
            return
        unfinished = self._stop(drain=False, grace=0.0)
        if unfinished:
            warnings.warn(self._unfinished_warning(unfinished), stacklevel=2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self.__exit__, *error)

    # Tasks

    def submit(
        self,
        prompt: Content | Task,
        *,
        role: str | None = None,
        session: str | None = None,
        id: str | None = None,  # noqa: A002 - the contract's word
        metadata: Any = None,
        timeout: float | None = None,
        output_type: Any = None,
        stream: bool = False,
        priority: int = 0,
        tenant: str | None = None,
        hedge_after: float | str | None = None,
        block: bool = True,
    ) -> TaskFuture:
        """Hand over one task and return at once.

        Args:
            prompt: a text, Messages-API messages that end with the user's, or a `Task`.
            role: the role that must answer.
            session: the conversation to continue, by a name of yours.
            id: the task's name for ever; a second submit with it gives the same task's future.
            metadata: whatever JSON can hold; comes back on the result.
            timeout: the longest that one turn may run, in seconds.
            output_type: what the answer must be: a pydantic model, or another type that
                pydantic can validate; `Response.parsed` is then one.
            stream: let `TaskFuture.stream` give the text as it is generated.
            priority: of the tasks that wait, those with a higher one go first.
            tenant: on whose account it is; tenants share the workers by their weights.
            hedge_after: start a second copy on another worker when there is no answer after so
                many seconds, or a percentile of how long turns take, as `"p95"`.
            block: wait for room.

        Waits only when `max_pending` tasks of this process are unfinished, and not even
        then with `block=False` or on a thread that runs an event loop.

        Raises:
            InvalidTask: the prompt or an option is wrong.
            UnknownRole: the pool has no worker of that role.
            PoolFull: there is no room, and the call may not wait.
            PoolStopped: the pool has stopped.
        """
        options = (
            role,
            id,
            metadata,
            timeout,
            session,
            output_type,
            stream,
            priority,
            tenant,
            hedge_after,
        )
        task = prompt
        if not isinstance(task, Task):
            task = Task(task, *options)
        elif any(option is not None and option is not False and option != 0 for option in options):
            raise InvalidTask("a Task brings its own options; submit takes none beside it")
        self._check(task)
        return self._client.submit([task], block=block and not _runs_event_loop())[0]

    def submit_many(
        self, prompts: Iterable[Content | Task], *, block: bool = True
    ) -> list[TaskFuture]:
        """Hand over many tasks in one message; all of them are checked before any is sent.

        Raises what `submit` raises.
        """
        if isinstance(prompts, str):
            raise InvalidTask("submit_many takes a list of prompts, got one text; use submit")
        tasks = [as_task(prompt) for prompt in prompts]
        for task in tasks:
            self._check(task)
        return self._client.submit(tasks, block=block and not _runs_event_loop())

    def map(self, prompts: Iterable[Content | Task], *, ordered: bool = True) -> Stream[TaskResult]:
        """Results as a stream, in the order of `prompts` or as they come.

        Reads `prompts` lazily, at most `max_pending` ahead. A failed task is a result
        with an `error`; nothing is raised for it. Closing the stream early cancels
        what has not ended. Works in `for` and in `async for`.
        """
        window = self._info.max_pending
        return Stream(map_tasks(self.submit, prompts, ordered=ordered, window=window))

    def broadcast(self, prompt: Content | Task, *, role: str | None = None) -> list[TaskFuture]:
        """One task for each worker, or each of a role: a panel of experts.

        In the order of the workers' numbers. A `Task` with an id, or in a session, is refused.

        Raises what `submit` raises.
        """
        task = as_task(prompt)
        if task.id is not None or task.session is not None:
            raise InvalidTask("broadcast makes a task for each worker; leave out id and session")
        if role is not None:
            task = msgspec.structs.replace(task, role=role)
        self._check(task)
        workers = [name for name, one in self.workers.items() if task.role in (None, one)]
        tasks = [task] * len(workers)
        return self._client.submit(tasks, block=not _runs_event_loop(), workers=workers)

    def wait_for_all(self, timeout: float | None = 120.0) -> None:
        """Wait for every task submitted before the call, retries included.

        On return the futures of this process have resolved, and `results()` has them.

        Raises:
            WaitTimeout: some have not ended after `timeout` seconds; names the workers.
            PoolStopped: the pool stopped meanwhile.
        """
        wait_for_all(self._client, self.name, timeout)

    # Results

    def results(self) -> list[WorkerResults]:
        """Per worker, every task that has ended on it, in the order in which they ended."""
        by_worker: dict[str, list[TaskResult]] = {worker: [] for worker in self._info.roles}
        for result in self.iter_results():
            if result.worker is not None:
                by_worker.setdefault(result.worker, []).append(result)
        return [
            WorkerResults(
                worker=worker,
                role=self._info.roles.get(worker, ""),
                count=len(results),
                results=results,
            )
            for worker, results in by_worker.items()
        ]

    def iter_results(self) -> Stream[TaskResult]:
        """Every task that has ended, in the order in which they ended, a page at a time.

        Works in `for` and in `async for`.
        """
        return Stream(self._pages())

    def poll(self, id: str) -> TaskResult:  # noqa: A002 - the contract's word
        """One task as it is now.

        Raises:
            UnknownTask: the ledger has no task of that id.
        """
        self._client.flush()
        found = self._client.call("find", id)
        if found is None:
            raise self._unknown(id)
        return result_of_found(decode_found(found))

    def future(self, id: str) -> TaskFuture:  # noqa: A002 - the contract's word
        """The future of a task that anybody submitted.

        Raises:
            UnknownTask: the ledger has no task of that id.
        """
        self._client.flush()
        future = self._client.watch(id)
        if future is None:
            raise self._unknown(id)
        return future

    # The pool itself

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._info.name

    @property
    def workers(self) -> dict[str, str]:
        """The workers' names, in the order of their numbers, each with its role."""
        return dict(self._info.roles)

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

    def conversation(self, session: str) -> list[dict[str, Any]]:
        """What was said in a session so far, as Messages-API messages; none when it is unknown.

        A task's part is there once its end is recorded.
        """
        self._client.flush()
        messages: list[dict[str, Any]] = msgspec.msgpack.decode(
            self._client.call("conversation", session)
        )
        return messages

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

    def events(self) -> Stream[TelemetryEvent]:
        """What happens in the pool from this call on, as it happens; ends with the pool.

        `raypool.telemetry.EVENTS` lists what there is. A reader that falls 10,000 events
        behind loses the oldest, and gets a `telemetry.dropped`. Works in `for` and in
        `async for`.
        """
        reader = str(uuid_utils.uuid7())
        self._client.call("subscribe", reader)
        return Stream(self._events(reader))

    def status(self) -> PoolStatus:
        """The pool as it is now; takes milliseconds, also while turns run."""
        status: PoolStatus = self._client.call("status")
        return status

    def __repr__(self) -> str:
        try:
            status: PoolStatus = self._client.call("status", timeout=REPR_TIMEOUT_SECONDS)
        except RaypoolError as error:
            state = "stopped" if isinstance(error, PoolStopped) else "does not answer"
            return f"Pool {self.name!r}: {state}"
        size = len(status.workers)
        parts = [
            f"{size} worker{'s' if size != 1 else ''}",
            f"{status.busy} busy",
            f"{status.queued} queued",
        ]
        if status.cost_usd:
            parts.append(f"${status.cost_usd:.2f}")
        return f"Pool {self.name!r}: {', '.join(parts)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._info,)

    @property
    def _client(self) -> Client:
        with self._attaching:
            if self._client_here is None:
                self._client_here = self._attach()
            return self._client_here

    def _attach(self) -> Client:
        if self._dispatcher is None:
            try:
                self._dispatcher = find_dispatcher(self._info.name, self._info.namespace)
            except ValueError:
                raise self._stopped() from None
        client = Client(self._dispatcher, self._info)
        weakref.finalize(self, client.retire)
        return client

    def _stop(self, drain: bool, grace: float) -> int:
        """Stop the pool; how many accepted tasks it leaves unfinished."""
        try:
            client = self._client
            client.flush(None if drain else FLUSH_SECONDS)
            unfinished: int = client.call("stop", drain, float(grace))
        except PoolStopped:
            return 0
        client.end(str(self._stopped()))
        _owned.discard(self)
        return unfinished

    def _check(self, task: Task) -> None:
        check_task(task)
        if task.role is not None and task.role not in self._info.roles.values():
            roles = ", ".join(sorted(set(self._info.roles.values())))
            raise UnknownRole(
                f"pool {self.name!r} has no worker with the role {task.role!r}; it has: {roles}"
            )

    def _check_worker(self, worker: str) -> None:
        if worker not in self._info.roles:
            names = ", ".join(map(repr, self._info.roles))
            raise UnknownWorker(f"pool {self.name!r} has no worker {worker!r}; it has: {names}")

    def _events(self, reader: str) -> Generator[TelemetryEvent, None, None]:
        try:
            while True:
                yield from decode_events(self._client.call("telemetry", reader))
        except PoolStopped:
            return
        finally:
            with suppress(RaypoolError):
                self._client.call("unsubscribe", reader)

    def _pages(self) -> Generator[TaskResult, None, None]:
        after = 0
        while page := decode_ended(self._client.call("ended", after, RESULTS_PAGE)):
            for ended in page:
                yield task_result(ended.task, ended.ending)
            after = page[-1].position

    def _unfinished_warning(self, unfinished: int) -> str:
        kept = (
            "; a start on the same ledger runs them"
            if self._info.keeps_ledger
            else "; wait_for_all() or stop(drain=True) finishes them first"
        )
        tasks = "1 task" if unfinished == 1 else f"{unfinished} tasks"
        return f"pool {self.name!r} stopped with {tasks} unfinished{kept}"

    def _unknown(self, task_id: str) -> UnknownTask:
        return UnknownTask(f"pool {self.name!r} knows no task {task_id!r}")

    def _stopped(self) -> PoolStopped:
        return PoolStopped(f"pool {self.name!r} has stopped")


def _attach(info: PoolInfo) -> Pool:
    return Pool(info)


def _attach_agent(info: PoolInfo) -> Pool:
    """The handle of the pool that one of its own agents has."""
    return Pool(info, is_agents=True)


@atexit.register
def _stop_owned() -> None:
    """A pool that ends with its program takes its temporary files along."""
    for pool in list(_owned):
        with suppress(Exception):
            pool.stop()


def _runs_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    return asyncio._get_running_loop() is not None
