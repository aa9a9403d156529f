"""The worker actor: one agent, whose mailbox is this actor's queue of `turn` calls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import cloudpickle
import msgspec
import ray

from raypool.agent import AgentStart
from raypool.clock import SystemClock
from raypool.host import AgentHost
from raypool.messages import WorkerReport, decode_assignments, encode
from raypool.names import find_dispatcher
from raypool.turns import Memory, TurnEngine

TURN, CONTROL, WAITING = "turn", "control", "waiting"
CONTROL_CALLS = 4
DISPATCHER_CHECK_SECONDS = 2.0
GONE = object()


class WorkerSpec(msgspec.Struct, frozen=True):
    """What a worker is to be.

    Attributes:
        pool: the pool's name.
        namespace: the Ray namespace of the pool's actors.
        name: the worker's name.
        role: its role.
        concurrency: how many turns it runs at once.
        memory: whether a conversation is a task's or the worker's.
        turn_timeout: the longest that a turn may run, in seconds.
    """

    pool: str
    namespace: str
    name: str
    role: str
    concurrency: int
    memory: Memory
    turn_timeout: float


def concurrency_groups(concurrency: int) -> dict[str, int]:
    """Ray's limits for a worker's calls: turns, control calls beside them, and one that waits."""
    return {TURN: concurrency, CONTROL: CONTROL_CALLS, WAITING: 1}


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
        threading.Thread(target=self._watch_dispatcher, name="raypool-watch", daemon=True).start()

    @ray.method(concurrency_group=CONTROL)
    def arrive(self) -> str:
        """The id of the node on which the worker was placed."""
        return _node_id()

    @ray.method(concurrency_group=CONTROL)
    def start(self) -> None:
        """Unpack the agent and the backend, and get ready; raises the first cause of a failure."""
        agent_class, agent_options, backend = cloudpickle.loads(self._payload)
        spec = self._spec
        engine = TurnEngine(
            agent_class(),
            backend,
            memory=spec.memory,
            turn_timeout=spec.turn_timeout,
            clock=SystemClock(),
        )
        host = AgentHost(engine, spec.concurrency)
        host.start(AgentStart(worker=spec.name, role=spec.role, options=agent_options))
        self._host = host

    @ray.method(concurrency_group=TURN)
    def turn(self, envelope: bytes) -> Iterator[bytes]:
        """Run the tasks of an envelope; yields their outcomes in batches."""
        for batch in self._ready().post(decode_assignments(envelope)).batches():
            yield encode(batch)

    @ray.method(concurrency_group=TURN)
    def turn_of_one(self, envelope: bytes) -> bytes:
        """Run the one task of an envelope: a call that streams costs Ray twice as much."""
        batches = self._ready().post(decode_assignments(envelope)).batches()
        return encode([outcome for batch in batches for outcome in batch])

    @ray.method(concurrency_group=CONTROL)
    def status(self, after: int | None = None) -> WorkerReport:
        """What the worker does now; with `after`, once it has ended that many attempts.

        A call that waits must be made in the group `waiting`.
        """
        host = self._ready()
        if after is not None:
            host.wait_finished(after)
        return WorkerReport(_node_id(), os.getpid(), host.running, host.queued, host.finished)

    @ray.method(concurrency_group=CONTROL)
    def cancel(self, numbers: list[int]) -> list[int]:
        """Interrupt those of these tasks that run; the others, which will not be started."""
        return self._ready().cancel(numbers)

    @ray.method(concurrency_group=CONTROL)
    def stop(self, grace: float) -> None:
        """Finish what runs within `grace` seconds, interrupt the rest, and end the agent."""
        if self._host is not None:
            self._host.stop(grace)

    def _ready(self) -> AgentHost:
        assert self._host is not None, "the worker has not started"
        return self._host

    def _watch_dispatcher(self) -> None:
        """End this process once the pool's dispatcher is dead, not merely away."""
        dispatcher_id: object = None
        while dispatcher_id is not GONE:
            time.sleep(DISPATCHER_CHECK_SECONDS)
            dispatcher_id = _look_for_dispatcher(self._spec, dispatcher_id)
        if self._host is not None:
            self._host.stop(grace=0.0)
        os._exit(0)


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _look_for_dispatcher(spec: WorkerSpec, known: object) -> object:
    """The id of the pool's dispatcher, `known` while it is away; `GONE` once it is dead.

    One with another id is that of a later pool of the same name.
    """
    try:
        dispatcher = find_dispatcher(spec.pool, spec.namespace)
        if known not in (None, dispatcher._actor_id):
            return GONE
        ray.get(dispatcher.ping.remote(), timeout=DISPATCHER_CHECK_SECONDS)
    except (ValueError, ray.exceptions.ActorDiedError):
        return GONE
    except Exception:  # noqa: BLE001 - whatever it is, it does not say that it is dead
        return known
    return dispatcher._actor_id
