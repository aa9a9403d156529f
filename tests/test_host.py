"""Where an agent lives: its slots, its order, its cancellations and its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from raypool import host as host_module
from raypool.agent import Agent, AgentStart, SessionOptions, Turn
from raypool.backends import Backend, FunctionBackend, ScriptedBackend, Session
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.messages import Assignment
from raypool.response import Response
from raypool.task import Content
from tests.turns.hosting import Gated, new_host, outcomes, post, results, running_host
from tests.turns.parts import START

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def gated() -> Gated:
    return Gated()


def test_one_slot_runs_the_tasks_one_after_another_in_the_order_in_which_they_came() -> None:
    started: list[int] = []
    running = 0

    async def answer(prompt: Content, options: SessionOptions) -> str:
        nonlocal running
        assert running == 0
        running += 1
        started.append(int(str(prompt)))
        await asyncio.sleep(0)
        running -= 1
        return "42"

    with running_host(FunctionBackend(answer)) as host:
        envelopes = [
            post(host, *range(first, first + count))
            for first, count in [(0, 1), (1, 30), (31, 1), (32, 68)]
        ]
        texts = [outcomes(envelope) for envelope in envelopes]

    assert started == list(range(100))
    assert {number: text for one in texts for number, text in one.items()} == dict.fromkeys(
        range(100), "42"
    )


def test_as_many_turns_run_at_once_as_there_are_slots_and_no_more(gated: Gated) -> None:
    with running_host(gated.backend, slots=8) as host:
        envelope = post(host, *range(20))
        gated.wait_started(8)

        assert sorted(host.running) == list(range(8))
        assert host.queued == 12
        gated.let(3)
        gated.wait_started(9)
        assert gated.started == list(range(9))
        gated.let(*range(20))
        assert outcomes(envelope) == {number: str(number) for number in range(20)}


def test_queued_task_that_is_cancelled_never_starts(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2, 3)
        gated.wait_started(1)

        host.cancel([2])
        gated.let(1, 2, 3)

        assert outcomes(envelope) == {1: "1", 2: None, 3: "3"}
    assert gated.started == [1, 3]


def test_running_task_that_is_cancelled_is_interrupted_and_the_next_one_runs(
    gated: Gated,
) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)

        host.cancel([1])
        gated.let(2)

        assert outcomes(envelope) == {1: None, 2: "2"}
    assert gated.interrupted == [1]


def test_cancellation_may_come_before_its_task_and_is_for_that_attempt_alone(gated: Gated) -> None:
    gated.let(1, 2)
    with running_host(gated.backend) as host:
        host.cancel([1])

        assert outcomes(post(host, 1, 2)) == {1: None, 2: "2"}
        assert outcomes(post(host, 1)) == {1: "1"}
    assert gated.started == [2, 1]


def test_one_of_many_running_turns_is_interrupted_alone(gated: Gated) -> None:
    with running_host(gated.backend, slots=3) as host:
        envelope = post(host, 1, 2, 3)
        gated.wait_started(3)

        host.cancel([2])
        gated.let(1, 3)

        assert outcomes(envelope) == {1: "1", 2: None, 3: "3"}


def test_cancellation_says_which_tasks_will_never_start(gated: Gated) -> None:
    gated.let(1)
    with running_host(gated.backend) as host:
        outcomes(post(host, 1))
        envelope = post(host, 2, 3, 4)
        gated.wait_started(2)

        assert host.cancel([1, 2, 3, 9]) == [3, 9]
        gated.let(4)
        assert outcomes(envelope) == {2: None, 3: None, 4: "4"}


def test_cancellation_promises_nothing_while_the_loop_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def answer(prompt: Content, options: SessionOptions) -> str:
        if prompt == "1":
            entered.set()
            go_on.wait()
        else:
            await asyncio.Event().wait()
        return "42"

    monkeypatch.setattr(host_module, "CONTROL_SECONDS", 0.02)
    with running_host(FunctionBackend(answer)) as host:
        envelope = post(host, 1, 2)
        entered.wait()

        assert host.cancel([2]) == []
        go_on.set()
        assert outcomes(envelope) == {1: "42", 2: None}


def test_turn_after_one_that_was_cancelled_twice_knows_nothing_of_it() -> None:
    started = threading.Event()
    cancellations: list[int] = []

    async def answer(prompt: Content, options: SessionOptions) -> str:
        task = asyncio.current_task()
        assert task is not None
        cancellations.append(task.cancelling())
        if prompt == "1":
            started.set()
            await asyncio.Event().wait()
        return "42"

    with running_host(FunctionBackend(answer)) as host:
        envelope = post(host, 1, 2)
        started.wait()
        host.cancel([1])
        host.cancel([1])

        assert outcomes(envelope) == {1: None, 2: "42"}
    assert cancellations == [0, 0]


def test_turn_that_cancels_itself_leaves_its_slot_working() -> None:
    async def answer(prompt: Content, options: SessionOptions) -> str:
        if prompt == "1":
            raise asyncio.CancelledError
        return "42"

    with running_host(FunctionBackend(answer)) as host:
        assert outcomes(post(host, 1, 2)) == {1: None, 2: "42"}


class Stubborn(Backend):
    """A backend whose turns go on when they are interrupted, and answer."""

    def __init__(self) -> None:
        self.started = threading.Event()

    async def start(self, options: SessionOptions) -> Session:
        return StubbornSession(self.started)


class StubbornSession(Session):
    def __init__(self, started: threading.Event) -> None:
        self._started = started

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        self._started.set()
        if prompt == "1":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield TextEvent("all the same")
        yield ResultEvent()


def test_answer_of_a_cancelled_turn_that_ignores_its_interruption_is_not_kept() -> None:
    backend = Stubborn()
    with running_host(backend) as host:
        envelope = post(host, 1, 2)
        backend.started.wait()

        host.cancel([1])

        assert outcomes(envelope) == {1: None, 2: ""}


def test_host_stops_though_a_turn_ignores_its_interruption() -> None:
    backend = Stubborn()
    with running_host(backend) as host:
        envelope = post(host, 1, 2)
        backend.started.wait()

    assert outcomes(envelope) in ({}, {1: "all the same"})


def test_stop_interrupts_what_runs_and_starts_nothing_new(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        first, second = post(host, 1, 2), post(host, 3)
        gated.wait_started(1)

    assert (gated.started, gated.interrupted) == ([1], [1])
    assert outcomes(first) == {}
    assert outcomes(second) == {}


def test_stop_with_grace_lets_what_runs_finish(gated: Gated) -> None:
    host = new_host(gated.backend)
    host.start(START)
    envelope = post(host, 1, 2)
    gated.wait_started(1)

    with ThreadPoolExecutor(1) as aside:
        stopping = aside.submit(host.stop, grace=30.0)
        while host.queued:  # until the stop has dropped what had not started
            time.sleep(0.001)
        gated.let(1, 2)
        stopping.result()

    assert outcomes(envelope) == {1: "1"}
    assert (gated.started, gated.interrupted) == ([1], [])


def test_grace_has_an_end(gated: Gated) -> None:
    host = new_host(gated.backend)
    host.start(START)
    envelope = post(host, 1)
    gated.wait_started(1)

    host.stop(grace=0.02)

    assert gated.interrupted == [1]
    assert outcomes(envelope) == {}


def test_nothing_runs_after_a_stop() -> None:
    before = set(threading.enumerate())
    host = new_host(ScriptedBackend(lambda prompt: prompt), slots=4)
    host.start(START)
    outcomes(post(host, *range(20)))
    mine = set(threading.enumerate()) - before

    host.stop(grace=0.0)

    assert mine
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


def test_envelope_that_comes_after_a_stop_ends_at_once() -> None:
    with running_host(ScriptedBackend()) as host:
        pass

    assert outcomes(post(host, 1)) == {}


def test_second_stop_and_late_cancellations_do_nothing() -> None:
    with running_host(ScriptedBackend()) as host:
        pass

    host.stop(grace=1.0)

    assert host.cancel([1]) == []


def test_attempts_that_have_ended_are_counted(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2, 3)
        gated.wait_started(1)
        host.cancel([2])
        gated.let(1, 3)
        outcomes(envelope)

        host.wait_finished(3)

        assert (host.finished, host.queued, host.running) == (3, 0, [])


def test_waiting_ends_when_so_many_attempts_have_ended(gated: Gated) -> None:
    with running_host(gated.backend) as host, ThreadPoolExecutor(2) as aside:
        post(host, 1, 2)
        gated.wait_started(1)
        one, two = (aside.submit(host.wait_finished, count) for count in (1, 2))

        gated.let(1)
        one.result()
        gated.wait_started(2)
        assert not two.done()
        gated.let(2)
        two.result()


class Blocking(Agent):
    """Its callback blocks until it is let go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.entered.set()
        self.go_on.wait()


