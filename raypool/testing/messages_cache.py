"""A provider's prompt cache: which beginning of a request it has seen before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from raypool.testing.messages_wire import Block, blocks_of, words_in
from raypool.usage import Usage


class _Part(NamedTuple):
    """A request up to the end of one of its blocks.

    Attributes:
        digest: what tells it from others.
        words: how many it has.
        is_marked: the request asks to keep it.
    """

    digest: str
    words: int
    is_marked: bool


class PromptCache:
    """Keeps what requests mark with `cache_control`, and finds it again; it forgets nothing.

    Args:
        least_words: a beginning with fewer words is not kept, whatever its mark says.
    """

    def __init__(self, least_words: int) -> None:
        self._least_words = least_words
        self._kept: set[str] = set()

    def usage(self, body: Mapping[str, Any]) -> Usage:
        """How the words of a request divide into read, written and neither; no output."""
        parts = [part for part in _parts(body) if part.words >= self._least_words]
        marked = [part for part in parts if part.is_marked]
        read = max((part.words for part in parts if part.digest in self._kept), default=0)
        read = read if marked else 0
        written = max(marked[-1].words - read, 0) if marked else 0
        self._kept.update(part.digest for part in marked)
        whole = sum(words_in(block) for block in _blocks(body))
        return Usage(whole - read - written, 0, read, written)


def _parts(body: Mapping[str, Any]) -> Iterator[_Part]:
    blocks = list(_blocks(body))
    digest, words = hashlib.sha256(), 0
    for place, block in enumerate(blocks, start=1):
        plain = {key: value for key, value in block.items() if key != "cache_control"}
        digest.update(json.dumps(plain, sort_keys=True).encode())
        words += words_in(block)
        is_marked = "cache_control" in block or (place == len(blocks) and "cache_control" in body)
        yield _Part(digest.hexdigest(), words, is_marked)


def _blocks(body: Mapping[str, Any]) -> Iterator[Block]:
    """All that the model reads, in the order in which it is cached."""
    yield from body.get("tools", ())
    yield from blocks_of(body.get("system") or [])
    for message in body.get("messages", ()):
        for block in blocks_of(message["content"]):
            yield {"role": message["role"], **block}
