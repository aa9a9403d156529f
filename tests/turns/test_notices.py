"""Events for an agent: when it hears them, in which order, and what they may lead to."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from raypool.agent import Agent, Halt, Prompt, Turn
from raypool.backends import ScriptedBackend
from raypool.messages import Assignment, Notice, Outcome
from raypool.response import Response
from raypool.task import Content
from tests.turns.hosting import Gated, outcomes, post, results, running_host, settle
from tests.turns.parts import new_log, text_of, told

pytestmark = pytest.mark.timeout(30)


class Listener(Agent):
    """Notes what it hears and what it is asked, and does what events say.

    `then` has what to decide after the answers of which it is told, as `after_1`.
    """

    def __init__(self, **then: Prompt | Halt) -> None:
        self.pages: list[Any] = []
        self._then = then

    def pre_turn(self, turn: Turn, prompt: Content) -> None:
        self.pages.append(prompt)

    def handle_response(self, turn: Turn, response: Response) -> Prompt | Halt | None:
        self.pages.append(f"{response.text} done")
        return self._then.pop(f"after_{response.text}", None)

    def handle_event(self, event: Any) -> Any:
        self.pages.append(event)
        if event == "raise":
            raise ValueError("no")
        if isinstance(event, dict):
            return Halt(event["halt"]) if "halt" in event else Prompt(event["ask"])
        return None

    def post_run(self) -> None:
        self.pages.append("post_run")


@pytest.fixture
def gated() -> Gated:
    return Gated()


def test_idle_agent_hears_an_event_at_once() -> None:
    agent = Listener()

    with running_host(agent=agent) as host:
        assert host.notify(Notice(7, "news")).result(10) == Outcome(7)

    assert agent.pages == ["news"]


def test_events_wait_for_the_end_of_the_running_turn_and_go_before_the_next_task(
    gated: Gated,
) -> None:
    agent = Listener()

    with running_host(gated.backend, agent) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)
        heard = [host.notify(Notice(10 + n, f"event {n}")) for n in range(5)]
        settle(host)
        assert agent.pages == ["1"]
        gated.let(1, 2)
        outcomes(envelope)

    assert agent.pages == ["1", "1 done", *(f"event {n}" for n in range(5)), "2", "2 done"]
    assert [one.result(0) for one in heard] == [Outcome(10 + n) for n in range(5)]


def test_events_are_heard_between_the_turns_of_a_chain(gated: Gated) -> None:
    agent = Listener(after_1=Prompt("11"))

    with running_host(gated.backend, agent) as host:
        envelope = post(host, 1)
        gated.wait_started(1)
        host.notify(Notice(10, "news"))
        settle(host)
        gated.let(1, 11)
        outcomes(envelope)

    assert agent.pages == ["1", "1 done", "news", "11", "11 done"]


def test_event_waits_though_another_slot_is_free(gated: Gated) -> None:
    agent = Listener()

    with running_host(gated.backend, agent, slots=2) as host:
        envelope = post(host, 1)
        gated.wait_started(1)
        host.notify(Notice(10, "news"))
        settle(host)
        assert agent.pages == ["1"]
        gated.let(1)
        outcomes(envelope)

    assert agent.pages == ["1", "1 done", "news"]


def test_event_waits_for_the_end_of_one_turn_not_of_all(gated: Gated) -> None:
    agent = Listener()

    with running_host(gated.backend, agent, slots=2) as host:
        first, second = post(host, 1), post(host, 2)
        gated.wait_started(2)
        heard = host.notify(Notice(10, "news"))
        gated.let(1)
        heard.result(10)
        assert outcomes(first) == {1: "1"}
        gated.let(2)
        outcomes(second)

    assert agent.pages[2:] == ["1 done", "news", "2 done"]


def test_event_is_heard_though_the_turn_before_it_failed_or_was_tried_again(
    gated: Gated,
) -> None:
    agent = Listener()
    attempts = 0

    async def reply(prompt: str) -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            host.notify(Notice(10, "news"))
            await asyncio.to_thread(settle, host)
            raise ConnectionError("cut")
        return prompt

    with running_host(ScriptedBackend(reply), agent) as host:
        outcomes(post(host, 1))
        outcomes(post(host, 1))

    assert agent.pages == ["1", "news", "1", "1 done"]


def test_state_that_a_turn_has_changed_is_there_when_an_event_is_heard(gated: Gated) -> None:
    class Counting(Agent):
        def __init__(self) -> None:
            self.count = 0

        async def handle_response(self, turn: Turn, response: Response) -> None:
            seen = self.count
            await asyncio.sleep(0.01)
            self.count = seen + 1

        async def handle_event(self, event: Any) -> None:
            seen = self.count
            await asyncio.sleep(0.01)
            self.count = seen + 1

    agent = Counting()
    with running_host(gated.backend, agent, slots=4) as host:
        gated.let(*range(8))
        envelope = post(host, *range(8))
        heard = [host.notify(Notice(10 + n, n)) for n in range(4)]
        outcomes(envelope)
        for one in heard:
            one.result(10)

    assert agent.count == 12


def test_event_that_asks_becomes_a_task_of_its_own_before_the_mailbox(gated: Gated) -> None:
    agent = Listener()

    with running_host(gated.backend, agent) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)
        heard = [
            host.notify(Notice(10, {"ask": "21"})),
            host.notify(Notice(11, "news")),
            host.notify(Notice(12, {"ask": "22"})),
        ]
        settle(host)
        gated.let(1, 2, 21, 22)
        outcomes(envelope)

    assert [page for page in agent.pages if "done" not in page] == [
        "1",
        {"ask": "21"},
        "news",
        {"ask": "22"},
        "21",
        "22",
        "2",
    ]
    first, news, second = (one.result(0) for one in heard)
    assert (text_of(first), text_of(second)) == ("21", "22")
    assert first.asked is not None
    assert second.asked is not None
    assert first.asked.prompt == "21"
    assert first.asked.id != second.asked.id
    assert news == Outcome(11)


def test_what_an_event_asks_for_pauses_until_capacity_is_reserved_for_it(gated: Gated) -> None:
    agent = Listener()
    gated.let(21)

    with running_host(gated.backend, agent) as host:
        paused = host.notify(Notice(10, {"ask": "21"}, exchanges=0)).result(10)
        assert paused.asked is not None
        assert (paused.is_paused, paused.requests, gated.started) == (True, 0, [])
        work = Assignment(10, paused.asked.id, paused.asked.prompt, role="chemist", exchanges=1)
        ended = results(host.post([work]))

    assert text_of(ended[10]) == "21"
    assert (ended[10].requests, ended[10].asked, gated.started) == (1, None, [21])
    assert agent.pages[:2] == [{"ask": "21"}, "21"]


def test_event_whose_handler_raises_is_dealt_with_and_the_next_one_is_heard() -> None:
    agent = Listener()

    with running_host(agent=agent) as host:
        assert host.notify(Notice(10, "raise")).result(10) == Outcome(10)
        assert host.notify(Notice(11, "news")).result(10) == Outcome(11)

    assert agent.pages == ["raise", "news"]


def test_event_may_halt_an_idle_agent() -> None:
    agent = Listener()

    with running_host(agent=agent) as host:
        assert host.notify(Notice(10, {"halt": "enough"})).result(10) == Outcome(10, halt="enough")
        assert host.halted == "enough"
        assert outcomes(post(host, 1)) == {1: None}

    assert agent.pages == [{"halt": "enough"}, "post_run"]


def test_event_that_halts_leaves_the_running_task_its_answer_and_hands_back_the_others(
    gated: Gated,
) -> None:
    agent = Listener(after_1=Prompt("11"))

    with running_host(gated.backend, agent) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)
        host.notify(Notice(10, {"halt": "enough"}))
        settle(host)
        gated.let(1, 11)
        ended = results(envelope)

    assert text_of(ended[1]) == "11"
    assert ended[2] == Outcome(2, is_returned=True, halt="enough")
    assert agent.pages == ["1", "1 done", {"halt": "enough"}, "11", "11 done", "post_run"]


def test_halted_agent_hears_events_and_what_they_ask_waits_until_it_is_resumed() -> None:
    agent = Listener()

    with running_host(agent=agent) as host:
        host.notify(Notice(10, {"halt": "enough"})).result(10)
        asks = host.notify(Notice(11, {"ask": "21"}))
        assert host.notify(Notice(12, "news")).result(10) == Outcome(12)
        assert not asks.done()
        host.resume()
        assert text_of(asks.result(10)) == "21"

    assert agent.pages[1:] == ["post_run", {"ask": "21"}, "news", "21", "21 done"]


def test_events_that_are_not_dealt_with_when_the_host_stops_are_given_up(gated: Gated) -> None:
    with running_host(gated.backend, Listener()) as host:
        asks = host.notify(Notice(10, {"ask": "1"}))
        gated.wait_started(1)
        waits = host.notify(Notice(11, "news"))

    assert asks.result(10) == Outcome(10)
    assert waits.result(10) == Outcome(11)
    assert host.notify(Notice(12, "late")).result(0) == Outcome(12)


def test_event_that_is_being_heard_when_the_host_stops_is_given_up() -> None:
    entered = threading.Event()

    class Endless(Agent):
        async def handle_event(self, event: Any) -> None:
            entered.set()
            await asyncio.Event().wait()

    with running_host(agent=Endless()) as host:
        heard = host.notify(Notice(10, "news"))
        entered.wait()

    assert heard.result(10) == Outcome(10)


def test_telemetry_tells_how_many_events_wait(gated: Gated) -> None:
    log = new_log()

    with running_host(gated.backend, Listener(), log=log) as host:
        envelope = post(host, 1)
        gated.wait_started(1)
        for number in range(3):
            host.notify(Notice(10 + number, "news"))
        settle(host)
        gated.let(1)
        outcomes(envelope)

    received = [event for event in told(log) if event.name == "event.received"]
    assert [event.fields["queued"] for event in received] == [1, 2, 3]
