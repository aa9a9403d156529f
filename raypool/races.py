"""Several tasks that ask the same, and the one future of what their answers come to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias

import msgspec

from raypool.errors import Cause, InvalidTask, RaypoolError, TaskCancelled, TaskFailed
from raypool.future import Line, TaskFuture
from raypool.mapping import result_of
from raypool.response import Response, TaskResult
from raypool.stream import Stream
from raypool.task import Task, new_task_id
from raypool.votes import Votes

Key: TypeAlias = Callable[[Response], object]

NO_AGREEMENT = "NoAgreement"


def tasks_of_race(task: Task, n: int) -> tuple[str, list[Task]]:
    """The id of a race, and its tasks: `n` that ask what `task` asks, `<id>/1` and so on.

    Raises:
        InvalidTask: `task` is in a session, streams or is hedged.
    """
    for option, why in (
        ("session", "each of its tasks has a conversation of its own"),
        ("stream", "which answer is the one is known at the end"),
        ("hedge_after", "its tasks are copies of one another"),
    ):
        if getattr(task, option) not in (None, False):
            raise InvalidTask(f"a race takes no {option}: {why}")
    race = new_task_id() if task.id is None else task.id
    return race, [msgspec.structs.replace(task, id=f"{race}/{k}") for k in range(1, n + 1)]


def check_count(n: object) -> None:
    """Refuse what is no number of tasks.

    Raises:
        InvalidTask: says what it must be, and what came.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise InvalidTask(f"n must be a whole number of at least 1, got {n!r:.80}")


def check_key(key: object) -> None:
    """Refuse what cannot say by what answers agree; likewise."""
    if not callable(key):
        raise InvalidTask(f"key must be a function of a Response, got {key!r:.80}")


def check_agree(agree: object, n: int) -> None:
    """Refuse a number of votes that `n` cannot come to.

    Raises:
        InvalidTask: says what it must be, and what came.
    """
    if not isinstance(agree, int) or isinstance(agree, bool) or not 1 <= agree <= n:
        raise InvalidTask(f"agree must be a whole number from 1 to n={n}, got {agree!r:.80}")


def same_answer(response: Response) -> object:
    """What answers agree by unless told otherwise.

    What was parsed, where an output type was asked for; else the text, whatever its case and
    the white space around it.
    """
    return response.text.strip().casefold() if response.parsed is None else response.parsed


def any_answer(_: Response) -> object:
    """All answers agree: the first is the one."""
    return None


