"""What a dispatcher is started with, in pieces that Ray keeps for its restarts.

Ray copies an argument below 100 kB into what it knows of an actor, up to 10 MB in all; a larger one
stays with the process that started the actor, and a restart fails once that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

PIECE_BYTES = 64_000


class Luggage(msgspec.Struct, array_like=True):
    """By role what its workers unpack, and the handler of events."""

    payloads: dict[str, bytes]
    handler: bytes | None


def in_pieces(payloads: dict[str, bytes], handler: bytes | None) -> list[bytes]:
    """Both, cut to pieces."""
    whole = msgspec.msgpack.encode(Luggage(payloads, handler))
    return [whole[start : start + PIECE_BYTES] for start in range(0, len(whole), PIECE_BYTES)]


def joined(pieces: Iterable[bytes]) -> tuple[dict[str, bytes], bytes | None]:
    """What `in_pieces` was given."""
    luggage = msgspec.msgpack.decode(b"".join(pieces), type=Luggage)
    return luggage.payloads, luggage.handler
