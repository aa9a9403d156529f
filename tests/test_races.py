"""The future of a race: who wins, what the others come to, and what it raises when nobody does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raypool.errors import (
    BackendError,
    Cause,
    InvalidTask,
    PoolStopped,
    TaskCancelled,
    TaskFailed,
    TurnTimeout,
    WaitTimeout,
)
from raypool.future import TaskFuture
from raypool.races import (
    RaceFuture,
    any_answer,
    check_agree,
    check_count,
    check_key,
    same_answer,
    tasks_of_race,
)
from raypool.records import Ending, EndState, StoredCause
from raypool.response import Response
from raypool.task import Task
from raypool.usage import Usage

NO_USAGE = Usage()

pytestmark = pytest.mark.timeout(30)


class Racers:
    """The tasks of a race, each ended when and how the test says.

    Attributes:
        tasks: their futures.
        cancelled: the ids that were asked to be cancelled, in order.
    """

    def __init__(self, n: int) -> None:
        self.resolved = threading.Condition()
        self.cancelled: list[str] = []
        self.tasks = [TaskFuture(self, f"race/{k}", Task("why?")) for k in range(1, n + 1)]

    def first(self) -> RaceFuture:
        return RaceFuture(self, "race", self.tasks, agree=1, key=any_answer)

    def quorum(self, agree: int, key: Callable[[Response], object] = same_answer) -> RaceFuture:
        return RaceFuture(self, "race", self.tasks, agree=agree, key=key)

    def cancel(self, task_id: str) -> None:
        self.cancelled.append(task_id)

    def await_receipt(self, future: TaskFuture, timeout: float | None) -> bool:
        return future.is_accepted or future.done()

    def accept(self) -> None:
        for k, task in enumerate(self.tasks, start=1):
            task.accept(f"crew-{k}")

    def answer(self, k: int, text: str = "42", parsed: Any = None) -> None:
        self._end(k, "completed")
        self.tasks[k - 1].set_result(Response(text=text, parsed=parsed))

    def fail(self, k: int, kind: type[TaskFailed] = BackendError) -> TaskFailed:
        self._end(k, "failed")
        error = kind(f"race/{k}", f"crew-{k}", 1, Cause("E", "a secret answer"))
        self.tasks[k - 1].set_exception(error)
        return error

    def end_cancelled(self, k: int) -> None:
        """The task is interrupted in the middle."""
        self._end(k, "cancelled", Usage(input_tokens=9), 0.25)
        self.tasks[k - 1].set_exception(TaskCancelled(f"race/{k}"))

    def _end(
        self, k: int, state: EndState, usage: Usage = NO_USAGE, cost_usd: float | None = None
    ) -> None:
        cause = StoredCause("BackendError", "E", "no") if state == "failed" else None
        ending = Ending(k, state, f"crew-{k}", 1, 0, usage=usage, cost_usd=cost_usd, cause=cause)
        self.tasks[k - 1].end(ending)


def test_first_good_answer_wins_and_the_others_are_cancelled() -> None:
    racers = Racers(3)
    race = racers.first()

    racers.fail(1)
    assert not race.done()
    racers.answer(3, "Paris")

    assert race.result(timeout=0).text == "Paris"
    assert (race.winner, race.worker) == (racers.tasks[2], "crew-3")
    assert racers.cancelled == ["race/2"]


def test_answer_that_comes_too_late_changes_nothing() -> None:
    racers = Racers(2)
    race = racers.first()

    racers.answer(2, "first")
    racers.answer(1, "second")

    assert race.result(timeout=0).text == "first"
    assert [loser.id for loser in race.losers(timeout=0)] == ["race/1"]


def test_first_fails_when_all_have_with_what_the_last_of_them_raised() -> None:
    racers = Racers(3)
    race = racers.first()

    racers.fail(2)
    last = racers.fail(1, TurnTimeout)
    racers.end_cancelled(3)

    assert race.exception(timeout=0) is last
    assert race.worker is None


def test_race_is_cancelled_when_all_of_it_is() -> None:
    racers = Racers(2)
    race = racers.first()

    racers.end_cancelled(1)
    racers.end_cancelled(2)

    assert race.cancelled()
    with pytest.raises(TaskCancelled, match="task 'race' was cancelled"):
        race.result(timeout=0)


def test_cancelling_a_race_cancels_what_has_not_ended() -> None:
    racers = Racers(3)
    race = racers.quorum(agree=2)
    racers.answer(1)

    assert race.cancel()
    assert racers.cancelled == ["race/2", "race/3"]
    racers.end_cancelled(2)
    racers.end_cancelled(3)

    assert race.cancelled()
    assert not race.cancel()


def test_race_that_was_cancelled_too_late_gives_its_answer() -> None:
    racers = Racers(2)
    race = racers.first()

    race.cancel()
    racers.answer(1)

    assert race.result(timeout=0).text == "42"


def test_quorum_gives_the_first_of_the_answers_that_agree() -> None:
    racers = Racers(5)
    race = racers.quorum(agree=3)

    racers.answer(4, " Paris\n")
    racers.answer(1, "Rome")
    racers.answer(2, "paris")
    assert not race.done()
    racers.answer(3, "PARIS")

    assert race.result(timeout=0).text == " Paris\n"
    assert race.worker == "crew-4"
    assert racers.cancelled == ["race/5"]


def test_quorum_of_typed_answers_agrees_by_what_was_parsed() -> None:
    racers = Racers(3)
    race = racers.quorum(agree=2)

    racers.answer(1, '{"n":1}', parsed={"n": 1})
    racers.answer(2, '{"n": 2}', parsed={"n": 2})
    racers.answer(3, '{ "n": 1 }', parsed={"n": 1})

    assert race.result(timeout=0).parsed == {"n": 1}


def test_quorum_fails_as_soon_as_enough_cannot_agree_and_quotes_no_answer() -> None:
    racers = Racers(5)
    race = racers.quorum(agree=3)

    for k, text in enumerate(["a", "b", "a"], start=1):
        racers.answer(k, text)
    racers.fail(4)
    assert not race.done()
    racers.answer(5, "b")

    with pytest.raises(TaskFailed) as raised:
        race.result(timeout=0)
    assert raised.value.cause.type == "NoAgreement"
    assert raised.value.cause.message == (
        "no 3 of 5 answers agreed: 2, 2; without an answer: 1 (BackendError)"
    )
    assert (raised.value.task_id, raised.value.attempts) == ("race", 5)
    assert "secret" not in str(raised.value)


def test_what_cannot_help_a_lost_quorum_is_cancelled() -> None:
    racers = Racers(5)
    race = racers.quorum(agree=4)

    racers.answer(1, "a")
    racers.answer(2, "b")
    assert not race.done()
    racers.answer(3, "c")

    with pytest.raises(TaskFailed, match=r"no 4 of 5 answers agreed: 1, 1, 1$"):
        race.result(timeout=0)
    assert racers.cancelled == ["race/4", "race/5"]


def test_key_that_raises_is_the_failure_of_that_vote_alone() -> None:
    racers = Racers(3)
    race = racers.quorum(agree=2, key=lambda response: int(response.text))

    racers.answer(1, "seven")
    racers.answer(2, "7")
    racers.answer(3, " 7 ")

    assert race.result(timeout=0).text == "7"


def test_quorum_without_any_vote_says_what_came_instead() -> None:
    racers = Racers(2)
    race = racers.quorum(agree=1, key=lambda response: response.parsed["n"])

    racers.answer(1, "one")
    racers.fail(2, TurnTimeout)
    error = race.exception(timeout=0)

    assert isinstance(error, TurnTimeout)


def test_quorum_whose_key_never_works_names_its_error_as_the_cause() -> None:
    racers = Racers(2)
    race = racers.quorum(agree=2, key=lambda response: int(response.text))

    racers.answer(1, "one")

    with pytest.raises(TaskFailed, match=r"none came; without an answer: 1 \(ValueError\)$") as it:
        race.result(timeout=0)
    assert isinstance(it.value.__cause__, ValueError)


def test_race_in_a_pool_that_stops_raises_that() -> None:
    racers = Racers(3)
    race = racers.quorum(agree=2)
    racers.answer(1)

    for task in racers.tasks[1:]:
        task.set_exception(PoolStopped("pool 'x' has stopped"))

    with pytest.raises(PoolStopped):
        race.result(timeout=0)


def test_losers_are_waited_for_and_tell_what_they_cost() -> None:
    racers = Racers(2)
    race = racers.first()
    racers.answer(1)

    with pytest.raises(WaitTimeout, match="race/2"):
        race.losers(timeout=0)
    racers.end_cancelled(2)
    [loser] = race.losers(timeout=0)

    assert (loser.id, loser.state, loser.cost_usd) == ("race/2", "cancelled", 0.25)
    assert loser.usage.input_tokens == 9


def test_race_is_accepted_when_all_of_it_is() -> None:
    racers = Racers(2)
    race = racers.first()

    with pytest.raises(WaitTimeout):
        race.accepted(timeout=0)
    racers.accept()

    assert race.accepted(timeout=0)


def test_race_of_known_tasks_is_decided_at_once() -> None:
    racers = Racers(2)
    racers.answer(1)
    racers.end_cancelled(2)

    assert racers.first().result(timeout=0).text == "42"


@pytest.mark.asyncio
async def test_race_can_be_awaited() -> None:
    racers = Racers(2)
    race = racers.first()
    asyncio.get_running_loop().call_later(0.01, racers.answer, 2, "soon")

    assert (await race).text == "soon"


@pytest.mark.asyncio
async def test_cancelling_who_awaits_a_race_cancels_all_of_it() -> None:
    racers = Racers(2)
    waiting = asyncio.ensure_future(racers.first()._wait())
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert racers.cancelled == ["race/1", "race/2"]


def test_race_has_no_stream() -> None:
    with pytest.raises(InvalidTask, match="race 'race' is not streamed"):
        Racers(2).first().stream()


def test_race_is_decided_once_when_all_end_at_the_same_time() -> None:
    for _ in range(50):
        racers = Racers(8)
        race = racers.first()
        gate = threading.Barrier(8)

        def run(k: int, racers: Racers = racers, gate: threading.Barrier = gate) -> None:
            gate.wait()
            racers.answer(k, str(k))

        with ThreadPoolExecutor(8) as aside:
            list(aside.map(run, range(1, 9)))

        assert race.winner is not None
        assert race.result(timeout=0) is race.winner.result(timeout=0)
        assert len(race.losers(timeout=0)) == 7


def test_tasks_of_a_race_ask_the_same_under_ids_of_their_own() -> None:
    race, tasks = tasks_of_race(Task("why?", id="x", role="chemist", priority=3), 3)

    assert race == "x"
    assert [task.id for task in tasks] == ["x/1", "x/2", "x/3"]
    assert {(task.prompt, task.role, task.priority) for task in tasks} == {("why?", "chemist", 3)}


def test_race_without_an_id_gets_one() -> None:
    race, tasks = tasks_of_race(Task("why?"), 2)

    assert [task.id for task in tasks] == [f"{race}/1", f"{race}/2"]


@pytest.mark.parametrize(
    "task",
    [Task("?", session="s"), Task("?", stream=True), Task("?", hedge_after=1.0)],
    ids=["session", "stream", "hedge_after"],
)
def test_race_refuses_what_its_tasks_cannot_have(task: Task) -> None:
    with pytest.raises(InvalidTask, match=r"a race takes no (session|stream|hedge_after): "):
        tasks_of_race(task, 2)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_race_needs_a_whole_number_of_tasks(n: Any) -> None:
    with pytest.raises(InvalidTask, match="n must be a whole number of at least 1, got"):
        check_count(n)


@pytest.mark.parametrize("agree", [0, 4, 2.0, True, None])
def test_quorum_needs_a_number_that_its_tasks_can_come_to(agree: Any) -> None:
    with pytest.raises(InvalidTask, match="agree must be a whole number from 1 to n=3, got"):
        check_agree(agree, 3)


def test_votes_are_counted_by_a_function() -> None:
    check_key(len)
    with pytest.raises(InvalidTask, match=r"key must be a function of a Response, got 'text'"):
        check_key("text")
