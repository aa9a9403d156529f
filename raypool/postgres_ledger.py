"""The ledger in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, LiteralString

from raypool import ledger_rows
from raypool import postgres_rows as rows
from raypool.lane import Lane
from raypool.ledger import (
    NO_EXTRA,
    NO_PROGRESS,
    EndedTask,
    Extra,
    KnownTask,
    Ledger,
    Progress,
    SentTask,
    Totals,
)
from raypool.ledger_rows import LoadedRow
from raypool.postgres_connection import Connection
from raypool.postgres_place import PostgresPlace
from raypool.postgres_session import Counts, PostgresSession, Written
from raypool.postgres_sessions import conversation, last_places, only_row
from raypool.postgres_writes import (
    add_setbacks,
    find_numbers,
    load_by_number,
    requeue_failed,
    write,
)
from raypool.records import AcceptedTask, Death, Ending
from raypool.setbacks import Setback
from raypool.unicode import unicode_text


class PostgresLedger(Ledger):
    """The ledger in a schema of a PostgreSQL database, made when it is missing, held until `close`.

    What is committed is as safe as the server makes it. A server that is restarted is waited for,
    and a connection that is lost comes back; see `PostgresSession`.

    Args:
        place: where it is.
        patience: how many seconds to wait for a server that is away at first.

    Raises:
        LedgerError: the database cannot be used, or another pool has the ledger.
    """

    def __init__(self, place: PostgresPlace, *, patience: float = 0.0) -> None:
        self._session = PostgresSession(place, patience)

    def write(
        self,
        tasks: Sequence[AcceptedTask],
        endings: Sequence[Ending],
        snapshots: Mapping[str, str] = {},
        extra: Extra = NO_EXTRA,
        progress: Progress = NO_PROGRESS,
    ) -> dict[int, KnownTask]:
        change = partial(
            write,
            tasks=tasks,
            endings=endings,
            snapshots=snapshots,
            extra=extra,
            progress=progress,
        )
        known: dict[int, KnownTask] = self._session.write(change)
        return known

    def find(self, task_id: str) -> KnownTask | None:
        return self.find_all([task_id]).get(task_id)

    def find_all(self, task_ids: Sequence[str]) -> dict[str, KnownTask]:
        return self._session.read(partial(_find_all, task_ids))

    def unfinished(self, after: int, limit: int) -> list[AcceptedTask]:
        return self._session.read(
            lambda reader: [
                ledger_rows.accepted_task(row.task)
                for row in _page(reader, rows.LOAD_UNFINISHED, after, limit)
            ]
        )

    def unfinished_in(self, lane: Lane | None, after: int, limit: int) -> list[AcceptedTask]:
        query = rows.LOAD_BOUND if lane is None else rows.LOAD_LANE
        names = () if lane is None else (rows.lane_name(lane),)
        return self._session.read(
            lambda reader: [
                ledger_rows.accepted_task(row.task)
                for row in _page(reader, query, after, limit, *names)
            ]
        )

    def lanes(self) -> dict[Lane, int]:
        return self._session.read(
            lambda reader: dict(map(rows.lane_of_row, reader.execute(rows.READ_LANES).fetchall()))
        )

    def ended(self, after: int, limit: int) -> list[EndedTask]:
        return self._session.read(
            lambda reader: [
                ledger_rows.ended_task(row) for row in _page(reader, rows.LOAD_ENDED, after, limit)
            ]
        )

    def totals(self) -> Totals:
        sums = self._session.read(lambda reader: only_row(reader, rows.READ_TOTALS))
        return ledger_rows.totals_of(sums)

    def requeue_failed(self) -> int:
        requeued: int = self._session.write(requeue_failed)
        return requeued

    def sent(self) -> list[SentTask]:
        return self._session.read(_sent)

    def deaths(self, number: int | None = None) -> list[Death]:
        one = number is not None
        query, parameters = (rows.READ_DEATHS_OF_TASK, (number,)) if one else (rows.READ_DEATHS, ())
        return self._session.read(
            lambda reader: list(map(rows.told_death, reader.execute(query, parameters).fetchall()))
        )

    def restate(self, fingerprints: Mapping[int, bytes]) -> None:
        def change(writer: Connection, counts: Counts) -> Written:
            writer.execute(rows.RESTATE, (list(fingerprints), list(fingerprints.values())))
            return Written(None, counts)

        self._session.write(change)

    def session_turns(self, sessions: Sequence[str]) -> dict[str, int]:
        return self._session.read(lambda reader: last_places(reader, sessions))

    def conversation(self, session: str) -> list[dict[str, Any]]:
        return self._session.read(lambda reader: conversation(reader, session))

    def snapshot(self, worker: str) -> str | None:
        return self._read(rows.READ_SNAPSHOT, worker)

    def output_type(self, digest: str) -> str | None:
        return self._read(rows.READ_OUTPUT_TYPE, digest)

    def keep_output_type(self, digest: str, schema_json: str) -> None:
        self._write(rows.KEEP_OUTPUT_TYPE, digest, unicode_text(schema_json))

    def add_setbacks(self, setbacks: Sequence[Setback]) -> None:
        self._session.write(partial(add_setbacks, setbacks=setbacks))

    def setbacks(self, span_ms: int) -> list[Setback]:
        return self._session.read(
            lambda reader: list(
                map(
                    rows.told_setback,
                    reader.execute(rows.READ_SETBACKS, {"span": span_ms}).fetchall(),
                )
            )
        )

    def meta(self, key: str) -> str | None:
        return self._read(rows.READ_META, key)

    def set_meta(self, key: str, value: str) -> None:
        self._write(rows.WRITE_META, key, value)

    def close(self) -> None:
        self._session.close()

    def _read(self, query: LiteralString, key: str) -> str | None:
        found = self._session.read(
            lambda reader: reader.execute(query, (rows.kept_text(key),)).fetchone()
        )
        return rows.told_text(found[0]) if found else None

    def _write(self, statement: LiteralString, *texts: str) -> None:
        values = [rows.kept_text(text) for text in texts]

        def change(writer: Connection, counts: Counts) -> Written:
            writer.execute(statement, values)
            return Written(None, counts)

        self._session.write(change)


def _find_all(task_ids: Sequence[str], reader: Connection) -> dict[str, KnownTask]:
    return load_by_number(reader, find_numbers(reader, task_ids))


def _sent(reader: Connection) -> list[SentTask]:
    workers: dict[int, int] = dict(reader.execute(rows.READ_SENT).fetchall())
    known = load_by_number(reader, {number: number for number in workers})
    return [SentTask(known[number].task, worker) for number, worker in workers.items()]


def _page(
    reader: Connection, query: LiteralString, after: int, limit: int, *names: str
) -> list[LoadedRow]:
    def load(after: int, step: int) -> tuple[list[LoadedRow], int]:
        loaded = reader.execute(query, (*names, after, step)).fetchall()
        length = sum(len(value) for row in loaded for value in row if isinstance(value, str))
        return list(map(rows.loaded_row, loaded)), length

    return ledger_rows.read_page(load, after, limit)
