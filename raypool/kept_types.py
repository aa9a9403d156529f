"""The output types that a pool's tasks ask for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec

from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.ledger import Ledger
from raypool.messages import encode
from raypool.output_type import PackedOutputType, read_packed


class KeptTypes:
    """Output types by digest: packed, as clients bring them; the ledger keeps their schemas.

    Belongs to one event loop.
    """

    def __init__(self, ledger: GroupCommit) -> None:
        self._ledger = ledger
        self._packed: dict[str, bytes] = {}
        self._unwritten: set[str] = set()

    async def keep(self, types: Mapping[str, bytes]) -> None:
        """Keep `types`; returns once the ledger has the schema of each that was ever brought.

        Raises:
            LedgerError: it cannot be written; the next call tries again, for these too.
        """
        for digest, packed in types.items():
            if digest not in self._packed:
                self._packed[digest] = packed
                self._unwritten.add(digest)
        for digest in list(self._unwritten):
            known = read_packed(self._packed[digest])
            kept = msgspec.json.encode((known.name, known.schema_json)).decode()
            await self._ledger.write(partial(_keep, digest, kept))
            self._unwritten.discard(digest)

    async def packed(self, digest: str) -> bytes:
        """A type as its client has packed it; while no client has, its schema from the ledger.

        Raises:
            LedgerError: the ledger has none of that digest, or cannot be read.
        """
        if digest in self._packed:
            return self._packed[digest]
        kept = await self._ledger.read(lambda ledger: ledger.output_type(digest))
        if kept is None:
            raise LedgerError(f"the ledger has no output type {digest!r}")
        name, schema_json = msgspec.json.decode(kept, type=tuple[str, str])
        return encode(PackedOutputType(name, schema_json))


def _keep(digest: str, kept: str, ledger: Ledger) -> None:
    ledger.keep_output_type(digest, kept)
