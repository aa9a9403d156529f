"""One llama.cpp server per node, in a Ray actor that the workers of the node share."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from typing import Any, NoReturn

import msgspec
import ray

from raypool.backends.leases import Leases
from raypool.backends.model_file import ModelFile, check_engine
from raypool.clock import SystemClock
from raypool.errors import PoolStartError

LEASE_SECONDS = 10.0
"""A user that has not renewed its lease for so long does not count any more."""

_WATCH_SECONDS = 1.0
_KILL_SECONDS = 5.0


class ServerSettings(msgspec.Struct, frozen=True):
    """What tells one model server of a node from another.

    Attributes:
        model: the model's file on this node.
        slots: how many turns it answers at once; more wait in its queue.
        context_tokens: the longest conversation, answer included, in tokens.
    """

    model: ModelFile
    slots: int
    context_tokens: int

    @property
    def digest(self) -> str:
        """A short name for these settings."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]


class ServerAddress(msgspec.Struct, frozen=True):
    """Where a model server listens, and the key that it asks for."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"ServerAddress(url={self.url!r}, key='…')"


class ModelServer:
    """An actor that serves one model to the processes of its node, by the Messages API.

    It listens on the loopback interface, at a port that was free, and answers
    only to a random key of its own: both are new in every process. Users hold
    leases; when none is left the process ends by itself.

    The server is never destroyed, its process is: llama.cpp waits for good when
    it is taken down among running calls.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._leases = Leases(SystemClock(), LEASE_SECONDS)
        self._lock = threading.Lock()
        self._server: Any = None
        self._address: ServerAddress | None = None
        threading.Thread(target=self._watch_leases, name="leases", daemon=True).start()

    def lease(self, user: str) -> ServerAddress:
        """Take or renew the lease of `user`; the first one loads the model.

        Raises:
            PoolStartError: the model cannot be loaded; says why.
        """
        with self._lock:
            if self._address is None:
                self._address = self._load()
            self._leases.renew(user)
            return self._address

    def release(self, user: str) -> None:
        """End the lease of `user`. The last one ends the process: its caller sees the actor die."""
        with self._lock:
            self._leases.release(user)
            if self._leases.is_over:
                _end_process()

    def _load(self) -> ServerAddress:
        model = self._settings.model
        check_engine()
        model.check()
        key = secrets.token_hex(16)
        try:
            self._server = _serve(self._settings, key)
        except RuntimeError as error:
            raise PoolStartError(f"llama.cpp cannot load {model.path!r}: {error}") from error
        return ServerAddress(self._server.listening_address, key)

    def _watch_leases(self) -> None:
        while True:
            time.sleep(_WATCH_SECONDS)
            with self._lock:
                if self._leases.is_over:
                    _end_process()


def _serve(settings: ServerSettings, key: str) -> Any:
    """Start the server with settings that suit a machine shared with others.

    Its own defaults keep 8 GiB of prompts, spin while they wait, and let any web
    page read the answers, the prompts of others among them.
    """
    import xllamacpp  # noqa: PLC0415 - optional, and of use in this actor only

    params = xllamacpp.CommonParams()
    params.model.path = settings.model.path
    params.model_alias = {settings.model.name}
    params.offline = True
    params.n_parallel = settings.slots
    params.n_ctx = settings.context_tokens * settings.slots
    params.cache_ram_mib = 0
    params.cpuparams.poll = 0
    params.verbosity = -1
    params.api_keys = [key]
    params.ui = False
    params.endpoint_slots = False
    params.cors_origins = "http://127.0.0.1"
    params.cors_credentials = False
    params.cors_origins_explicit = True
    return xllamacpp.Server(params)


def _end_process() -> NoReturn:
    """Through Ray, which then does not report a crash; by force when Ray is gone."""
    try:
        ray.kill(ray.get_runtime_context().current_actor)
        time.sleep(_KILL_SECONDS)
    finally:
        os._exit(0)