def test_host_answers_and_cancels_while_a_callback_blocks() -> None:
    agent = Blocking()
    with running_host(ScriptedBackend(), agent) as host:
        envelope = post(host, 1, 2)
        agent.entered.wait()

        assert (host.running, host.queued, host.finished) == ([1], 1, 0)
        host.cancel([2])
        agent.go_on.set()
        assert outcomes(envelope) == {1: "1", 2: None}


def test_turns_of_other_slots_go_on_while_a_callback_blocks(gated: Gated) -> None:
    agent = Blocking()
    with running_host(gated.backend, agent, slots=2) as host:
        envelope = post(host, 1, 2, 3)
        gated.let(1)
        agent.entered.wait()
        gated.wait_started(2)

        assert sorted(host.running) == [1, 2]
        gated.let(2, 3)
        agent.go_on.set()
        assert outcomes(envelope) == {1: "1", 2: "2", 3: "3"}


def test_blocking_script_leaves_the_other_slots_working() -> None:
    go_on = threading.Event()

    def reply(prompt: str) -> str:
        if prompt == "1":
            go_on.wait()
        return prompt

    with running_host(ScriptedBackend(reply), slots=2) as host:
        blocked, other = post(host, 1), post(host, 2)

        assert outcomes(other) == {2: "2"}
        go_on.set()
        assert outcomes(blocked) == {1: "1"}


