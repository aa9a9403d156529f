"""Making a client's tasks ready to travel."""

from __future__ import annotations

import msgspec

from raypool.errors import InvalidTask
from raypool.messages import Submission, encode
from raypool.output_type import OutputType, pack_output_type
from raypool.task import Task


class Sealer:
    """Packs tasks, and the output types that the dispatcher has not been given yet.

    A type is packed once. Belongs to one thread, or to a lock.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._unsent: dict[str, bytes] = {}

    def seal(
        self, ticket: int, task_id: str, task: Task, worker: str | None, race: str | None = None
    ) -> msgspec.Raw:
        """A task as it travels, made at once: the caller may change its metadata afterwards.

        Raises:
            InvalidTask: no message can hold it, or its output type is none.
        """
        submission = Submission(
            ticket,
            task_id,
            task.prompt,
            task.role,
            task.metadata,
            task.timeout,
            task.session,
            worker,
            None if task.output_type is None else self._digest(task.output_type),
            task.stream,
            task.priority,
            task.tenant,
            task.hedge_after,
            race,
        )
        try:
            return msgspec.Raw(encode(submission))
        except (TypeError, ValueError, NotImplementedError, OverflowError, RecursionError) as error:
            raise InvalidTask(f"the task cannot be sent: {error}") from None

    def take_types(self) -> dict[str, bytes]:
        """The types, by digest, that must go with the next batch, or with an earlier one."""
        types, self._unsent = self._unsent, {}
        return types

    def _digest(self, output_type: object) -> str:
        wanted, packed = packed_type(output_type)
        if wanted.digest not in self._known:
            self._known.add(wanted.digest)
            self._unsent[wanted.digest] = packed
        return wanted.digest


def packed_type(output_type: object) -> tuple[OutputType, bytes]:
    """A task's output type, and how it travels.

    Raises:
        InvalidTask: it is no type, or cannot travel; says what to write instead.
    """
    try:
        wanted = OutputType.of(output_type)
        return wanted, pack_output_type(wanted)
    except TypeError as error:
        raise InvalidTask(str(error)) from error
