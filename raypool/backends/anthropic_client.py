"""One SDK client per process, event loop and set of settings; importing this takes a second."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from functools import cache
from weakref import WeakKeyDictionary

import anthropic
import httpx2

from raypool.agent import SessionOptions
from raypool.backends.anthropic import AnthropicBackend, public_url
from raypool.backends.anthropic_errors import Endpoint
from raypool.backends.anthropic_request import RequestFields
from raypool.backends.anthropic_session import AnthropicSession
from raypool.prices import cost_usd
from raypool.usage import Usage

# Many servers close a connection that rests for 5 s, just as the next turn would take it.
KEEP_ALIVE_SECONDS = 3.0

MIN_SECRET_LENGTH = 8


@dataclass(frozen=True)
class _Settings:
    """What two backends must have in common to share a client."""

    base_url: str | None
    idle_timeout: float
    connect_timeout: float
    max_connections: int
    api_key: str | None = field(repr=False)
    auth_token: str | None = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)


class _SharedClient:
    """A client and how many connections use it."""

    def __init__(self, settings: _Settings) -> None:
        # A turn that waits for a connection is the pool's doing: `turn_timeout` is its limit.
        timeout = httpx2.Timeout(settings.idle_timeout, connect=settings.connect_timeout, pool=None)
        limits = httpx2.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_connections,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        )
        self.users = 0
        self.client = anthropic.AsyncAnthropic(
            api_key=settings.api_key,
            auth_token=settings.auth_token,
            base_url=settings.base_url,
            default_headers=dict(settings.headers),
            max_retries=0,
            timeout=timeout,
            http_client=anthropic.DefaultAsyncHttpxClient(
                timeout=timeout, limits=limits, verify=_trusted_certificates()
            ),
        )


@cache
def _trusted_certificates() -> ssl.SSLContext:
    """Read once: this is most of what a client costs."""
    return httpx2.create_ssl_context()


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Settings, _SharedClient]] = (
    WeakKeyDictionary()
)


class Connection:
    """An open backend: its share of a client, on the event loop that opened it."""

    def __init__(self, backend: AnthropicBackend) -> None:
        self._backend = backend
        self._settings = _settings(backend)
        self._clients = _clients.setdefault(asyncio.get_running_loop(), {})
        if self._settings not in self._clients:
            self._clients[self._settings] = _SharedClient(self._settings)
        self._shared = self._clients[self._settings]
        self._shared.users += 1
        cost_usd(backend.model, Usage())  # loads the prices now, not in the first turn

    def session(self, options: SessionOptions) -> AnthropicSession:
        """A conversation, which goes on where `options.messages` end."""
        model = options.model or self._backend.model
        fields = RequestFields(
            model,
            options,
            extra_body=self._backend.extra_body,
            cache_prompts=self._backend.cache_prompts,
        )
        return AnthropicSession(
            self._shared.client, fields, self._endpoint(model), list(options.messages)
        )

    async def release(self) -> None:
        """Give the share back; the last one closes the client."""
        self._shared.users -= 1
        if self._shared.users == 0:
            del self._clients[self._settings]
            await self._shared.client.close()

    def _endpoint(self, model: str) -> Endpoint:
        backend = self._backend
        keys = {backend.api_key, backend.auth_token, *backend.extra_headers.values()}
        return Endpoint(
            url=public_url(backend.base_url or ""),
            model=model,
            idle_timeout=backend.idle_timeout,
            connect_timeout=backend.connect_timeout,
            secrets=tuple(key for key in keys if key and _is_secret(key)),
        )


def _is_secret(value: str) -> bool:
    """No key is as short as `close` or `1`, which would make messages unreadable when masked."""
    return len(value) >= MIN_SECRET_LENGTH


def _settings(backend: AnthropicBackend) -> _Settings:
    return _Settings(
        base_url=backend.base_url,
        idle_timeout=backend.idle_timeout,
        connect_timeout=backend.connect_timeout,
        max_connections=backend.max_connections,
        api_key=backend.api_key,
        auth_token=backend.auth_token,
        headers=tuple(sorted(backend.extra_headers.items())),
    )
