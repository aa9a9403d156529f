"""What goes wrong between raypool and a Messages API server, in the words of `ErrorEvent`.

The SDK does not raise for everything (a page of HTML is an empty stream to it),
does not wrap everything (a cut stream is httpx2's error, broken JSON is json's),
and gives an `error` event of a stream the status 200. So a verdict is sought in
this order: the error's code, its type, the HTTP status, the family of the exception.
"""

from __future__ import annotations

import os
import re
import ssl
import traceback
from dataclasses import dataclass, field

import anthropic
import httpx2

from raypool.backends.anthropic_limits import limits_in
from raypool.backends.faults import retry_after_seconds, verdict_of_status
from raypool.events import ErrorEvent, Verdict

SPEND_LIMIT_CODES = frozenset({"enforced_spend_limit_reached", "contract_spend_limit_reached"})
FATAL_CODES = SPEND_LIMIT_CODES | {"organization_on_hold"}

VERDICT_OF_TYPE: dict[str, Verdict] = {
    "overloaded_error": "refused",
    "rate_limit_error": "refused",
    "timeout_error": "transient",
    "conflict_error": "transient",
    "invalid_request_error": "invalid",
    "request_too_large": "invalid",
    "authentication_error": "fatal",
    "billing_error": "fatal",
    "permission_error": "fatal",
    "not_found_error": "fatal",
}

CONTEXT_TYPE = "exceed_context_size_error"
CONTEXT_WORDS = re.compile(
    r"prompt is too long|exceeds? (the )?(available )?context|maximum context length", re.IGNORECASE
)
"""How servers say that a conversation is too long: Anthropic's, llama.cpp's, vLLM's."""

MAX_PROVIDER_TEXT = 500


class UnusableAnswer(Exception):
    """Raised when a response with status 200 is not a whole answer."""


@dataclass(frozen=True)
class Endpoint:
    """Whom a session talks to, as far as its errors tell."""

    url: str
    model: str
    idle_timeout: float
    connect_timeout: float
    secrets: tuple[str, ...] = field(repr=False)

    def masked(self, text: str) -> str:
        """`text` without the keys that a server or a library may have put there."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def error_event(error: Exception, endpoint: Endpoint, *, is_answering: bool) -> ErrorEvent:
    """The event that `error` is; `is_answering` when the server had begun an answer.

    The exception itself is left out: it carries the request, and with it the key.
    """
    if isinstance(error, anthropic.APIStatusError):
        return _status_event(error, endpoint)
    cause = error.__cause__ if isinstance(error, anthropic.APIConnectionError) else error
    if isinstance(cause, httpx2.RequestError):
        return _transport_event(cause, endpoint)
    if isinstance(error, UnusableAnswer):
        return _event("transient", error, f"{endpoint.url} {error}", endpoint)
    if is_answering:
        message = f"{endpoint.url} sent what is not the Messages API's: {_text(error)}"
        return _event("transient", error, message, endpoint, with_traceback=True)
    message = f"the request cannot be sent: {_text(cause or error)}"
    return _event("invalid", cause or error, message, endpoint, with_traceback=True)


def _status_event(error: anthropic.APIStatusError, endpoint: Endpoint) -> ErrorEvent:
    kind = error.error_code or _type(error)
    answer = f"answered {error.status_code}" if error.status_code >= 400 else "broke off"
    request = f" (request {error.request_id})" if error.request_id else ""
    detail = ": ".join(text for text in (kind, _provider_text(error)) if text)
    message = f"{endpoint.url} {answer}{request}: {detail}{_advice(error, endpoint)}"
    verdict = _verdict(error)
    return ErrorEvent(
        verdict=verdict,
        error_type=kind or type(error).__name__,
        message=endpoint.masked(message),
        retry_after=retry_after_seconds(error.response.headers),
        is_context_full=verdict == "invalid" and says_context_is_full(kind, _provider_text(error)),
        limits=limits_in(error.response.headers),
    )


def says_context_is_full(kind: str, text: str) -> bool:
    """Whether an error of that type and text means that the conversation is too long."""
    return kind == CONTEXT_TYPE or CONTEXT_WORDS.search(text) is not None


def _verdict(error: anthropic.APIStatusError) -> Verdict:
    if error.error_code in FATAL_CODES:
        return "fatal"
    if (kind := _type(error)) in VERDICT_OF_TYPE:
        return VERDICT_OF_TYPE[kind]
    return verdict_of_status(error.status_code) if error.status_code >= 400 else "transient"


def _type(error: anthropic.APIStatusError) -> str:
    """The error's type, which servers other than Anthropic's may leave out or make a number."""
    return str(error.type or "")


def _provider_text(error: anthropic.APIStatusError) -> str:
    """What the provider says; a body that is not the API's is left out, for it may be a page."""
    text = str(error.api_message or error.response.reason_phrase)
    return text if len(text) <= MAX_PROVIDER_TEXT else f"{text[:MAX_PROVIDER_TEXT]}…"


def _advice(error: anthropic.APIStatusError, endpoint: Endpoint) -> str:
    if error.error_code in SPEND_LIMIT_CODES:
        return "; raise the spend limit in the provider's console"
    if error.status_code == 401:
        return "; check ANTHROPIC_API_KEY, or what AnthropicBackend(api_key=…) was given"
    if error.status_code == 404:
        return (
            f"; does the server have model {endpoint.model!r}? Set RAYPOOL_MODEL or "
            "AnthropicBackend(model=…); base_url is the server's root, without /v1"
        )
    return ""


def _transport_event(error: httpx2.RequestError, endpoint: Endpoint) -> ErrorEvent:
    verdict: Verdict = "transient"
    url, reason = endpoint.url, _reason(error)
    if isinstance(error, httpx2.ConnectTimeout):
        verdict = "unreachable"
        message = f"could not connect to {url} within {endpoint.connect_timeout:g} s"
    elif isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
        is_nobody_there = isinstance(_root(error), OSError) and not _is_of_tls(_root(error))
        verdict = "unreachable" if is_nobody_there else "transient"
        message = f"could not connect to {url}: {reason}; is a server listening there?"
    elif isinstance(error, httpx2.TimeoutException):
        message = f"{url} sent nothing for {endpoint.idle_timeout:g} s (idle_timeout)"
    elif isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        verdict, message = "invalid", f"the request to {url} cannot be sent: {reason}"
    else:
        message = f"the connection to {url} broke: {reason}"
    return _event(verdict, error, message, endpoint)


def _event(
    verdict: Verdict,
    error: BaseException,
    message: str,
    endpoint: Endpoint,
    *,
    with_traceback: bool = False,
) -> ErrorEvent:
    lines = traceback.format_exception(error) if with_traceback else []
    return ErrorEvent(
        verdict=verdict,
        error_type=type(error).__name__,
        message=endpoint.masked(message),
        traceback=endpoint.masked("".join(lines)),
    )


def _reason(error: BaseException) -> str:
    """The innermost cause in the system's words: `Connection refused`."""
    root = _root(error)
    if isinstance(root, ConnectionError) and root.errno:
        return os.strerror(root.errno)
    return _text(root if isinstance(root, OSError) else error)


def _root(error: BaseException) -> BaseException:
    while inner := _inner(error):
        error = inner
    return error


def _is_of_tls(error: BaseException) -> bool:
    """Whether somebody was there, whose certificate or protocol is not to be trusted."""
    return isinstance(error, ssl.SSLError)


def _inner(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or error.__context__


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
