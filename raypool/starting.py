"""From the options of a pool to its running dispatcher."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from raypool.config import PoolConfig, check_resources
from raypool.connection import connect
from raypool.dispatcher import Dispatcher
from raypool.errors import LedgerError, PoolStartError, RaypoolError
from raypool.interruption import notice_sigterm
from raypool.ledgers import AGAIN_SECONDS, GOING_SECONDS, FoundLedger, find_ledger
from raypool.messages import PoolInfo
from raypool.names import dispatcher_name
from raypool.payload import pack_handler
from raypool.pieces import in_pieces
from raypool.recipes import Attach, Recipe, pack_recipes, part_roles
from raypool.telemetry import EventHandler
from raypool.temporary import discard_ledger, make_ledger

logger = logging.getLogger(__name__)

CONCURRENT_CALLS = 10_000
A_BYTE = 1
"""Of memory: Ray puts an actor that asks for nothing anywhere, whatever node it prefers."""


def start_dispatcher(
    options: Mapping[str, Any],
    *,
    roles: Mapping[str, Any] | None,
    name: str | None,
    ledger: str | None,
    recipe: Recipe,
    attach: Attach,
    on_event: EventHandler | None,
    address: str | None,
    worker_resources: Mapping[str, Any] | None,
) -> tuple[PoolInfo, Any]:
    """Check everything, connect to Ray, and return when the pool runs.

    Returns the handle of the dispatcher too: unless the pool is detached, Ray ends its
    dispatcher when this handle is dropped.

    Raises:
        PoolStartError, ValueError, TypeError: see `Pool.start`.
    """
    resources = check_resources(worker_resources)
    found = _find_ledger(ledger)
    config = PoolConfig(
        name=_pool_name(name, found),
        ledger=found and found.shown,
        postgres=found and found.postgres,
        worker_resources=resources,
        roles=part_roles(roles),
        **options,
    )
    payloads = pack_recipes(recipe, config.role, roles, attach)
    handler = pack_handler(on_event)
    connect(address)
    notice_sigterm()
    config = _with_ledger(config)
    try:
        dispatcher = _create_once_gone(config, payloads, handler)
    except BaseException:
        _discard_ledger(config)
        raise
    try:
        info: PoolInfo = _answer(dispatcher.start.remote())
        for remark in _answer(dispatcher.remarks.remote()):
            logger.warning("pool %r: %s", info.name, remark)
    except BaseException:
        ray.kill(dispatcher, no_restart=True)
        _discard_ledger(config)
        raise
    return info, dispatcher


def ask_info(dispatcher: Any, name: str) -> PoolInfo:
    """What a running pool is.

    Raises:
        PoolStartError: its dispatcher is dying.
    """
    try:
        info: PoolInfo = _answer(dispatcher.info.remote())
    except ray.exceptions.RayError as error:
        raise PoolStartError(f"pool {name!r} does not answer: {error}") from error
    return info


class _NameTaken(PoolStartError):
    """A pool of that name runs, or is about to end."""


def _create_once_gone(config: PoolConfig, payloads: dict[str, bytes], handler: bytes | None) -> Any:
    """The dispatcher, once that of an earlier program on the same ledger has ended."""
    until_gone = Retrying(
        retry=retry_if_exception_type(_NameTaken),
        wait=wait_fixed(AGAIN_SECONDS),
        stop=stop_after_delay(0.0 if config.ledger is None else GOING_SECONDS),
        reraise=True,
    )
    return until_gone(_create, config, payloads, handler)


def _create(config: PoolConfig, payloads: dict[str, bytes], handler: bytes | None) -> Any:
    """On this node, where the ledger's file is; one in PostgreSQL lets it come back on others."""
    may_move = config.postgres is not None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=may_move)
    actor_class = ray.remote(Dispatcher)
    try:
        return actor_class.options(
            name=dispatcher_name(config.name),
            namespace=config.namespace,
            lifetime="detached" if config.detached else None,
            num_cpus=0,
            memory=A_BYTE if may_move else None,
            max_restarts=-1,
            max_concurrency=CONCURRENT_CALLS,
            scheduling_strategy=here,
        ).remote(config, *in_pieces(payloads, handler))
    except (ValueError, ray.exceptions.ActorAlreadyExistsError):
        raise _NameTaken(
            f"a pool named {config.name!r} runs already in namespace {config.namespace!r}; "
            f"Pool.connect({config.name!r}) attaches to it, or give this one another name"
        ) from None


def _answer(ref: Any) -> Any:
    """What the dispatcher answers; its own errors as they were raised there."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RaypoolError):
            raise error.cause from None
        raise PoolStartError(f"the pool could not start: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise PoolStartError(f"the pool could not start: {error}") from error


def _find_ledger(ledger: object) -> FoundLedger | None:
    if ledger is None:
        return None
    try:
        return find_ledger(ledger)
    except LedgerError as error:
        raise PoolStartError(str(error)) from error


def _with_ledger(config: PoolConfig) -> PoolConfig:
    """With the place of a temporary ledger, here where the dispatcher runs, if it keeps none."""
    if config.ledger is not None:
        return config
    try:
        path = make_ledger(outlives_program=config.detached)
    except OSError as error:
        raise PoolStartError(
            f"no temporary ledger can be made: {error}; give ledger a path, or set TMPDIR"
        ) from error
    return config.model_copy(update={"temporary_ledger": path})


def _discard_ledger(config: PoolConfig) -> None:
    if config.temporary_ledger is not None:
        discard_ledger(config.temporary_ledger)


def _pool_name(name: str | None, found: FoundLedger | None) -> str:
    kept = found and found.pool
    if found and name is not None and kept is not None and name != kept:
        raise ValueError(
            f"name must be {kept!r} or left out: that is the pool of ledger {found.shown!r}, "
            f"got {name!r}"
        )
    return name or kept or f"pool-{secrets.token_hex(3)}"
