"""The text of an answer while it is generated, from the client's thread to its reader."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Generator
from contextlib import suppress

LONGEST_UNREAD = 1_000_000


class TextPipe:
    """Carries one task's text to one reader, in order.

    At most 1,000,000 characters wait for the reader; what comes beyond them, and all after
    it, is dropped, so that what was read is never without a beginning. Its methods may be
    called from any thread.
    """

    def __init__(self, *, longest_unread: int = LONGEST_UNREAD) -> None:
        self._room = longest_unread
        self._pieces: list[str] = []
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []
        self._is_cut = False
        self._is_over = False
        self._length = 0
        self._digest = hashlib.blake2b()

    def put(self, text: str) -> None:
        """Hand over what was generated."""
        with self._changed:
            if self._is_cut or self._is_over or not text:
                return
            self._is_cut = len(text) > self._room
            self._pieces.append(text[: self._room])
            self._room -= len(self._pieces[-1])
            self._wake()

    def cut(self) -> None:
        """Drop what comes from now on, so that what the reader has is never without a beginning."""
        with self._changed:
            self._is_cut = True

    def end(self) -> None:
        """There is no more: the reader ends once it has what is here."""
        with self._changed:
            self._is_over = True
            self._wake()

    def pieces(self) -> Generator[str, None, None]:
        """All that has come since the last piece, as soon as there is some, until the end."""
        try:
            while piece := self._await_piece():
                yield piece
        finally:
            self.end()
            self._pieces.clear()

    async def ready(self) -> None:
        """Return once the next step of `pieces` need not wait."""
        loop = asyncio.get_running_loop()
        news = loop.create_future()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_set, news)

        with self._changed:
            if self._pieces or self._is_over:
                return
            self._wakers.append(wake)
        try:
            await news
        finally:
            with self._changed:
                self._wakers.remove(wake)

    def rest_of(self, text: str) -> str:
        """What follows in `text` after what was read; nothing where it begins otherwise."""
        beginning = text[: self._length]
        is_same = hashlib.blake2b(_bytes(beginning)).digest() == self._digest.digest()
        return text[self._length :] if is_same else ""

    def _await_piece(self) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._is_over)
            piece = "".join(self._pieces)
            self._pieces.clear()
            self._room += len(piece)
            self._length += len(piece)
            self._digest.update(_bytes(piece))
            return piece

    def _wake(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            wake()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _set(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
