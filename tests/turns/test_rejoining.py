"""A worker whose dispatcher has died goes on for the next one: nothing lost, nothing twice."""

from __future__ import annotations

import pytest

from raypool.agent import Agent, Halt, Prompt
from raypool.backends import ScriptedBackend
from raypool.messages import Assignment, Notice
from tests.turns.hosting import Gated, outcomes, post, results, running_host, settle

pytestmark = pytest.mark.timeout(30)

NEXT = 2


@pytest.fixture
def gated() -> Gated:
    return Gated()


def test_running_turn_goes_on_and_its_answer_goes_to_the_next_dispatcher(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        orphaned = post(host, 1)
        gated.wait_started(1)

        rejoined = host.rejoin(NEXT, [])
        assert rejoined is not None
        assert [(one.number, one.id, one.attempt) for one in rejoined.begun] == [(1, "task-1", 1)]
        assert outcomes(orphaned) == {}
        taken_over = host.take_over([1], epoch=NEXT)
        gated.let(1)

        assert outcomes(taken_over) == {1: "1"}
    assert gated.started == [1]


def test_answer_that_the_dead_dispatcher_did_not_confirm_is_told_again(gated: Gated) -> None:
    gated.let(1, 2, 3)
    with running_host(gated.backend) as host:
        outcomes(post(host, 1))
        outcomes(host.post([Assignment(2, "task-2", "2")], confirmed=[1]))

        rejoined = host.rejoin(NEXT, [])
        assert rejoined is not None
        assert [one.number for one in rejoined.begun] == [2]
        assert rejoined.last_number == 2

        assert outcomes(host.take_over([2], epoch=NEXT)) == {2: "2"}
    assert gated.started == [1, 2]


def test_turn_that_ends_between_the_two_dispatchers_is_not_lost(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        post(host, 1)
        gated.wait_started(1)
        host.rejoin(NEXT, [])

        gated.let(1)
        host.wait_finished(1)

        assert outcomes(host.take_over([1], epoch=NEXT)) == {1: "1"}


def test_what_had_not_started_is_dropped_and_runs_when_it_is_sent_again(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        post(host, 1, 2, 3)
        gated.wait_started(1)

        rejoined = host.rejoin(NEXT, [])
        assert rejoined is not None
        assert [one.number for one in rejoined.begun] == [1]
        assert host.queued == 0
        gated.let(1, 2, 3)
        again = host.post([Assignment(2, "task-2", "2")], epoch=NEXT)

        assert outcomes(again) == {2: "2"}
    assert gated.started == [1, 2]


def test_calls_of_the_dead_dispatcher_that_come_late_run_nothing(gated: Gated) -> None:
    gated.let(1, 2)
    with running_host(gated.backend) as host:
        host.rejoin(NEXT, [])

        assert outcomes(post(host, 1)) == {}
        assert outcomes(host.take_over([1], epoch=1)) == {}
        assert outcomes(host.post([Assignment(2, "task-2", "2")], epoch=NEXT)) == {2: "2"}
    assert gated.started == [2]


def test_task_that_is_not_here_any_more_comes_back_as_if_it_was_called_back() -> None:
    with running_host(ScriptedBackend()) as host:
        host.rejoin(NEXT, [])

        outcome = results(host.take_over([7], epoch=NEXT))[7]

    assert outcome.is_returned
    assert outcome.is_called_back


def test_cancellation_meant_for_an_earlier_sending_does_not_outlive_its_dispatcher(
    gated: Gated,
) -> None:
    gated.let(1)
    with running_host(gated.backend) as host:
        assert host.recall([1]) == [1]

        host.rejoin(NEXT, [])

        assert outcomes(host.post([Assignment(1, "task-1", "1")], epoch=NEXT)) == {1: "1"}


def test_next_dispatcher_counts_what_has_ended_from_the_start(gated: Gated) -> None:
    gated.let(1, 2)
    with running_host(gated.backend) as host:
        outcomes(post(host, 1))
        assert host.finished == 1

        host.rejoin(NEXT, [])
        assert host.finished == 0
        outcomes(host.post([Assignment(2, "task-2", "2")], epoch=NEXT))

        assert host.finished == 1


def test_halt_is_told_and_not_reported_once_more() -> None:
    class Halting(Agent):
        def handle_response(self, turn: object, response: object) -> Prompt | Halt | None:
            return Halt("enough")

    with running_host(ScriptedBackend(), Halting()) as host:
        outcomes(post(host, 1))

        rejoined = host.rejoin(NEXT, [])
        assert rejoined is not None
        assert rejoined.halted == "enough"
        returned = results(host.post([Assignment(2, "task-2", "2")], epoch=NEXT))[2]

    assert returned.is_returned
    assert returned.halt is None


def test_notice_is_heard_once_whoever_is_told_of_it() -> None:
    heard: list[object] = []

    class Listening(Agent):
        def handle_event(self, event: object) -> None:
            heard.append(event)

    with running_host(ScriptedBackend(), Listening()) as host:
        outcome = host.notify(Notice(5, "news"))
        outcome.result()
        settle(host)

        rejoined = host.rejoin(NEXT, [Notice(5, "news")])

    assert rejoined is not None
    assert rejoined.notices == [Notice(5, "news")]
    assert rejoined.last_number == 5
    assert heard == ["news"]
