"""Which PostgreSQL database a ledger is in, and what of that may be shown."""

from __future__ import annotations

import re
import secrets
from typing import TypeGuard

from pydantic import BaseModel, ConfigDict, SecretStr

SCHEMES = ("postgresql://", "postgres://")
DEFAULT_SCHEMA = "raypool"

_IN_ADDRESS = re.compile(r"(postgres(?:ql)?://[^:@/?\s]*):.*@")
_IN_OPTIONS = re.compile(r"(password=)[^&\s]*")


def is_postgres(ledger: object) -> TypeGuard[str]:
    """Whether what a user calls a ledger is the URL of a PostgreSQL database."""
    return isinstance(ledger, str) and ledger.startswith(SCHEMES)


def without_password(text: str) -> str:
    """`text` with the passwords in such URLs masked."""
    if not any(scheme in text for scheme in SCHEMES):
        return text
    return _IN_OPTIONS.sub(r"\1***", _IN_ADDRESS.sub(r"\1:***@", text))


class PostgresPlace(BaseModel):
    """A database that can be connected to from any node, and the schema of the ledger in it.

    Attributes:
        shown: its URL without any password, for messages.
        connection: what libpq connects with, passwords included; masked in every `repr`.
        schema_name: the schema that has the ledger's tables.
        holder: whose ledger it is while a pool has it: the same for all dispatchers of a pool.
    """

    model_config = ConfigDict(frozen=True)

    shown: str
    connection: SecretStr
    schema_name: str = DEFAULT_SCHEMA
    holder: str = ""

    def held_by_new_pool(self) -> PostgresPlace:
        """The same place, for a pool that nobody has had before."""
        return self.model_copy(update={"holder": secrets.token_hex(8)})
