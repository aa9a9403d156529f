"""One process's hold of a pool: who it is, and the line to its dispatcher."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from raypool.client import Client
from raypool.errors import PoolStopped
from raypool.messages import PoolInfo
from raypool.names import find_dispatcher


class Handle:
    """What every part of a `Pool` needs; the line is laid when it is first used."""

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

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._info.name

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

    def _stopped(self) -> PoolStopped:
        return PoolStopped(f"pool {self.name!r} has stopped")