def exits_in_init() -> tuple[Backend, Agent]:
    class Exiting(Agent):
        def init_agent(self, start: AgentStart) -> Any:
            raise SystemExit("no config")

    return ScriptedBackend(), Exiting()


def exits_in_async_init() -> tuple[Backend, Agent]:
    class Exiting(Agent):
        async def init_agent(self, start: AgentStart) -> Any:
            raise SystemExit("no config")

    return ScriptedBackend(), Exiting()


def exits_in_open() -> tuple[Backend, Agent]:
    class Exiting(ScriptedBackend):
        async def open(self) -> None:
            raise SystemExit("no config")

    return Exiting(), Agent()


@pytest.mark.parametrize("made", [exits_in_init, exits_in_async_init, exits_in_open])
def test_exit_during_the_start_is_the_cause_of_its_failure(made: Any) -> None:
    host = new_host(*made())

    with pytest.raises(RuntimeError, match=r"called sys\.exit\('no config'\)"):
        host.start(START)

    host.stop(grace=0.0)


def test_what_init_raises_is_raised_by_the_start() -> None:
    class Broken(Agent):
        async def init_agent(self, start: AgentStart) -> Any:
            raise LookupError("no such prompt file")

    host = new_host(ScriptedBackend(), Broken())

    with pytest.raises(LookupError, match="no such prompt file"):
        host.start(START)

    host.stop(grace=0.0)


@pytest.mark.parametrize("error", [OSError("no file"), SystemExit(3)], ids=["raises", "sys.exit"])
def test_host_stops_though_its_backend_cannot_be_closed(error: BaseException) -> None:
    class Stuck(ScriptedBackend):
        async def close(self) -> None:
            raise error

    with running_host(Stuck()) as host:
        assert outcomes(post(host, 1)) == {1: "1"}


