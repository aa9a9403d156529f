"""Single tasks out of a ledger, for the lists of a report."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from raypool.report import queries
from raypool.report.figures import Content, Line
from raypool.usage import Usage

MOST_CHARACTERS = 2_000


def read_lines(
    reader: sqlite3.Connection, positions: Iterable[int], *, content: bool
) -> Iterator[Line]:
    """The tasks that ended at these positions; those that were asked anew since are left out."""
    for position in positions:
        row = reader.execute(queries.LINE, (position,)).fetchone()
        if row is not None:
            yield _line(row, _content(reader, position) if content else None)


def _line(row: tuple[Any, ...], content: Content | None) -> Line:
    task_id, state, role, worker, model, attempts, completed_at, duration_ms, *rest = row
    *tokens, cost_usd, error = rest
    return Line(
        id=task_id,
        state=state,
        role=role,
        worker=worker,
        model=model,
        attempts=attempts,
        completed_at=completed_at,
        duration_ms=duration_ms,
        usage=Usage(*tokens),
        cost_usd=cost_usd,
        error=error,
        content=content,
    )


def _content(reader: sqlite3.Connection, position: int) -> Content | None:
    row = reader.execute(queries.CONTENT, (position,)).fetchone()
    if row is None:
        return None
    prompt, messages, answer, message = row
    return Content(
        prompt=_shortened(prompt if messages is None else text_of_messages(messages)),
        answer=_shortened(answer or ""),
        message=_shortened(message or ""),
    )


def text_of_messages(messages_json: str) -> str:
    """What the last of some messages says; an image is `[image]`."""
    said = msgspec.json.decode(messages_json)[-1]["content"]
    if isinstance(said, str):
        return said
    return "\n".join(block.get("text", f"[{block.get('type')}]") for block in said)


def _shortened(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]} … ({len(text):,} characters)"
