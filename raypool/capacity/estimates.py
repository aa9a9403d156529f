"""How many tokens an exchange will take: likely, and at most."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from raypool.messages import Terms
from raypool.records import AcceptedTask
from raypool.task import Content
from raypool.usage import Usage

BYTES_PER_TOKEN = 4
FEWEST_BYTES_PER_TOKEN = 2
FRAME_TOKENS = 32
IMAGE_TOKENS = 1_600
"""What a picture takes at most before the API scales it down
(https://docs.claude.com/en/docs/build-with-claude/vision)."""

FALLBACK_MAX_TOKENS = 4_096
FIRST_OUTPUT_TOKENS = 256
FIRST_GROWTH_TOKENS = 1_024
WEIGHT_OF_NEW = 0.1
FORGETTING = 0.98
KNOWN_CONVERSATIONS = 10_000


class Need(NamedTuple):
    """Tokens of one exchange."""

    input_tokens: int
    output_tokens: int


class Size(NamedTuple):
    """What is known of an exchange before it is sent.

    Attributes:
        context_tokens: what the conversation has already, as the provider has counted it.
        text_bytes: the size of what is new in it, as UTF-8; nothing is known of tools' results.
        is_first: the task's prompt is what is new, with what goes before every conversation.
    """

    context_tokens: int
    text_bytes: int
    is_first: bool


class Estimates:
    """Learns from what exchanges took how much the next ones will.

    An exchange takes what its conversation has, and what is new in it, which is guessed by
    length. `likely` is right in the mean, for limits that may be in debt for a while and that do
    not count what is read from a prompt cache; `most` is for money: half a token for every byte,
    and beyond it what guesses have lately fallen short.
    """

    def __init__(self, terms: Terms) -> None:
        self._overhead_bytes = terms.overhead_tokens * BYTES_PER_TOKEN
        self._max_tokens = terms.max_tokens or FALLBACK_MAX_TOKENS
        self._output = float(min(FIRST_OUTPUT_TOKENS, self._max_tokens))
        self._uncached = 1.0
        self._rates = {True: _Rate(), False: _Rate(FIRST_GROWTH_TOKENS)}
        self._contexts: OrderedDict[str | int, int] = OrderedDict()

    def size(self, task: AcceptedTask, conversation: str | None) -> Size:
        """What is known of the next exchange of a task.

        `conversation` is that which the task continues, by a name; `None` for its own.
        """
        context = self._contexts.get(task.number)
        if context is not None:
            return Size(context, 0, is_first=False)
        context = 0 if conversation is None else self._contexts.get(conversation, 0)
        new = byte_count(task.prompt) + (0 if context else self._overhead_bytes)
        return Size(context, new, is_first=True)

    def likely(self, size: Size) -> Need:
        """What the exchange will take in the mean."""
        read = size.context_tokens + self._rates[size.is_first].likely(size.text_bytes)
        return Need(round(self._uncached * read), round(self._output))

    def most(self, size: Size) -> Need:
        """What the exchange will hardly exceed."""
        return Need(
            size.context_tokens + self._rates[size.is_first].most(size.text_bytes),
            self._max_tokens,
        )

    def learn(self, size: Size, usage: Usage) -> None:
        """Take in what an exchange of that size took."""
        read = usage.total_tokens - usage.output_tokens
        self._rates[size.is_first].learn(size.text_bytes, read - size.context_tokens)
        self._output += WEIGHT_OF_NEW * (usage.output_tokens - self._output)
        if read:
            uncached = 1 - usage.cache_read_tokens / read
            self._uncached += WEIGHT_OF_NEW * (uncached - self._uncached)

    def remember(self, conversation: str | int, context_tokens: int) -> None:
        """Note how many tokens a conversation has from now on.

        It is a named one, or that of the task with that number, which is between exchanges.
        """
        self._contexts[conversation] = context_tokens
        self._contexts.move_to_end(conversation)
        if len(self._contexts) > KNOWN_CONVERSATIONS:
            self._contexts.popitem(last=False)

    def forget(self, number: int) -> None:
        """The task with that number is not between exchanges."""
        self._contexts.pop(number, None)


class _Rate:
    """Learns how many tokens a text of some length takes, and how far that may be exceeded."""

    def __init__(self, surplus: float = 0.0) -> None:
        self._bytes = 0.0
        self._tokens = 0.0
        self._surplus = surplus

    def likely(self, text_bytes: int) -> int:
        per_byte = self._tokens / self._bytes if self._bytes else 1 / BYTES_PER_TOKEN
        return round((text_bytes + FRAME_TOKENS) * per_byte)

    def most(self, text_bytes: int) -> int:
        return FRAME_TOKENS + text_bytes // FEWEST_BYTES_PER_TOKEN + round(self._surplus)

    def learn(self, text_bytes: int, tokens: int) -> None:
        known = FRAME_TOKENS + text_bytes // FEWEST_BYTES_PER_TOKEN
        self._surplus = max(FORGETTING * self._surplus, float(tokens - known))
        self._bytes += text_bytes + FRAME_TOKENS - WEIGHT_OF_NEW * self._bytes
        self._tokens += max(tokens, 0) - WEIGHT_OF_NEW * self._tokens


def byte_count(content: Content) -> int:
    """The size of a prompt as UTF-8; a picture counts as the text that takes as many tokens."""
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode("utf-8", "replace"))
    return sum(_size_of(message) for message in content)


def _size_of(value: Any) -> int:
    if isinstance(value, str):
        return byte_count(value)
    if isinstance(value, dict):
        if value.get("type") == "image":
            return IMAGE_TOKENS * BYTES_PER_TOKEN
        return sum(_size_of(part) for part in value.values())
    if isinstance(value, list):
        return sum(map(_size_of, value))
    return len(str(value))
