"""A line to a server that a test can cut at the worst moment."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum, auto
from urllib.parse import urlsplit

_COMMIT = b"COMMIT"
_MOST_BYTES = 1 << 16


class Cut(Enum):
    """When a line is cut: as a commit is sent."""

    BEFORE_IT_ARRIVES = auto()
    BEFORE_IT_IS_ANSWERED = auto()


class CutLine:
    """Relays what is sent to a port on loopback to another one.

    Attributes:
        cut: the next commit cuts the line there; `None` cuts nothing.
        is_dead_once_cut: nobody gets through from then on, until `mend`.
        has_cut: set once it has.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_dead = False
        self.cut: Cut | None = None
        self.is_dead_once_cut = False
        self.has_cut = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def through(self, url: str) -> str:
        """The URL that reaches what `url` does by this line."""
        port = urlsplit(url).port
        return url.replace(f":{port}/", f":{self._listener.getsockname()[1]}/")

    def kill(self) -> None:
        """End every connection; let none through."""
        self._is_dead = True
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_dead = False

    def close(self) -> None:
        self.kill()
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_dead:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._open |= {client, server}
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._relay, args=pair, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, is_from_client: bool) -> None:
        with suppress(OSError):
            while sent := source.recv(_MOST_BYTES):
                if is_from_client and self.cut is not None and _COMMIT in sent:
                    self._cut_at(sent, source, sink)
                    break
                sink.sendall(sent)
        self._hang_up(source, sink)

    def _cut_at(self, sent: bytes, client: socket.socket, server: socket.socket) -> None:
        cut, self.cut = self.cut, None
        self._is_dead = self.is_dead_once_cut
        try:
            if cut is Cut.BEFORE_IT_IS_ANSWERED:
                self._commit_unheard(sent, client, server)
            if self._is_dead:
                self.kill()
        finally:
            self.has_cut.set()

    def _commit_unheard(self, sent: bytes, client: socket.socket, server: socket.socket) -> None:
        client.shutdown(socket.SHUT_RDWR)
        server.sendall(sent)
        server.shutdown(socket.SHUT_WR)
        while server.recv(_MOST_BYTES):
            pass

    def _hang_up(self, *ends: socket.socket) -> None:
        with self._lock:
            for one in ends:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
                self._open.discard(one)
