"""`Pool.map`: prompts in, results out, and never more than a window of them in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from typing import TypeAlias

from raypool.errors import InvalidTask, UnknownRole
from raypool.future import TaskFuture
from raypool.response import TaskResult
from raypool.task import Content, Task
from raypool.verdicts import result_of_ending, result_of_error

Entry: TypeAlias = TaskFuture | TaskResult
Submit: TypeAlias = Callable[[Task], TaskFuture]


def map_tasks(
    submit: Submit, prompts: Iterable[Content | Task], *, ordered: bool, window: int
) -> Generator[TaskResult, None, None]:
    """Results as they come, or in the order of `prompts`; reads at most `window` ahead.

    Closing the generator cancels what has not ended.
    """
    window_of = _Ordered(window) if ordered else _Unordered(window)
    try:
        for prompt in prompts:
            window_of.add(_begin(submit, as_task(prompt)))
            while window_of.is_full or window_of.has_ready:
                yield window_of.take()
        while window_of.unfinished:
            yield window_of.take()
    finally:
        window_of.cancel()


def as_task(prompt: Content | Task) -> Task:
    """A task that asks `prompt`, or the task that it is."""
    return prompt if isinstance(prompt, Task) else Task(prompt)


def result_of(future: TaskFuture) -> TaskResult:
    """The result of a future that has resolved.

    Raises:
        PoolStopped: the pool stopped before the task ended.
        LedgerError: its end could not be recorded.
    """
    assert future._task is not None
    if future._ending is not None:
        return result_of_ending(future._task, future.id, future._ending)
    error = future.exception()
    assert error is not None
    if isinstance(error, InvalidTask | UnknownRole):
        return result_of_error(future._task, future.id, error)
    raise error


def _begin(submit: Submit, task: Task) -> Entry:
    try:
        return submit(task)
    except (InvalidTask, UnknownRole) as error:
        return result_of_error(task, task.id or "", error)


class _Ordered:
    """Gives results in the order in which the tasks came."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._entries: deque[Entry] = deque()

    @property
    def unfinished(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self._window

    @property
    def has_ready(self) -> bool:
        return bool(self._entries) and _is_done(self._entries[0])

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)

    def take(self) -> TaskResult:
        entry = self._entries.popleft()
        if isinstance(entry, TaskResult):
            return entry
        entry.exception()
        return result_of(entry)

    def cancel(self) -> None:
        for entry in self._entries:
            if isinstance(entry, TaskFuture):
                entry.cancel()


class _Unordered:
    """Gives results in the order in which they come."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._open: set[TaskFuture] = set()
        self._done: SimpleQueue[Entry] = SimpleQueue()
        self.unfinished = 0

    @property
    def is_full(self) -> bool:
        return self.unfinished >= self._window

    @property
    def has_ready(self) -> bool:
        return not self._done.empty()

    def add(self, entry: Entry) -> None:
        self.unfinished += 1
        if isinstance(entry, TaskResult):
            self._done.put(entry)
        else:
            self._open.add(entry)
            entry.add_done_callback(self._done.put)  # type: ignore[arg-type]

    def take(self) -> TaskResult:
        entry = self._done.get()
        self.unfinished -= 1
        if isinstance(entry, TaskResult):
            return entry
        self._open.discard(entry)
        return result_of(entry)

    def cancel(self) -> None:
        for future in self._open:
            future.cancel()


def _is_done(entry: Entry) -> bool:
    return isinstance(entry, TaskResult) or entry.done()
