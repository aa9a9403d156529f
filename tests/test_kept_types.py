"""The output types that a pool keeps for its tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio
from pydantic import BaseModel

from raypool.errors import LedgerError
from raypool.group_commit import GroupCommit
from raypool.kept_types import KeptTypes
from raypool.output_type import OutputType, pack_output_type, read_packed
from raypool.sqlite_ledger import SqliteLedger

pytestmark = pytest.mark.asyncio


class City(BaseModel):
    name: str


CITY = OutputType.of(City)
PACKED = pack_output_type(CITY)


class FailingLedger(SqliteLedger):
    """A ledger that keeps no types while it is told so."""

    is_full = False

    def keep_output_type(self, digest: str, schema_json: str) -> None:
        if self.is_full:
            raise LedgerError("the disk is full")
        super().keep_output_type(digest, schema_json)


class Shelf(NamedTuple):
    file: FailingLedger
    ledger: GroupCommit
    types: KeptTypes


@pytest_asyncio.fixture
async def shelf() -> AsyncIterator[Shelf]:
    file = FailingLedger()
    ledger = GroupCommit(file)
    yield Shelf(file, ledger, KeptTypes(ledger))
    await ledger.close()


async def test_type_is_given_as_its_client_has_packed_it(shelf: Shelf) -> None:
    await shelf.types.keep({CITY.digest: PACKED})

    assert await shelf.types.packed(CITY.digest) == PACKED


async def test_later_pool_has_the_schema_and_nothing_that_is_pickled(shelf: Shelf) -> None:
    await shelf.types.keep({CITY.digest: PACKED})

    known = read_packed(await KeptTypes(shelf.ledger).packed(CITY.digest))

    assert (known.name, known.schema, known.pickled) == ("City", CITY.schema, None)


async def test_class_that_a_client_brings_later_takes_the_place_of_the_schema(
    shelf: Shelf,
) -> None:
    await shelf.types.keep({CITY.digest: PACKED})
    later = KeptTypes(shelf.ledger)
    await later.packed(CITY.digest)

    await later.keep({CITY.digest: PACKED})

    assert await later.packed(CITY.digest) == PACKED


async def test_type_that_could_not_be_written_is_written_with_the_next_ones(
    shelf: Shelf,
) -> None:
    shelf.file.is_full = True
    with pytest.raises(LedgerError, match="the disk is full"):
        await shelf.types.keep({CITY.digest: PACKED})
    with pytest.raises(LedgerError, match="the disk is full"):
        await shelf.types.keep({})
    shelf.file.is_full = False

    await shelf.types.keep({})

    assert shelf.file.output_type(CITY.digest) is not None


async def test_unknown_type_is_an_error_that_names_it(shelf: Shelf) -> None:
    with pytest.raises(LedgerError, match="no output type 'abc'"):
        await shelf.types.packed("abc")
