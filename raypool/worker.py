"""The worker actor: one agent, whose mailbox is this actor's queue of `turn` calls."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import cloudpickle
import msgspec
import ray

from raypool.agent import AgentStart
from raypool.answers import Answers
from raypool.chain_run import TurnRules
from raypool.clock import SystemClock
from raypool.host import AgentHost
from raypool.messages import (
    PoolInfo,
    Rejoined,
    Terms,
    WorkerReport,
    decode_assignments,
    decode_notice,
    encode,
)
from raypool.names import find_dispatcher, reach
from raypool.output_type import OutputType, unpack_output_type
from raypool.telemetry import EventLog
from raypool.turns import TurnEngine

TURN, NOTICE, ANSWERS, CONTROL = "turn", "notice", "answers", "control"
WAITING, TELEMETRY = "waiting", "telemetry"
CONTROL_CALLS = 4
DISPATCHER_CHECK_SECONDS = 2.0
ORPHANED_SECONDS = 3.0
GONE = object()


class WorkerSpec(msgspec.Struct, frozen=True):
    """What a worker is to be.

    Attributes:
        pool: what its agent's handle of the pool attaches to.
        name: the worker's name.
        role: its role.
        concurrency: how many turns it runs at once.
        rules: what holds for its turns.
        epoch: which of the pool's dispatchers starts it, counted from 1.
    """

    pool: PoolInfo
    name: str
    role: str
    concurrency: int
    rules: TurnRules
    epoch: int = 1


def concurrency_groups(concurrency: int) -> dict[str, int]:
    """Ray's limits for a worker's calls.

    Turns; notices, one at a time, and one that waits for what became of them; control calls
    beside them; one that waits; and one that streams telemetry, beside the one it takes over
    from.
    """
    return {
        TURN: concurrency,
        NOTICE: 1,
        ANSWERS: 1,
        CONTROL: CONTROL_CALLS,
        WAITING: 1,
        TELEMETRY: 2,
    }


class Worker:
    """A long-lived Ray actor that runs one agent.

    It is a threaded actor (no method is `async`): only of those does Ray start the
    calls in the order in which they were made. `turn` calls that have not started are
    the mailbox; the limit of their group is the pool's `concurrency`.
    """

    def __init__(self, spec: WorkerSpec, payload: bytes) -> None:
        self._spec = spec
        self._payload = payload
        self._host: AgentHost | None = None
        self._answers = Answers()
        clock, pool = SystemClock(), spec.pool.name
        self._log = EventLog(clock, pool=pool, worker=spec.name, role=spec.role)
        threading.Thread(target=self._watch_dispatcher, name="raypool-watch", daemon=True).start()

    @ray.method(concurrency_group=CONTROL)
    def arrive(self) -> str:
        """The id of the node on which the worker was placed."""
        return _node_id()

    @ray.method(concurrency_group=CONTROL)
    def start(self, snapshot: str | None = None) -> Terms:
        """Unpack the agent and the backend, and get ready; raises the first cause of a failure.

        `snapshot` is what the ledger has of the agent's state. Returns what the worker's turns
        are limited and priced by.
        """
        agent_class, agent_options, backend, attach = cloudpickle.loads(self._payload)
        spec = self._spec
        agent = agent_class()
        agent.pool = attach(spec.pool)
        engine = TurnEngine(
            agent,
            backend,
            spec.rules,
            library=DispatcherLibrary(spec),
            clock=SystemClock(),
            log=self._log,
        )
        host = AgentHost(engine, spec.concurrency, give_up=lambda: os._exit(1), epoch=spec.epoch)
        start = AgentStart(worker=spec.name, role=spec.role, options=agent_options)
        host.start(start, snapshot)
        self._host = host
        return engine.terms

    @ray.method(concurrency_group=CONTROL)
    def rejoin(self, epoch: int) -> Rejoined | None:
        """Work for the dispatcher of that epoch from now on; what is here.

        `None` when the agent is not ready, or its event loop is blocked.
        """
        if self._host is None:
            return None
        return self._host.rejoin(epoch, self._answers.begin_again())

    @ray.method(concurrency_group=TURN)
    def turn(self, envelope: bytes, epoch: int, confirmed: list[int]) -> Iterator[bytes]:
        """Run the tasks of an envelope; yields their outcomes in batches.

        Of the tasks that are `confirmed` the dispatcher of that epoch has recorded the end.
        """
        work = decode_assignments(envelope)
        for batch in self._ready().post(work, epoch=epoch, confirmed=confirmed).batches():
            yield encode(batch)

    @ray.method(concurrency_group=TURN)
    def turn_of_one(self, envelope: bytes, epoch: int, confirmed: list[int]) -> bytes:
        """Run the one task of an envelope: a call that streams costs Ray twice as much."""
        work = decode_assignments(envelope)
        posted = self._ready().post(work, streams=False, epoch=epoch, confirmed=confirmed)
        return encode([outcome for batch in posted.batches() for outcome in batch.outcomes])

    @ray.method(concurrency_group=TURN)
    def take_over(self, numbers: list[int], epoch: int) -> Iterator[bytes]:
        """The outcomes, in batches, of tasks that were begun for an earlier dispatcher."""
        for batch in self._ready().take_over(numbers, epoch=epoch).batches():
            yield encode(batch)

    @ray.method(concurrency_group=NOTICE)
    def notify(self, notice: bytes) -> None:
        """Have the agent hear an event; `answers` tells of it once all that it led to has ended."""
        decoded = decode_notice(notice)
        self._answers.expect(decoded, self._ready().notify(decoded))

    @ray.method(concurrency_group=ANSWERS)
    def answers(self) -> bytes:
        """The outcomes of notices since the last call, as soon as there is one.

        None once another dispatcher has come.
        """
        return encode(self._answers.take())

    @ray.method(concurrency_group=CONTROL)
    def status(self, after: int | None = None) -> WorkerReport:
        """What the worker does now; with `after`, once it has ended that many attempts.

        A call that waits must be made in the group `waiting`.
        """
        host = self._ready()
        if after is not None:
            host.wait_finished(after)
        return WorkerReport(
            _node_id(), os.getpid(), host.running, host.queued, host.finished, host.halted
        )

    @ray.method(concurrency_group=CONTROL)
    def cancel(self, numbers: list[int]) -> list[int]:
        """Interrupt those of these tasks that run; the others, which will not be started."""
        return self._ready().cancel(numbers)

    @ray.method(concurrency_group=CONTROL)
    def recall(self, numbers: list[int]) -> list[int]:
        """Those of these tasks that have not started and will not be, here; others run on."""
        return self._ready().recall(numbers)

    @ray.method(concurrency_group=CONTROL)
    def call_back(self, count: int) -> None:
        """Return what has not started of its first `count` tasks, by their outcomes.

        What capacity is reserved for stays.
        """
        self._ready().call_back(count)

    @ray.method(concurrency_group=CONTROL)
    def interrupt(self) -> int:
        """Interrupt every running turn; how many."""
        return self._ready().interrupt()

    @ray.method(concurrency_group=CONTROL)
    def resume(self) -> bool:
        """Take tasks again after the agent has halted; whether an outcome has told of that."""
        return self._ready().resume()

    @ray.method(concurrency_group=CONTROL)
    def watch(self, is_watched: bool) -> None:
        """Begin or cease to note what happens."""
        self._log.watch(is_watched)

    @ray.method(concurrency_group=TELEMETRY)
    def telemetry(self) -> Iterator[bytes]:
        """What happens, in batches of events; ends when another call of it begins."""
        yield from self._log.batches()

    @ray.method(concurrency_group=CONTROL)
    def stop(self, grace: float, reason: str) -> None:
        """Finish what runs within `grace` seconds, interrupt the rest, and end the agent."""
        if self._host is not None:
            self._host.stop(grace, reason)
        self._log.close()

    def _ready(self) -> AgentHost:
        assert self._host is not None, "the worker has not started"
        return self._host

    def _watch_dispatcher(self) -> None:
        """End this process once the pool's dispatcher is dead, not merely away."""
        dispatcher_id: object = None
        while dispatcher_id is not GONE:
            time.sleep(DISPATCHER_CHECK_SECONDS)
            dispatcher_id = _look_for_dispatcher(self._spec.pool, dispatcher_id)
        if self._host is not None:
            _exit_after(ORPHANED_SECONDS)
            self._host.stop(grace=0.0, reason="the pool's dispatcher has died")
        os._exit(0)


