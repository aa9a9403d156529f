"""Several workers run one task: in races, and when the first of them is late."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from raypool import Agent, AgentStart, InvalidTask, Pool, RetryPolicy, Task, TaskFailed, UnknownRole
from raypool.agent import Turn
from raypool.backends import ScriptedBackend
from raypool.task import Content
from raypool.telemetry import TelemetryEvent
from raypool.testing import Fault
from tests.scenarios.acting import seconds_of
from tests.scenarios.conftest import Provider

SIZE = 4


def answer(prompt: str) -> str | Exception:
    return ConnectionError("no line") if prompt == "fail" else prompt


class ByNumber(Agent):
    """Asks what the task's metadata has for its worker: `{"1": …, "2": …}`."""

    def init_agent(self, start: AgentStart) -> None:
        self.number = start.worker.rpartition("-")[2]

    def pre_turn(self, turn: Turn, prompt: Content) -> Content | None:
        asked: dict[str, Content] = turn.task.metadata or {}
        return asked.get(self.number)


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    """Workers that may be asked different things; what takes `60 s` is interrupted."""
    with Pool.start(
        SIZE,
        role="juror",
        agent=ByNumber,
        backend=ScriptedBackend(answer, latency=seconds_of),
        retry=RetryPolicy(max_attempts=1),
        hedge_share=1.0,
    ) as pool:
        yield pool


def asked(*prompts: str) -> dict[str, Any]:
    """The first worker is asked the first of these, and so on."""
    return {str(number): prompt for number, prompt in enumerate(prompts, start=1)}


SLOW = "60 slow"


def test_first_answer_wins_and_the_others_are_interrupted(pool: Pool) -> None:
    race = pool.first("?", n=SIZE, metadata=asked(SLOW, "fail", "quick", SLOW), id="a race")

    assert race.result(timeout=30).text == "quick"
    losers = race.losers(timeout=30)

    assert race.worker == f"{pool.name}-3"
    assert sorted(loser.state for loser in losers) == ["cancelled", "cancelled", "failed"]
    assert {loser.id for loser in losers} < {f"a race/{k}" for k in range(1, SIZE + 1)}
    assert len({loser.worker for loser in losers} | {race.worker}) == SIZE
    in_results = {result.id: result for result in pool.iter_results()}
    assert all(in_results[loser.id].state == loser.state for loser in losers)


def test_race_that_is_run_again_gives_the_same_answer_and_asks_nobody(pool: Pool) -> None:
    pool.first("?", metadata=asked(*["once"] * SIZE), id="again").result(timeout=30)
    known = sum(1 for _ in pool.iter_results())

    race = pool.first("?", metadata=asked(*["twice"] * SIZE), id="again")

    assert race.result(timeout=30).text == "once"
    race.losers(timeout=30)
    assert {task.id for task in race.tasks} == {"again/1", "again/2"}
    assert sum(1 for one in pool.iter_results() if one.id.startswith("again/")) == 2
    assert sum(1 for _ in pool.iter_results()) <= known + 1


def test_first_fails_when_all_workers_have(pool: Pool) -> None:
    race = pool.first("?", n=3, metadata=asked(*["fail"] * SIZE))

    with pytest.raises(TaskFailed, match="no line"):
        race.result(timeout=30)


def test_what_losers_had_begun_is_counted_as_spent_in_vain(pool: Pool) -> None:
    before = pool.status().extra_turns

    race = pool.first("?", n=SIZE, metadata=asked(SLOW, SLOW, "0.5 quick", SLOW))
    race.result(timeout=30)
    race.losers(timeout=30)

    assert pool.status().extra_turns == before + SIZE - 1


def test_quorum_interrupts_who_is_not_needed_any_more(pool: Pool) -> None:
    prompts = asked("Paris", "0.2 Rome", SLOW, " PARIS ")

    race = pool.quorum("?", n=SIZE, agree=2, metadata=prompts)

    assert race.result(timeout=30).text.strip().lower() == "paris"
    assert [one.state for one in race.losers(timeout=30)].count("completed") in (1, 2)
    assert pool.status().busy == 0


def test_quorum_that_cannot_be_had_says_how_the_votes_fell(pool: Pool) -> None:
    race = pool.quorum("?", n=SIZE, agree=3, metadata=asked("a", "b", "a", "b"))

    with pytest.raises(TaskFailed, match=r"no 3 of 4 answers agreed: 2, 2$"):
        race.result(timeout=30)


def test_quorum_agrees_by_a_key(pool: Pool) -> None:
    prompts = asked("it is 7", "7", "seven", "about 7.")

    race = pool.quorum(
        "?", n=SIZE, agree=3, key=lambda response: response.text.index("7") >= 0, metadata=prompts
    )

    assert "7" in race.result(timeout=30).text


