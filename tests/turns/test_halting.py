"""Agents that halt: what is handed back, what is told, and how they go on."""

from __future__ import annotations

import pytest

from raypool.agent import Agent, Halt, Turn
from raypool.halting import Halting
from raypool.messages import Assignment, Outcome
from raypool.response import Response
from raypool.task import Content
from tests.turns.hosting import Gated, outcomes, post, results, running_host, settle
from tests.turns.parts import new_log, text_of, told

pytestmark = pytest.mark.timeout(30)


class Reviewed(Agent):
    """Halts before or after the turns of the tasks that it is told of.

    Attributes:
        post_runs: how often it was told that it has halted and nothing runs.
    """

    def __init__(self, *, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> None:
        self._before = set(before)
        self._after = set(after)
        self.post_runs = 0

    def pre_turn(self, turn: Turn, prompt: Content) -> Halt | None:
        if turn.task.id not in self._before:
            return None
        self._before.discard(turn.task.id)
        return Halt(f"before {turn.task.id}")

    def handle_response(self, turn: Turn, response: Response) -> Halt | None:
        return Halt(f"after {turn.task.id}") if turn.task.id in self._after else None

    def post_run(self) -> None:
        self.post_runs += 1


@pytest.fixture
def gated() -> Gated:
    return Gated()


def returned(number: int, halt: str | None = None) -> Outcome:
    return Outcome(number, is_returned=True, halt=halt)


def test_halt_hands_back_what_has_not_started_and_tells_why_once(gated: Gated) -> None:
    agent = Reviewed(after=("task-1",))

    with running_host(gated.backend, agent) as host:
        first, second = post(host, 1, 2), post(host, 3)
        settle(host)
        gated.let(1)
        ended = results(first) | results(second)
        later = results(post(host, 4))
        assert (host.halted, host.queued) == ("after task-1", 0)

    assert text_of(ended[1]) == "1"
    assert ended[1].halt is None
    assert ended[2] == returned(2, "after task-1")
    assert ended[3] == returned(3)
    assert later == {4: returned(4)}
    assert gated.started == [1]
    assert agent.post_runs == 1


def test_halt_with_nothing_in_line_is_told_with_its_own_task(gated: Gated) -> None:
    gated.let(1)

    with running_host(gated.backend, Reviewed(after=("task-1",))) as host:
        assert results(post(host, 1))[1].halt == "after task-1"
        assert results(post(host, 2)) == {2: returned(2)}


def test_halt_before_a_turn_hands_back_that_task_too(gated: Gated) -> None:
    agent = Reviewed(before=("task-1",))

    with running_host(gated.backend, agent) as host:
        ended = results(post(host, 1, 2))

    assert sorted(ended) == [1, 2]
    assert all(outcome.is_returned for outcome in ended.values())
    assert {outcome.halt for outcome in ended.values()} == {"before task-1", None}
    assert gated.started == []
    assert agent.post_runs == 1


def test_resumed_agent_takes_tasks_again(gated: Gated) -> None:
    gated.let(1, 2)
    agent = Reviewed(before=("task-1",))

    with running_host(gated.backend, agent) as host:
        results(post(host, 1))
        assert host.resume() is True
        assert host.halted is None
        assert outcomes(post(host, 1, 2)) == {1: "1", 2: "2"}


def test_resume_of_an_agent_that_has_not_halted_does_nothing(gated: Gated) -> None:
    gated.let(1)

    with running_host(gated.backend, Reviewed()) as host:
        assert host.resume() is False
        assert outcomes(post(host, 1)) == {1: "1"}


def test_agent_that_halts_waits_for_the_turns_of_its_other_slots(gated: Gated) -> None:
    agent = Reviewed(after=("task-1", "task-2"))

    with running_host(gated.backend, agent, slots=3) as host:
        first, others = post(host, 1), post(host, 2, 3)
        gated.wait_started(3)
        gated.let(1)
        assert results(first)[1].halt == "after task-1"
        assert agent.post_runs == 0
        assert results(post(host, 4)) == {4: returned(4)}
        gated.let(2, 3)
        ended = results(others)

    assert [text_of(ended[number]) for number in (2, 3)] == ["2", "3"]
    assert [ended[number].halt for number in (2, 3)] == [None, None]
    assert agent.post_runs == 1


def test_failed_attempt_may_be_the_last_that_a_halted_agent_waits_for(gated: Gated) -> None:
    agent = Reviewed(after=("task-1",))
    with running_host(gated.backend, agent, slots=2) as host:
        first, second = post(host, 1), post(host, 2)
        gated.wait_started(2)
        gated.let(1)
        results(first)
        gated.fail(2)
        assert results(second)[2].failure is not None

    assert agent.post_runs == 1


def test_session_goes_on_after_its_worker_was_resumed(gated: Gated) -> None:
    gated.let(1, 2)
    agent = Reviewed(before=("task-2",))
    second = Assignment(2, "task-2", "2", session="user-42", session_turns=1)

    with running_host(gated.backend, agent) as host:
        results(host.post([Assignment(1, "task-1", "1", session="user-42")]))
        results(host.post([second]))
        host.resume()
        outcome = results(host.post([second]))[2]

    assert outcome.conversation is not None
    assert [message["content"] for message in outcome.conversation.messages] == ["2", "2"]


def test_telemetry_tells_of_halt_and_resume(gated: Gated) -> None:
    gated.let(1)
    log = new_log()

    with running_host(gated.backend, Reviewed(after=("task-1",)), log=log) as host:
        results(post(host, 1))
        host.resume()

    [halted, resumed] = [event for event in told(log) if event.name in ("halted", "resumed")]
    assert (halted.name, halted.fields) == ("halted", {"reason": "after task-1"})
    assert resumed.name == "resumed"


def test_halts_are_told_of_and_finished_once_each() -> None:
    calls: list[str | None] = []
    halting = Halting()
    halting.on_halt = lambda: calls.append(halting.reason)

    assert [halting.halt("one"), halting.halt("two")] == [True, False]
    assert (halting.is_halted, halting.reason, calls) == (True, "one", ["one"])
    assert [halting.take_report(), halting.take_report()] == ["one", None]
    assert [halting.take_post_run(), halting.take_post_run()] == [True, False]

    halting.resume()
    assert (halting.is_halted, halting.is_reported) == (False, True)
    assert halting.halt("three") is True
    assert (halting.is_reported, halting.take_report()) == (False, "three")


def test_reason_that_is_no_unicode_can_be_told() -> None:
    halting = Halting()

    halting.halt("caf\udce9")

    assert halting.reason == halting.take_report() == "caf\ufffd"