class DispatcherLibrary:
    """What the pool's dispatcher knows, asked for when it is needed."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._pool = spec.pool

    async def conversation(self, session: str) -> list[dict[str, Any]]:
        """The messages of a named session, as the ledger has them."""
        packed: bytes = await self._ask("conversation", session)
        messages: list[dict[str, Any]] = msgspec.msgpack.decode(packed)
        return messages

    async def output_type(self, digest: str) -> OutputType:
        """The type of that digest, its class where a client has brought it."""
        return unpack_output_type(await self._ask("output_type", digest))

    async def _ask(self, method: str, *args: Any) -> bytes:
        dispatcher = find_dispatcher(self._pool.name, self._pool.namespace)
        answer: bytes = await asyncio.to_thread(reach, dispatcher, method, *args)
        return answer


def _exit_after(seconds: float) -> None:
    """End this process by then, whatever its agent does."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _look_for_dispatcher(pool: PoolInfo, known: object) -> object:
    """The id of the pool's dispatcher, `known` while it is away; `GONE` once it is dead.

    One with another id is that of a later pool of the same name.
    """
    try:
        dispatcher = find_dispatcher(pool.name, pool.namespace)
        if known not in (None, dispatcher._actor_id):
            return GONE
        ray.get(dispatcher.ping.remote(), timeout=DISPATCHER_CHECK_SECONDS)
    except (ValueError, ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError):
        return GONE
    except Exception:  # noqa: BLE001 - whatever it is, it does not say that it is dead
        return known
    return dispatcher._actor_id
