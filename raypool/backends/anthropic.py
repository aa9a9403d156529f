"""The Anthropic Messages API, and any server that speaks it."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from raypool.agent import SessionOptions
from raypool.backends.base import Account, Backend, Session
from raypool.errors import PoolStartError

if TYPE_CHECKING:
    from raypool.backends.anthropic_client import Connection

DEFAULT_MODEL = "claude-haiku-5-5"
DEFAULT_URL = "https://api.anthropic.com"
PLACEHOLDER_KEY = "no-key-was-given"
FINGERPRINT_BYTES = 8

IDLE_TIMEOUT_SECONDS = 120.0
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 1000

Number = TypeVar("Number", int, float)

_NO_CREDENTIALS = (
    "there is no key for the Anthropic API: set ANTHROPIC_API_KEY, or pass "
    "AnthropicBackend(api_key=…); for a server that needs none, pass base_url=…; for a model "
    "without key and network, `from raypool.backends import LocalBackend` and pass "
    "backend=LocalBackend()"
)


class AnthropicBackend(Backend):
    """Answers through the official SDK, streaming, without the SDK's own retries.

    What is not given is read from the environment where `Pool.start` runs, once:
    worker nodes need none. One process has one client, however many sessions.

    Args:
        model: `None` means `RAYPOOL_MODEL`, else `claude-haiku-5-5`.
        api_key: `None` means `ANTHROPIC_API_KEY`, else `ANTHROPIC_AUTH_TOKEN`; a server at
            another `base_url` may do without.
        base_url: the server's root, to which `/v1/messages` is added; `None` means
            `ANTHROPIC_BASE_URL`, else Anthropic's.
        idle_timeout: the longest that the server may send nothing, in seconds; a server of your
            own that lets requests queue may need more.
        connect_timeout: the longest that connecting may take, in seconds.
        max_connections: how many turns of one process may run at a time; further ones wait.
        cache_prompts: whether the provider is asked to keep what is sent again, which is then
            cheaper; a server that refuses the field `cache_control` needs `False`.
        extra_body: fields to add to each request, such as `{"temperature": 0}`.
        extra_headers: HTTP headers to add to each request.
    """

    name = "anthropic"

    def __init__(
        self,
        model: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        idle_timeout: float = IDLE_TIMEOUT_SECONDS,
        connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
        cache_prompts: bool = True,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._model = _checked_model(model)
        self.api_key = _checked_key("api_key", api_key)
        self.auth_token: str | None = None
        self.base_url = _checked_url("base_url", base_url)
        self.idle_timeout = checked_positive("idle_timeout", idle_timeout)
        self.connect_timeout = checked_positive("connect_timeout", connect_timeout)
        self.max_connections = checked_positive("max_connections", max_connections)
        self.cache_prompts = cache_prompts
        self.extra_body = dict(extra_body or {})
        self.extra_headers = _checked_headers(extra_headers or {})
        self._connection: Connection | None = None

    @property
    def model(self) -> str:  # type: ignore[override]  # nobody sets it
        """The model that answers where the session names none."""
        return self._model or DEFAULT_MODEL

    def prepare(self) -> AnthropicBackend:
        """This backend with everything from the environment fixed inside.

        Raises:
            PoolStartError: there is no key and no `base_url`, or one that cannot be used.
        """
        try:
            resolved = self._resolved()
        except ValueError as error:
            raise PoolStartError(str(error)) from None
        if resolved["api_key"] is None and resolved["auth_token"] is None:
            if resolved["base_url"] is None:
                raise PoolStartError(_NO_CREDENTIALS)
            # Without any key the SDK would look for one on the worker's node.
            resolved["api_key"] = PLACEHOLDER_KEY
        resolved["base_url"] = resolved["base_url"] or DEFAULT_URL
        ready = copy.copy(self)
        vars(ready).update(resolved)
        return ready

    def account(self) -> Account:
        """The server, and a fingerprint of the key from which the key cannot be told."""
        ready = self.prepare()
        key = (ready.api_key or ready.auth_token or "").encode()
        fingerprint = hashlib.blake2b(key, digest_size=FINGERPRINT_BYTES, person=b"raypool")
        return Account(public_url(ready.base_url or DEFAULT_URL), fingerprint.hexdigest())

    async def open(self) -> None:
        """Connect this process, or join the client that an equal backend has here already."""
        if self._connection is None:
            from raypool.backends.anthropic_client import Connection  # noqa: PLC0415 - a second

            self._connection = Connection(self.prepare())

    async def start(self, options: SessionOptions) -> Session:
        if self._connection is None:
            raise RuntimeError(f"{self!r} is not open: await open() before start()")
        return self._connection.session(options)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.release()

    def __repr__(self) -> str:
        url = "" if self.base_url is None else f", base_url={public_url(self.base_url)!r}"
        has_key = self.api_key is not None or self.auth_token is not None
        return f"AnthropicBackend({self.model!r}{', api_key=***' if has_key else ''}{url})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    def _resolved(self) -> dict[str, str | None]:
        """What was given, with what the environment has for the rest."""
        api_key, auth_token = self.api_key, self.auth_token
        if api_key is None and auth_token is None:
            api_key = _checked_key("ANTHROPIC_API_KEY", _variable("ANTHROPIC_API_KEY"))
        if api_key is None and auth_token is None:
            auth_token = _checked_key("ANTHROPIC_AUTH_TOKEN", _variable("ANTHROPIC_AUTH_TOKEN"))
        url = self.base_url or _checked_url("ANTHROPIC_BASE_URL", _variable("ANTHROPIC_BASE_URL"))
        model = self._model or _variable("RAYPOOL_MODEL") or DEFAULT_MODEL
        return {"_model": model, "api_key": api_key, "auth_token": auth_token, "base_url": url}


def public_url(url: str) -> str:
    """`url` without the user name and password that it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _variable(name: str) -> str | None:
    return os.environ.get(name) or None


def _checked_model(model: str | None) -> str | None:
    if model is not None and (not isinstance(model, str) or not model.strip()):
        raise ValueError(f"model must be a model's name, got {model!r}")
    return model


def _checked_key(name: str, key: str | None) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str):
        raise TypeError(f"{name} must be a text, got {type(key).__name__}")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"{name} is empty, or has a space, a line break or a character outside ASCII; "
            "set it to the key alone"
        )
    return key


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, text in headers.items():
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise ValueError(f"extra_headers[{name!r}] must be a line of ASCII text")
    return dict(headers)


def _checked_url(name: str, url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} must start with http:// or https://, got {public_url(url)!r}")
    return url


def checked_positive(name: str, value: Number) -> Number:
    """`value`, when it is a number above 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not value > 0:
        raise ValueError(f"{name} must be a number above 0, got {value!r}")
    return value
