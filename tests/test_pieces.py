"""What a dispatcher is started with travels in pieces that Ray keeps."""

from __future__ import annotations

import pytest

from raypool.pieces import in_pieces, joined

RAY_COPIES_BELOW = 100_000


@pytest.mark.parametrize("size", [0, 1, 64_000, 1_000_000])
@pytest.mark.parametrize("handler", [None, b"", b"handler"])
def test_pieces_join_to_what_was_cut(size: int, handler: bytes | None) -> None:
    payloads = {"chemist": b"c" * size, "historian": b"h"}

    pieces = in_pieces(payloads, handler)

    assert joined(pieces) == (payloads, handler)
    assert all(len(piece) < RAY_COPIES_BELOW for piece in pieces)
