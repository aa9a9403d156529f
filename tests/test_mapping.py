"""`Pool.map`: lazy reading, the order of results, failures as results, and early ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raypool.errors import InvalidTask, LedgerError, PoolStopped, UnknownRole
from raypool.future import TaskFuture
from raypool.mapping import THREAD_NAME, as_task, map_tasks
from raypool.records import Ending, EndState, StoredCause
from raypool.response import Response
from raypool.task import Task, check_task


class FakeClient:
    """Makes futures, and resolves them when it is told to.

    Attributes:
        futures: those that were submitted, in order.
        cancelled: the ids that were asked to be cancelled.
        on_submit: called with each future, as it is submitted.
    """

    def __init__(self) -> None:
        self.resolved = threading.Condition()
        self.futures: list[TaskFuture] = []
        self.cancelled: list[str] = []
        self.on_submit: Callable[[TaskFuture], None] = lambda future: None

    def submit(self, task: Task) -> TaskFuture:
        check_task(task)
        if task.role == "alchemist":
            raise UnknownRole("no worker with the role 'alchemist'")
        client: Any = self
        future = TaskFuture(client, task.id or f"task-{len(self.futures)}", task)
        self.futures.append(future)
        self.on_submit(future)
        return future

    def cancel(self, task_id: str) -> None:
        self.cancelled.append(task_id)


def end(future: TaskFuture, state: EndState = "completed") -> None:
    """Resolve a future as a client does."""
    cause = None if state == "completed" else StoredCause("BackendError", "E", "no")
    task = future._task
    assert task is not None
    future.end(Ending(1, state, "crew-1", 1, 0, text=f"re: {task.prompt}", cause=cause))
    if state == "completed":
        future.set_result(Response(text=f"re: {task.prompt}"))
    else:
        future.set_exception(RuntimeError("what the future raises is not what the result has"))


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


class Prompts:
    """Counts how many prompts were read."""

    def __init__(self, count: int) -> None:
        self.read = 0
        self._count = count

    def __iter__(self) -> Iterator[str]:
        for number in range(self._count):
            self.read += 1
            yield f"q{number}"


def await_reading_threads() -> None:
    """Wait until nothing reads prompts any more."""
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(10)
            assert not thread.is_alive()


both = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


@both
def test_every_prompt_gets_its_result(client: FakeClient, ordered: bool) -> None:
    client.on_submit = end

    results = map_tasks(client.submit, Prompts(50), ordered=ordered, window=7)

    assert [result.text for result in results] == [f"re: q{n}" for n in range(50)]


@both
def test_nothing_is_read_before_the_first_result_is_asked_for(
    client: FakeClient, ordered: bool
) -> None:
    prompts = Prompts(50)

    results = map_tasks(client.submit, prompts, ordered=ordered, window=7)

    assert prompts.read == 0
    results.close()


@both
@pytest.mark.parametrize("window", [1, 2, 7])
def test_never_more_than_the_window_is_read_ahead(
    client: FakeClient, ordered: bool, window: int
) -> None:
    prompts = Prompts(30)
    ahead: list[int] = []
    received = 0

    def end_the_oldest_when_full(_: TaskFuture) -> None:
        ahead.append(prompts.read - received)
        pending = [future for future in client.futures if not future.done()]
        if len(pending) == window:
            end(pending.pop(0))
        if prompts.read == 30:
            for future in pending:
                end(future)

    client.on_submit = end_the_oldest_when_full
    for _ in map_tasks(client.submit, prompts, ordered=ordered, window=window):
        received += 1
        ahead.append(prompts.read - received)

    assert received == 30
    assert max(ahead) == window


@both
def test_prompt_is_not_read_while_the_window_is_full(client: FakeClient, ordered: bool) -> None:
    prompts = Prompts(30)
    results = map_tasks(client.submit, prompts, ordered=ordered, window=3)
    is_full = threading.Event()
    client.on_submit = lambda future: is_full.set() if len(client.futures) == 3 else None
    reader = threading.Thread(target=next, args=(results,), daemon=True)
    reader.start()
    is_full.wait(10)

    read_while_waiting = prompts.read
    end(client.futures[0])
    reader.join(10)

    assert read_while_waiting == 3
    assert not reader.is_alive()
    assert prompts.read == 3
    results.close()


@both
def test_result_comes_while_the_next_prompt_is_awaited(client: FakeClient, ordered: bool) -> None:
    client.on_submit = end
    has_answer = threading.Event()
    is_in_time: list[bool] = []

    def prompts() -> Iterator[str]:
        yield "a"
        is_in_time.append(has_answer.wait(10))
        yield "b"

    results = map_tasks(client.submit, prompts(), ordered=ordered, window=4)
    first = next(results)
    has_answer.set()

    assert [first.prompt, *(result.prompt for result in results)] == ["a", "b"]
    assert is_in_time == [True]


def test_ordered_result_waits_for_the_ones_before_it_alone(client: FakeClient) -> None:
    has_answers = threading.Event()

    def prompts() -> Iterator[str]:
        yield from ["a", "b", "c"]
        end(client.futures[1])
        end(client.futures[0])
        has_answers.wait(10)
        end(client.futures[2])

    results = map_tasks(client.submit, prompts(), ordered=True, window=4)
    begun = [next(results).prompt, next(results).prompt]
    has_answers.set()

    assert [*begun, *(result.prompt for result in results)] == ["a", "b", "c"]


def then_end_backwards(client: FakeClient, prompts: list[str]) -> Iterator[str]:
    """The prompts; when there are no more, their tasks end from the last to the first."""
    yield from prompts
    for future in reversed(client.futures):
        end(future)


@pytest.mark.parametrize(
    ("ordered", "expected"), [(True, ["a", "b", "c"]), (False, ["c", "b", "a"])]
)
def test_results_come_in_the_order_of_the_prompts_or_as_they_end(
    client: FakeClient, ordered: bool, expected: list[str]
) -> None:
    prompts = then_end_backwards(client, ["a", "b", "c"])

    results = map_tasks(client.submit, prompts, ordered=ordered, window=9)

    assert [result.prompt for result in results] == expected


@both
@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_failed_task_is_a_result_and_nothing_is_raised(
    client: FakeClient, ordered: bool, state: EndState
) -> None:
    client.on_submit = lambda future: end(future, "completed" if future.id == "a" else state)
    tasks = [Task("why?", id="a"), Task("how?", id="b")]

    good, bad = map_tasks(client.submit, tasks, ordered=ordered, window=9)

    assert (good.id, good.state) == ("a", "completed")
    assert (bad.id, bad.state) == ("b", state)
    assert bad.error is not None
    assert bad.error.message == "no"


@both
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Task(" ", id="b", metadata={"row": 2}), "InvalidTask"),
        (Task("how?", "alchemist", "b", {"row": 2}), "UnknownRole"),
    ],
    ids=["empty", "unknown role"],
)
def test_task_that_cannot_be_submitted_is_a_result_and_the_others_go_on(
    client: FakeClient, ordered: bool, bad: Task, error: str
) -> None:
    client.on_submit = end

    results = list(map_tasks(client.submit, ["a", bad, "c"], ordered=ordered, window=9))

    [failed] = [result for result in results if result.state == "failed"]
    assert [result.text for result in results if result.text] == ["re: a", "re: c"]
    assert (failed.id, failed.metadata, failed.attempts) == ("b", {"row": 2}, 0)
    assert failed.error is not None
    assert failed.error.type == error


@both
@pytest.mark.parametrize("error", [InvalidTask("a known id"), UnknownRole("no such role")])
def test_task_that_the_dispatcher_refuses_is_a_result(
    client: FakeClient, ordered: bool, error: Exception
) -> None:
    client.on_submit = lambda future: future.set_exception(error)

    [result] = map_tasks(client.submit, ["a"], ordered=ordered, window=9)

    assert result.state == "failed"
    assert result.error is not None
    assert result.error.message == str(error)


@both
@pytest.mark.parametrize(
    ("error", "cancelled"),
    [
        (PoolStopped("it has stopped"), ["task-1", "task-2"]),
        (LedgerError("disk full"), []),
    ],
)
def test_end_of_the_pool_is_raised_and_the_rest_is_cancelled_unless_its_ledger_fails(
    client: FakeClient, ordered: bool, error: Exception, cancelled: list[str]
) -> None:
    results = map_tasks(client.submit, ["a", "b", "c"], ordered=ordered, window=3)

    def fail_the_first(_: TaskFuture) -> None:
        if len(client.futures) == 3:
            client.futures[0].set_exception(error)

    client.on_submit = fail_the_first

    with pytest.raises(type(error), match=str(error)):
        next(results)
    await_reading_threads()
    assert sorted(client.cancelled) == cancelled


@both
def test_closing_early_cancels_what_has_not_ended(client: FakeClient, ordered: bool) -> None:
    prompts = Prompts(30)
    client.on_submit = lambda future: end(future) if future.id == "task-0" else None
    results = map_tasks(client.submit, prompts, ordered=ordered, window=4)

    next(results)
    results.close()
    await_reading_threads()

    assert prompts.read <= 4
    assert sorted(client.cancelled) == [f.id for f in client.futures if f.id != "task-0"]


@both
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(15)], ids=repr)
def test_program_that_is_told_to_end_cancels_nothing(
    client: FakeClient, ordered: bool, error: BaseException
) -> None:
    client.on_submit = lambda future: end(future) if future.id == "task-0" else None
    results = map_tasks(client.submit, Prompts(30), ordered=ordered, window=4)

    next(results)
    with pytest.raises(type(error)):
        results.throw(error)
    await_reading_threads()

    assert client.cancelled == []
    assert len(client.futures) <= 4


@both
def test_closing_awaits_no_prompt_and_the_one_being_read_is_dropped(
    client: FakeClient, ordered: bool
) -> None:
    client.on_submit = end
    has_closed = threading.Event()
    is_in_time: list[bool] = []

    def prompts() -> Iterator[str]:
        yield "a"
        is_in_time.append(has_closed.wait(10))
        yield "b"
        raise AssertionError("read after the end")

    results = map_tasks(client.submit, prompts(), ordered=ordered, window=4)
    next(results)
    results.close()
    has_closed.set()
    await_reading_threads()

    assert [future.id for future in client.futures] == ["task-0"]
    assert is_in_time in ([True], [])


@both
def test_task_that_is_being_submitted_when_the_stream_closes_is_cancelled(
    client: FakeClient, ordered: bool
) -> None:
    has_closed = threading.Event()

    def submit(future: TaskFuture) -> None:
        if future.id == "task-0":
            end(future)
        else:
            has_closed.wait(10)

    client.on_submit = submit
    results = map_tasks(client.submit, Prompts(30), ordered=ordered, window=4)

    next(results)
    results.close()
    has_closed.set()
    await_reading_threads()

    assert client.cancelled == [future.id for future in client.futures[1:]]
    assert len(client.futures) <= 2


@both
def test_dropping_the_stream_ends_the_reading(client: FakeClient, ordered: bool) -> None:
    prompts = Prompts(30)
    client.on_submit = lambda future: end(future) if future.id == "task-0" else None

    next(map_tasks(client.submit, prompts, ordered=ordered, window=4))
    await_reading_threads()

    assert prompts.read <= 4


@both
def test_error_of_the_prompts_is_raised_and_what_was_submitted_is_cancelled(
    client: FakeClient, ordered: bool
) -> None:
    def prompts() -> Iterator[str]:
        yield "a"
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        list(map_tasks(client.submit, prompts(), ordered=ordered, window=4))

    assert client.cancelled == ["task-0"]


@both
def test_results_that_are_ready_come_before_the_error_of_the_prompts(
    client: FakeClient, ordered: bool
) -> None:
    client.on_submit = end

    def prompts() -> Iterator[str]:
        yield from ["a", "b"]
        raise OSError("no such file")

    results = map_tasks(client.submit, prompts(), ordered=ordered, window=4)

    assert [next(results).prompt, next(results).prompt] == ["a", "b"]
    with pytest.raises(OSError, match="no such file"):
        next(results)


@both
def test_end_of_the_pool_at_a_submission_is_raised(ordered: bool) -> None:
    def submit(task: Task) -> TaskFuture:
        raise PoolStopped("it has stopped")

    with pytest.raises(PoolStopped, match="it has stopped"):
        next(map_tasks(submit, ["a"], ordered=ordered, window=4))


@both
def test_no_prompts_are_no_results(client: FakeClient, ordered: bool) -> None:
    assert list(map_tasks(client.submit, [], ordered=ordered, window=4)) == []


def test_task_stays_the_task_it_is_and_a_prompt_becomes_one() -> None:
    task = Task("why?", "chemist", "a")

    assert as_task(task) is task
    assert as_task("why?") == Task("why?")