def test_recall_gives_back_what_has_not_started_and_lets_the_rest_run(gated: Gated) -> None:
    gated.let(1)
    with running_host(gated.backend) as host:
        outcomes(post(host, 1))
        envelope = post(host, 2, 3, 4)
        gated.wait_started(2)

        assert host.recall([1, 2, 3, 4, 9]) == [3, 4, 9]
        gated.let(2, 5)
        ended = results(envelope)
        late = results(post(host, 9, 5))

    assert {number: outcome.is_returned for number, outcome in ended.items()} == {
        2: False,
        3: True,
        4: True,
    }
    assert ended[2].answer is not None
    assert (late[9].is_returned, late[9].halt) == (True, None)
    assert gated.started == [1, 2, 5]
    assert gated.interrupted == []


def test_recalled_task_may_come_again(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)
        host.recall([2])
        gated.let(1, 2)
        outcomes(envelope)

        assert outcomes(post(host, 2)) == {2: "2"}


# Waiting as the provider asks


class Refused(Exception):
    """A refusal, with what a client library's has of the answer."""

    status_code = 429

    def __init__(self, seconds: float) -> None:
        super().__init__("slow down")
        self.response = SimpleNamespace(headers={"retry-after": str(seconds)})


def test_nothing_starts_for_as_long_as_a_refusal_asks() -> None:
    times: list[float] = []

    async def answer(prompt: Content, options: SessionOptions) -> str:
        times.append(time.monotonic())
        if len(times) == 1:
            raise Refused(0.2)
        return "42"

    with running_host(FunctionBackend(answer)) as host:
        ended = results(post(host, 1, 2, 3))

    failure = ended[1].failure
    assert failure is not None
    assert (failure.verdict, failure.retry_after) == ("refused", 0.2)
    assert times[1] - times[0] >= 0.2
    assert ended[2].answer is not None
    assert ended[3].answer is not None


class Away(Backend):
    """Cannot be reached, and counts how often somebody tries."""

    tries = 0

    async def start(self, options: SessionOptions) -> Session:
        return Unreached(self)


class Unreached(Session):
    def __init__(self, backend: Away) -> None:
        self.backend = backend

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        self.backend.tries += 1
        yield ErrorEvent("unreachable", "ConnectError", "nobody is there")


def test_nothing_that_was_sent_ahead_looks_for_a_provider_that_cannot_be_reached() -> None:
    backend = Away()

    with running_host(backend) as host:
        envelope = post(host, *range(1, 50))
        host.call_back(49)
        ended = results(envelope)

    assert backend.tries <= 1
    assert sum(one.is_called_back for one in ended.values()) >= 48


def test_call_returns_what_has_not_started_and_what_is_on_its_way(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2, 3)
        gated.wait_started(1)

        host.call_back(4)
        late = results(post(host, 4))
        gated.let(1, 5)
        ended = results(envelope) | late
        after = outcomes(post(host, 5))

    assert {number: one.is_called_back for number, one in ended.items()} == {
        1: False,
        2: True,
        3: True,
        4: True,
    }
    assert all(ended[number].is_returned for number in (2, 3, 4))
    assert after == {5: "5"}
    assert gated.started == [1, 5]


def test_call_leaves_what_capacity_is_reserved_for(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1)
        reserved = host.post([Assignment(2, "task-2", "2", exchanges=1)])
        gated.wait_started(1)

        host.call_back(3)
        also_reserved = host.post([Assignment(3, "task-3", "3", exchanges=1)])
        gated.let(1, 2, 3)

        assert outcomes(envelope) == {1: "1"}
        assert outcomes(reserved) == {2: "2"}
        assert outcomes(also_reserved) == {3: "3"}


def test_call_reports_what_was_cancelled_as_cancelled(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)

        assert host.cancel([2]) == [2]
        host.call_back(2)
        gated.let(1)
        ended = results(envelope)

    assert not ended[2].is_returned


def test_task_that_was_called_back_may_come_again(gated: Gated) -> None:
    with running_host(gated.backend) as host:
        envelope = post(host, 1, 2)
        gated.wait_started(1)
        host.call_back(2)
        gated.let(1, 2)
        results(envelope)

        assert outcomes(post(host, 2)) == {2: "2"}