def test_cancelling_a_race_frees_its_workers(pool: Pool) -> None:
    race = pool.first("?", n=SIZE, metadata=asked(*[SLOW] * SIZE))
    assert race.accepted(timeout=30)

    assert race.cancel()

    assert isinstance(race.exception(timeout=30), Exception)
    assert race.cancelled()
    pool.wait_for_all(timeout=30)
    assert pool.submit("free again").result(timeout=30).text == "free again"


def test_races_may_be_started_from_many_threads(pool: Pool) -> None:
    def run(number: int) -> str:
        return pool.first(f"question {number}", n=2).result(timeout=60).text

    with ThreadPoolExecutor(8) as aside:
        answers = list(aside.map(run, range(80)))

    assert answers == [f"question {number}" for number in range(80)]


def test_race_needs_a_worker_for_each_of_its_tasks(pool: Pool) -> None:
    with pytest.raises(ValueError, match=rf"n must be at most .* has {SIZE} now, got {SIZE + 1}"):
        pool.first("?", n=SIZE + 1)
    with pytest.raises(ValueError, match=rf"n must be at most .* got {10**12}"):
        pool.first("?", n=10**12)
    with pytest.raises(ValueError, match=r"with the role 'juror'.* got 9"):
        pool.quorum("?", n=9, role="juror")
    with pytest.raises(UnknownRole, match="judge"):
        pool.first("?", role="judge")


def test_race_takes_a_task_with_its_options_unless_it_has_a_session(pool: Pool) -> None:
    task = Task("?", role="juror", metadata=asked(*["mine"] * SIZE))

    assert pool.first(task).result(timeout=30).text == "mine"
    with pytest.raises(InvalidTask, match="brings its own options"):
        pool.first(task, priority=1)
    with pytest.raises(InvalidTask, match="id must be a text of 1 to 512 characters, got 42"):
        pool.first("?", id=42)  # type: ignore[arg-type]
    with pytest.raises(InvalidTask, match="key must be a function"):
        pool.quorum("?", n=2, agree=1, key=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidTask, match="a race takes no session"):
        pool.quorum(Task("?", session="s"), n=2, agree=1)


def test_loser_that_was_interrupted_reports_what_was_known_of_its_cost(
    api_pool: Pool, provider: Provider
) -> None:
    seconds = iter([0.0, 0.5])
    provider.begin(faults=[Fault.stall(after=1), None], latency=lambda call: next(seconds))
    before = api_pool.status()

    race = api_pool.first("how many words are these?")
    answer = race.result(timeout=30)
    [loser] = race.losers(timeout=30)

    assert loser.state == "cancelled"
    assert loser.usage.input_tokens == pytest.approx(answer.usage.input_tokens, abs=5)
    assert loser.cost_usd is not None
    assert loser.cost_usd > 0
    after = api_pool.status()
    assert after.extra_turns == before.extra_turns + 1
    assert after.extra_cost_usd == pytest.approx(before.extra_cost_usd + loser.cost_usd)
    assert api_pool.poll(loser.id).cost_usd == loser.cost_usd


def hedged_and_lost(events: Iterator[TelemetryEvent]) -> list[TelemetryEvent]:
    """The first two of the events that tell of second copies."""
    told = (event for event in events if event.name in ("task.hedged", "task.hedge_lost"))
    return [next(told), next(told)]


def test_late_task_is_answered_by_a_second_worker(pool: Pool) -> None:
    before = pool.status().extra_turns
    with closing(pool.events()) as events:
        prompts = asked(SLOW, *["quick"] * (SIZE - 1))
        futures = [
            pool.submit("?", hedge_after=0.2, metadata=prompts, id=f"hedged {k}")
            for k in range(SIZE)
        ]

        answers = [future.result(timeout=30).text for future in futures]
        hedged, lost = hedged_and_lost(events)

    assert answers == ["quick"] * SIZE
    assert f"{pool.name}-1" not in [future.worker for future in futures]
    assert hedged.task == lost.task
    assert hedged.fields["waited_seconds"] >= 0.2
    assert lost.worker == f"{pool.name}-1"
    assert pool.status().extra_turns == before + 1
    assert pool.status().busy == 0


def test_task_that_is_answered_in_time_has_no_copy(pool: Pool) -> None:
    before = pool.status().extra_turns

    futures = [pool.submit(f"question {k}", hedge_after=30.0) for k in range(40)]

    assert [one.result(timeout=30).text for one in futures] == [f"question {k}" for k in range(40)]
    assert pool.status().extra_turns == before
