"""What is said on stderr: for people, or as JSON lines for programs."""

from __future__ import annotations

import sys
from typing import Any

import msgspec


class Saying:
    """Says things in one of two ways; with `is_quiet`, only what goes wrong."""

    def __init__(self, *, is_quiet: bool = False, is_json: bool = False) -> None:
        self.is_quiet = is_quiet
        self.is_json = is_json

    def remark(self, text: str) -> None:
        """Say what is good to know."""
        if not self.is_quiet:
            self._say("remark", text)

    def trouble(self, text: str) -> None:
        """Say what goes wrong."""
        self._say("trouble", text)

    def _say(self, kind: str, text: str) -> None:
        if self.is_json:
            say_json(kind, message=text)
        else:
            say(f"raypool: {text}")


def say(*lines: str) -> None:
    """Say some lines."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))  # at once: other threads write too
    sys.stderr.flush()


def say_json(event: str, **fields: Any) -> None:
    """Say one JSON object: what happens, and what is known of it."""
    say(msgspec.json.encode({"event": event, **fields}).decode())
