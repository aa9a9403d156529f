"""`Pool.map`: prompts in, results out, and never more than a window of them in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

from raypool.errors import InvalidTask, LedgerError, UnknownRole
from raypool.future import TaskFuture
from raypool.interruption import SIGNALS_RAISE
from raypool.response import TaskResult
from raypool.task import Content, Task
from raypool.verdicts import result_of_ending, result_of_error

Entry: TypeAlias = TaskFuture | TaskResult
Submit: TypeAlias = Callable[[Task], TaskFuture]

THREAD_NAME = "raypool-map"


def map_tasks(
    submit: Submit, prompts: Iterable[Content | Task], *, ordered: bool, window: int
) -> Generator[TaskResult, None, None]:
    """Results as soon as they are there; with `ordered`, in the order of `prompts`.

    From the first step on, a thread of its own reads `prompts` and submits them in their
    order. It reads none while `window` of them are unfinished; one is finished once its
    result was given and the next is asked for.

    What `prompts` or `submit` raises is raised here, without waiting for what was submitted
    before: results that could be given by then come first, the others are cancelled.
    Closing the generator cancels what has not ended and does not wait for the thread,
    which reads no further; a prompt that it is reading by then is dropped. When Ctrl-C or
    SIGTERM ends the wait for a result nothing is cancelled: the pool stops then, and keeps it.
    """
    feeder = _Feeder(submit, prompts, window)
    feeder.start()
    try:
        arrivals = feeder.arrivals()
        for entry in _in_order(arrivals) if ordered else _as_they_come(arrivals):
            yield entry if isinstance(entry, TaskResult) else result_of(entry)
            feeder.finish(entry)
    except (*SIGNALS_RAISE, LedgerError):
        feeder.close(cancels=False)
        raise
    finally:
        feeder.close()


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
    error = future.exception()
    if future._ending is not None:
        parsed = None if error else future.result().parsed
        return result_of_ending(future._task, future.id, future._ending, parsed)
    assert error is not None
    if isinstance(error, InvalidTask | UnknownRole):
        return result_of_error(future._task, future.id, error)
    raise error


def _begin(submit: Submit, task: Task) -> Entry:
    try:
        return submit(task)
    except (InvalidTask, UnknownRole) as error:
        return result_of_error(task, task.id or "", error)


def _in_order(arrivals: Iterable[_Arrival]) -> Iterator[Entry]:
    waiting: dict[int, Entry] = {}
    following = 0
    for arrival in arrivals:
        waiting[arrival.number] = arrival.entry
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _as_they_come(arrivals: Iterable[_Arrival]) -> Iterator[Entry]:
    return (arrival.entry for arrival in arrivals)


class _Arrival(NamedTuple):
    """What has ended, and which of the prompts it was, from 0."""

    number: int
    entry: Entry


class _NoMore(NamedTuple):
    """The prompts are over: how many there were, or what ended them early."""

    total: int
    error: BaseException | None = None


class _Feeder:
    """Reads prompts and submits them on a thread, with never more than a window unfinished."""

    def __init__(self, submit: Submit, prompts: Iterable[Content | Task], window: int) -> None:
        self._submit = submit
        self._prompts = prompts
        self._room = window
        self._open: set[TaskFuture] = set()
        self._is_closed = False
        self._cancels = False
        # Reentrant, as the queue is: a generator that nobody holds is closed anywhere.
        self._changed = threading.Condition(threading.RLock())
        self._arrived: SimpleQueue[_Arrival | _NoMore] = SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._feed, name=THREAD_NAME, daemon=True).start()

    def arrivals(self) -> Iterator[_Arrival]:
        """What was submitted, as it ends; raises what ended the prompts early."""
        taken = 0
        total: int | None = None
        while taken != total:
            item = self._arrived.get()
            if isinstance(item, _Arrival):
                taken += 1
                yield item
            elif item.error is not None:
                raise item.error
            else:
                total = item.total

    def finish(self, entry: Entry) -> None:
        """Make room for one more prompt."""
        with self._changed:
            if isinstance(entry, TaskFuture):
                self._open.discard(entry)
            self._room += 1
            self._changed.notify()

    def close(self, *, cancels: bool = True) -> None:
        """Read no further, and cancel what has not ended, or leave it to the pool; once."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._cancels = cancels
            left = list(self._open) if cancels else []
            self._changed.notify()
        for future in left:
            future.cancel()

    def _feed(self) -> None:
        try:
            count = self._submit_all()
        except BaseException as error:  # noqa: BLE001 - raised where the results are read
            self._arrived.put(_NoMore(0, error))
        else:
            self._arrived.put(_NoMore(count))

    def _submit_all(self) -> int:
        count = 0
        rooms = iter(self._await_room, False)
        for _, prompt in zip(rooms, self._prompts, strict=False):
            if self._is_closed:
                break
            self._add(count, _begin(self._submit, as_task(prompt)))
            count += 1
        return count

    def _await_room(self) -> bool:
        """Take room for one prompt; false when none must be read any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._room or self._is_closed)
            self._room -= 1
            return not self._is_closed

    def _add(self, number: int, entry: Entry) -> None:
        arrival = _Arrival(number, entry)
        if isinstance(entry, TaskResult):
            self._arrived.put(arrival)
            return
        with self._changed:
            self._open.add(entry)
            is_cancelled = self._cancels
        if is_cancelled:
            entry.cancel()
        entry.add_done_callback(lambda _: self._arrived.put(arrival))
