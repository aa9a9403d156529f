"""The status of a pool that a test speaks for."""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.status import PoolStatus

_AT_REST = PoolStatus(
    name="w",
    queued=0,
    running=0,
    completed=0,
    failed=0,
    cancelled=0,
    input_tokens=0,
    output_tokens=0,
    cost_usd=0.0,
    unpriced=0,
    workers=[],
)


def status_of(**fields: Any) -> PoolStatus:
    """The status of a pool that has done nothing, but for these fields."""
    return msgspec.structs.replace(_AT_REST, **fields)
