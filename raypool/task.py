"""A task: a prompt with an id, and what is asked about it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
import uuid_utils

from raypool.errors import InvalidTask

Content: TypeAlias = str | list[dict[str, Any]]
"""A prompt: text, or Messages-API messages that end with the user's."""

State: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled"]

MAX_ID_LENGTH = 512
MAX_SESSION_LENGTH = 512
MAX_TENANT_LENGTH = 128
MAX_TIMEOUT_SECONDS = 1e9
MAX_PRIORITY = 1_000_000
_BLOCK_TYPES = ("text", "image")


class Task(msgspec.Struct, frozen=True):
    """A prompt and what is asked about it.

    Attributes:
        prompt: a text, or a list of Messages-API messages that ends with the user's.
        role: the role that must answer; `None` for any worker.
        id: the task's name for ever; `None` makes a time-ordered unique one.
        metadata: whatever JSON can hold; comes back on the result.
        timeout: the longest that one turn may run, in seconds; `None` means the pool's.
        session: the conversation to continue; its tasks run one at a time, in order, on the
            worker that has it. `None` starts one of its own.
        output_type: what the answer must be: a pydantic model, or another type that pydantic
            can validate; `None` means text.
        stream: the answer's text is wanted as it is generated, by `TaskFuture.stream`.
        priority: of the tasks that wait, those with a higher one go first.
        tenant: on whose account it is; tenants share the workers by their weights.
        hedge_after: start a second copy on another worker when there is no answer after so many
            seconds, or after a percentile of how long turns take, as `"p95"`; the first answer
            is the one, and the other worker is interrupted. `None` means the pool's. It counts
            from when the turn begins. Tasks in a session or a race, for one worker alone, and
            those that stream have no copy, nor have those of a pool with `memory="worker"`. Tools
            that a task calls may be called by both.
    """

    prompt: Content
    role: str | None = msgspec.field(default=None)
    id: str | None = None
    metadata: Any = None
    timeout: float | None = None
    session: str | None = None
    output_type: Any = None
    stream: bool = False
    priority: int = 0
    tenant: str | None = None
    hedge_after: float | str | None = None


def new_task_id() -> str:
    """A unique id that sorts by the time it was made (RFC 9562, version 7)."""
    return str(uuid_utils.uuid7())


def check_task(task: Task) -> None:
    """Refuse a task that nobody could answer.

    Raises:
        InvalidTask: says which part of the task is wrong, and why.
    """
    check_prompt(task.prompt)
    if task.id is not None:
        _check_name(task.id, "a task's id", MAX_ID_LENGTH)
    if task.role is not None and not isinstance(task.role, str):
        raise InvalidTask(f"role must be a text or None, got {task.role!r}")
    if task.timeout is not None:
        _check_timeout(task.timeout)
    if task.metadata is not None:
        check_json(task.metadata, "metadata")
    if task.session is not None:
        _check_name(task.session, "session", MAX_SESSION_LENGTH)
    if not isinstance(task.stream, bool):
        raise InvalidTask(f"stream must be True or False, got {task.stream!r:.80}")
    if task.tenant is not None:
        _check_name(task.tenant, "tenant", MAX_TENANT_LENGTH)
    if not _is_whole(task.priority) or abs(task.priority) > MAX_PRIORITY:
        raise InvalidTask(
            f"priority must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, "
            f"got {task.priority!r:.80}"
        )
    if task.hedge_after is not None:
        check_hedge_after(task.hedge_after)


def check_prompt(prompt: object) -> None:
    """Refuse a prompt that is empty, of the wrong kind, or not valid Unicode.

    Raises:
        InvalidTask: says what the prompt must be, and what came.
    """
    if isinstance(prompt, str):
        _check_text(prompt, "the prompt")
    elif isinstance(prompt, list):
        _check_messages(prompt)
    else:
        raise InvalidTask(
            f"a prompt must be a text or a list of messages, got {type(prompt).__name__}"
        )


def check_hedge_after(value: object) -> None:
    """Refuse what is neither a number of seconds nor a percentile.

    Raises:
        InvalidTask: says what it must be, and what came.
    """
    is_percentile = isinstance(value, str) and re.fullmatch(r"p[1-9][0-9]?", value)
    is_seconds = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
    )
    if not is_percentile and not is_seconds:
        raise InvalidTask(
            f'hedge_after must be a number of seconds above 0, or a percentile as "p95", '
            f"got {value!r:.80}"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_text(text: str, what: str) -> None:
    if not text or text.isspace():
        raise InvalidTask(f"{what} is empty")
    _check_unicode(text, what)


def _check_unicode(text: str, what: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTask(
            f"{what} has a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}; decode the input with errors='replace' or drop it"
        ) from None


def _check_name(name: object, what: str, longest: int) -> None:
    if not isinstance(name, str) or not name or len(name) > longest:
        raise InvalidTask(f"{what} must be a text of 1 to {longest} characters, got {name!r:.80}")
    _check_unicode(name, what)


def _check_timeout(timeout: object) -> None:
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout <= MAX_TIMEOUT_SECONDS:  # type: ignore[operator]
        raise InvalidTask(
            f"timeout must be a number of seconds above 0, at most {MAX_TIMEOUT_SECONDS:g}, "
            f"got {timeout!r}"
        )


def check_json(value: object, what: str) -> None:
    try:
        msgspec.json.encode(value)
        msgspec.msgpack.encode(value)  # as it travels: with integers of 64 bits at most
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidTask(f"{what} must be what JSON can hold: {error}") from None


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise InvalidTask("the prompt is empty: a list of messages needs at least one")
    for place, message in enumerate(messages):
        _check_message(message, f"message {place}")
    if messages[-1]["role"] != "user":
        raise InvalidTask("the last message must be the user's, got the assistant's")


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise InvalidTask(f"{where} must be {{'role': …, 'content': …}}, got {_outline(message)}")
    if message["role"] not in ("user", "assistant"):
        raise InvalidTask(f"{where}: role must be 'user' or 'assistant', got {message['role']!r}")
    content = message["content"]
    if isinstance(content, str):
        _check_text(content, where)
    elif isinstance(content, list) and content:
        for block in content:
            _check_block(block, where)
    else:
        raise InvalidTask(f"{where}: content must be a text or a list of blocks that is not empty")
    check_json(message, where)


def _check_block(block: object, where: str) -> None:
    if not isinstance(block, Mapping) or block.get("type") not in _BLOCK_TYPES:
        raise InvalidTask(f"{where}: a block must be of type text or image, got {_outline(block)}")
    if block["type"] == "text":
        if not isinstance(block.get("text"), str):
            raise InvalidTask(f"{where}: a text block must have a 'text'")
        _check_text(block["text"], where)
    elif not isinstance(block.get("source"), Mapping):
        raise InvalidTask(f"{where}: an image block must have a 'source'")


def _outline(value: object) -> str:
    """What kind of thing came, without showing what is in it."""
    if isinstance(value, Mapping):
        return "keys " + ", ".join(sorted(map(repr, value)))
    return type(value).__name__
