"""What sessions have behind them, as it lies in SQLite's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from raypool.ledger_rows import payload
from raypool.records import Conversation, Ending
from raypool.sqlite_statements import Insert, in_pieces, insert, only_value
from raypool.unicode import unicode_text

RECORDED_SINCE = "SELECT json_group_array(number) FROM endings WHERE position > ?"

LAST_PLACES = """
WITH wanted (session) AS (VALUES {rows})
SELECT json_group_object(session, place) FROM (
    SELECT session, (
        SELECT max(place) FROM session_turns WHERE session_turns.session = wanted.session
    ) AS place FROM wanted
) WHERE place IS NOT NULL
"""

LOAD_CONVERSATION = """
SELECT json_group_array(messages) FROM (
    SELECT messages FROM session_turns
    WHERE session = :session AND place >= coalesce(
        (SELECT max(place) FROM session_turns WHERE session = :session AND is_whole), 0
    )
    ORDER BY place
)
"""


class TurnRow(NamedTuple):
    """A row of `session_turns`."""

    number: int
    session: str
    place: int
    is_whole: bool
    messages: str


INSERT_TURNS = Insert("session_turns", TurnRow._fields)

_decode_numbers = msgspec.json.Decoder(list[int]).decode
_decode_places = msgspec.json.Decoder(dict[str, int]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode


def add_conversations(
    writer: sqlite3.Connection, endings: Sequence[Ending], last_position: int
) -> None:
    """Keep what `endings` add to their sessions, of those that came after `last_position`."""
    if all(ending.conversation is None for ending in endings):
        return
    recorded = set(_decode_numbers(only_value(writer, RECORDED_SINCE, (last_position,))))
    added = {
        number: conversation
        for number, conversation in _first_conversations(endings).items()
        if number in recorded
    }
    sessions = [unicode_text(conversation.session) for conversation in added.values()]
    places = last_places(writer, sessions)
    table: list[TurnRow] = []
    for session, (number, conversation) in zip(sessions, added.items(), strict=True):
        places[session] = place = places.get(session, 0) + 1
        messages = payload(conversation.messages)
        table.append(TurnRow(number, session, place, conversation.is_whole, messages))
    insert(writer, INSERT_TURNS, table)


def _first_conversations(endings: Sequence[Ending]) -> dict[int, Conversation]:
    """By number, the conversations of the tasks whose first ending is `completed` and has one."""
    first: dict[int, Ending] = {}
    for ending in endings:
        first.setdefault(ending.number, ending)
    return {
        number: ending.conversation
        for number, ending in first.items()
        if ending.conversation is not None and ending.state == "completed"
    }


def last_places(connection: sqlite3.Connection, sessions: Sequence[str]) -> dict[str, int]:
    """By session, the place of its last task; sessions without any are left out."""
    places: dict[str, int] = {}
    for piece in in_pieces(sessions):
        query = LAST_PLACES.format(rows=", ".join(["(?)"] * len(piece)))
        places |= _decode_places(only_value(connection, query, piece))
    return places


def conversation(connection: sqlite3.Connection, session: str) -> list[dict[str, Any]]:
    """The messages of a session, in order, from the last task on that told them whole."""
    texts = _decode_texts(only_value(connection, LOAD_CONVERSATION, {"session": session}))
    return [message for text in texts for message in _decode_messages(text)]
