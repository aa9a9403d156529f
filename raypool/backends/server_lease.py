"""A process's hold on the model server of its node."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypool.backends.model_server import ModelServer, ServerAddress, ServerSettings
from raypool.errors import PoolStartError

NAMESPACE = "raypool"
RENEW_SECONDS = 3.0

_LOAD_TIMEOUT = 600.0
_RELEASE_TIMEOUT = 5.0
_TRIES = 5
_TRY_AGAIN_SECONDS = 0.2


class ServerLease:
    """One user's lease on the model server of this node, renewed until it is released.

    A thread renews it, so that it holds while the user's event loop is blocked.
    Every method may be called from any thread, and may block.
    """

    def __init__(self, settings: ServerSettings) -> None:
        if not ray.is_initialized():
            raise RuntimeError("the local model is served by a Ray actor: call ray.init() first")
        self._settings = settings
        self._user = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._server: Any = None
        self._address: ServerAddress | None = None
        self._released = threading.Event()
        self._renewal: threading.Thread | None = None

    def address(self) -> ServerAddress:
        """Where the server listens; finds it, or starts it, unless that is known already.

        Raises:
            PoolStartError: the server cannot start on this node; says why.
        """
        with self._lock:
            if self._address is None:
                self._address = self._find()
                self._ensure_renewal()
            return self._address

    def doubt(self, address: ServerAddress) -> None:
        """Look the server up again before the next use: `address` did not answer."""
        with self._lock:
            if self._address == address:
                self._address = None

    def release(self) -> None:
        """End the lease. The server ends with its last one."""
        self._released.set()
        with self._lock:
            if self._server is None or not ray.is_initialized():
                return
            with contextlib.suppress(RayError):
                ray.get(self._server.release.remote(self._user), timeout=_RELEASE_TIMEOUT)
            self._server = self._address = None

    def _find(self) -> ServerAddress:
        """The server may end, for want of users, between being found and being asked."""
        for _ in range(_TRIES):
            self._server = _node_server(self._settings)
            try:
                return self._ask(timeout=_LOAD_TIMEOUT)
            except RayActorError as error:
                cause = error
                time.sleep(_TRY_AGAIN_SECONDS)
        raise PoolStartError(f"the model server ended {_TRIES} times as it started: {cause}")

    def _ask(self, timeout: float) -> ServerAddress:
        try:
            address: ServerAddress = ray.get(self._server.lease.remote(self._user), timeout=timeout)
        except RayTaskError as error:
            raise error.cause from None
        return address

    def _ensure_renewal(self) -> None:
        if self._renewal is None:
            self._renewal = threading.Thread(
                target=self._renew_until_released, name="lease", daemon=True
            )
            self._renewal.start()

    def _renew_until_released(self) -> None:
        while not self._released.wait(RENEW_SECONDS) and ray.is_initialized():
            self._renew()

    def _renew(self) -> None:
        with self._lock:
            if self._server is None or self._released.is_set():
                return
            try:
                self._ask(timeout=RENEW_SECONDS)
            except (RayError, PoolStartError):
                self._address = None


def _node_server(settings: ServerSettings) -> Any:
    """The actor of this node and these settings; several that ask at once get the same one."""
    node = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(ModelServer)
        .options(
            name=f"model-server/{settings.model.name}/{settings.digest}/{node}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(settings)
    )