class RaceFuture(TaskFuture):
    """The future of what several tasks come to: the first answer, or what enough of them agree in.

    It resolves as soon as that is certain, and the tasks that are not needed any more are then
    cancelled: those that wait are dropped, those that run are interrupted. Each task is one of
    the pool's, with a result and a cost of its own.

    When none of them has answered it raises what the last of them to fail has raised, and
    `TaskCancelled` when all were cancelled. When too few agree it raises a `TaskFailed` whose
    cause is of the type `NoAgreement`.

    Attributes:
        id: the race's id; its tasks have `<id>/1`, `<id>/2` and so on.
        tasks: the futures of its tasks.
        winner: the future whose answer is the one, once there is one.
    """

    def __init__(
        self, client: Line, race: str, tasks: Sequence[TaskFuture], *, agree: int, key: Key
    ) -> None:
        super().__init__(client, race)
        self.tasks = tuple(tasks)
        self.winner: TaskFuture | None = None
        self._key = key
        self._agree = agree
        self._votes: Votes[TaskFuture] = Votes(len(self.tasks), agree)
        self._errors: list[BaseException] = []
        self._is_decided = False
        self._is_cancelled = False
        self._deciding = threading.Lock()
        for task in self.tasks:
            task.add_done_callback(self._hear)

    @property
    def worker(self) -> str | None:
        """The name of the worker whose answer is the one; `None` until there is one."""
        return self.winner.worker if self.winner is not None else None

    def accepted(self, timeout: float | None = None) -> bool:
        """Wait until the ledger has committed every task of the race; then `True`.

        Raises:
            WaitTimeout: they are not all committed after `timeout` seconds.
            RaypoolError: one was refused; what it raises.
        """
        return all(task.accepted(left) for task, left in self._in_time(timeout))

    def losers(self, timeout: float | None = None) -> list[TaskResult]:
        """What became of the tasks whose answer is not the one, and what they cost.

        Waits until all of them have ended: one that is interrupted ends a moment after the
        race. With `quorum`, tasks that agreed with the winner are among them.

        Raises:
            WaitTimeout: some have not ended after `timeout` seconds.
            PoolStopped: the pool stopped before they ended.
            LedgerError: the end of one could not be recorded.
        """
        for task, left in self._in_time(timeout):
            task.exception(left)
        return [result_of(task) for task in self.tasks if task is not self.winner]

    def cancel(self) -> bool:
        """Cancel every task of the race; returns at once, `False` when it has ended already."""
        if self.done():
            return False
        self._is_cancelled = True
        self._cancel_tasks()
        return True

    def stream(self) -> Stream[str]:
        """Not to be had: which answer is the one is known at the end.

        Raises:
            InvalidTask: always.
        """
        raise InvalidTask(f"race {self.id!r} is not streamed; submit one task with stream=True")

    def _in_time(
        self, timeout: float | None
    ) -> Generator[tuple[TaskFuture, float | None], None, None]:
        """The tasks, each with the seconds that are left for it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for task in self.tasks:
            yield task, None if deadline is None else max(0.0, deadline - time.monotonic())

    def _hear(self, task: Any) -> None:
        """A task has ended; called once for each, on any thread."""
        error = task.exception()
        vote = None
        if error is None:
            try:
                vote = self._key(task.result())
            except Exception as raised:  # noqa: BLE001 - a user's function may raise anything
                error = raised
        with self._deciding:
            if self._is_decided:
                return
            self._count(task, vote, error)
            self._is_decided = self._votes.winner is not None or self._votes.is_lost
            if not self._is_decided:
                return
        self._decide()

    def _count(self, task: TaskFuture, vote: object, error: BaseException | None) -> None:
        if error is None:
            try:
                self._votes.cast(task, vote)
            except Exception as raised:  # noqa: BLE001 - so may comparing what it returns
                error = raised
        if error is not None:
            self._votes.abstain()
            self._errors.append(error)

    def _decide(self) -> None:
        self._cancel_tasks()
        winner = self._votes.winner
        if winner is None:
            self.set_exception(self._failure())
            return
        self.winner = winner
        self.accept(winner._worker)
        self.set_result(winner.result())

    def _cancel_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()

    def _failure(self) -> RaypoolError:
        """What a race without a winner raises."""
        errors = [error for error in self._errors if not isinstance(error, TaskCancelled)]
        last = errors[-1] if errors else None
        if self._is_cancelled or (last is None and not self._votes.fall):
            return TaskCancelled(self.id)
        was_one_enough = self._agree == 1
        if isinstance(last, RaypoolError) and (was_one_enough or not isinstance(last, TaskFailed)):
            return last
        return self._no_agreement(last)

    def _no_agreement(self, last: BaseException | None) -> TaskFailed:
        fall = ", ".join(map(str, self._votes.fall)) or "none came"
        message = f"no {self._agree} of {len(self.tasks)} answers agreed: {fall}"
        if self._errors:
            kinds = ", ".join(type(error).__name__ for error in self._errors)
            message += f"; without an answer: {len(self._errors)} ({kinds})"
        attempts = sum(task._ending.attempts for task in self.tasks if task._ending is not None)
        cause = Cause(NO_AGREEMENT, message, exception=last)
        failure = TaskFailed(self.id, None, attempts, cause)
        failure.__cause__ = last
        return failure
