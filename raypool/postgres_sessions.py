"""What sessions have behind them, as it lies in PostgreSQL's tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, LiteralString

import msgspec

from raypool import postgres_rows as rows
from raypool.ledger_rows import payload
from raypool.postgres_connection import Connection
from raypool.records import Ending
from raypool.unicode import unicode_text

_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode


def add_conversations(writer: Connection, recorded: Collection[Ending]) -> None:
    """Keep what the endings that are `recorded` add to their sessions."""
    added = [
        (one.number, one.conversation)
        for one in recorded
        if one.conversation is not None and one.state == "completed"
    ]
    if not added:
        return
    sessions = [unicode_text(conversation.session) for _, conversation in added]
    places = last_places(writer, sessions)
    table: list[tuple[Any, ...]] = []
    for session, (number, conversation) in zip(sessions, added, strict=True):
        places[session] = place = places.get(session, 0) + 1
        messages = payload(conversation.messages)
        table.append((number, rows.kept_text(session), place, conversation.is_whole, messages))
    copy_in(writer, rows.COPY_TURNS, table)


def last_places(connection: Connection, sessions: Sequence[str]) -> dict[str, int]:
    """By session, the place of its last task; sessions without any are left out."""
    kept = [rows.kept_text(session) for session in sessions]
    found = connection.execute(rows.LAST_PLACES, (kept,)).fetchall()
    return {rows.told_text(session): place for session, place in found if place is not None}


def conversation(connection: Connection, session: str) -> list[dict[str, Any]]:
    """The messages of a session, in order, from the last task on that told them whole."""
    kept = {"session": rows.kept_text(session)}
    texts = connection.execute(rows.LOAD_CONVERSATION, kept).fetchall()
    return [message for (text,) in texts for message in _decode_messages(text)]


def copy_in(writer: Connection, statement: LiteralString, table: Iterable[Sequence[Any]]) -> None:
    """Write rows by a COPY statement."""
    with writer.cursor() as cursor, cursor.copy(statement) as copy:
        for row in table:
            copy.write_row(row)


def only_row(
    connection: Connection, query: LiteralString, parameters: Sequence[Any] = ()
) -> tuple[Any, ...]:
    """The single row that `query` gives."""
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row
