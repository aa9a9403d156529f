"""The callbacks of an agent: when each runs, what it may return, and what comes of raising."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from raypool.agent import Agent, AgentStart, Halt, Prompt, SessionOptions, Skip, Turn
from raypool.chain_run import TurnRules
from raypool.errors import BackendError, Interrupted, TaskFailed, TurnTimeout
from raypool.events import ResultEvent, TextEvent
from raypool.messages import Notice, Outcome
from raypool.response import Response
from tests.turns.parts import (
    CUT,
    START,
    Steps,
    ask,
    engine,
    failure_of,
    new_engine,
    new_log,
    text_of,
    told,
)

pytestmark = pytest.mark.asyncio

HOOKS = [
    "init_agent",
    "pre_run",
    "pre_turn",
    "handle_stream_event",
    "handle_response",
    "handle_error",
    "handle_event",
    "post_turn",
    "post_run",
    "terminate_agent",
    "snapshot",
    "restore",
]


class Diary(Agent):
    """Notes each callback with what it was given; does what it is told to.

    Attributes:
        pages: the callbacks that ran, in order, each with its arguments.
        does: by the callback's name, what it returns, or raises if that is an exception.
    """

    def __init__(self, **does: Any) -> None:
        self.pages: list[tuple[Any, ...]] = []
        self.does = does

    @property
    def names(self) -> list[str]:
        return [page[0] for page in self.pages]

    def given(self, name: str) -> list[tuple[Any, ...]]:
        """What the callback of that name was given, each time."""
        return [page[1:] for page in self.pages if page[0] == name]

    def note(self, name: str, *args: Any) -> Any:
        self.pages.append((name, *args))
        does = self.does.get(name)
        if isinstance(does, list):
            does = does.pop(0) if does else None
        if isinstance(does, BaseException):
            raise does
        return does


class DefDiary(Diary):
    """Every callback is a `def`."""


class AsyncDiary(Diary):
    """Every callback is an `async def`."""


def _def(name: str) -> Any:
    def callback(self: Diary, *args: Any) -> Any:
        return self.note(name, *args)

    return callback


def _async(name: str) -> Any:
    async def callback(self: Diary, *args: Any) -> Any:
        await asyncio.sleep(0)
        return self.note(name, *args)

    return callback


for hook in HOOKS:
    setattr(DefDiary, hook, _def(hook))
    setattr(AsyncDiary, hook, _async(hook))

either = pytest.mark.parametrize("kind", [DefDiary, AsyncDiary], ids=["def", "async"])


async def test_every_callback_of_the_agent_is_among_those_tested() -> None:
    public = {
        name
        for name, value in vars(Agent).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }

    assert public == set(HOOKS)


@either
async def test_callbacks_run_in_the_documented_order(kind: type[Diary]) -> None:
    agent = kind()
    one = new_engine(Steps([TextEvent("4"), TextEvent("2"), ResultEvent()]), agent)

    await one.begin(START, snapshot="[1]")
    await one.run(ask())
    await one.end("enough")

    assert agent.names == [
        "init_agent",
        "restore",
        "pre_run",
        "snapshot",
        "pre_turn",
        "handle_stream_event",
        "handle_stream_event",
        "handle_stream_event",
        "handle_response",
        "post_turn",
        "snapshot",
        "terminate_agent",
    ]
    assert agent.given("init_agent") == [(START,)]
    assert agent.given("restore") == [([1],)]
    assert agent.given("terminate_agent") == [("enough",)]


@either
async def test_callbacks_of_a_failed_turn_run_in_the_documented_order(kind: type[Diary]) -> None:
    agent = kind()

    async with engine(Steps(CUT), agent, TurnRules(max_attempts=1)) as one:
        await one.run(ask())

    order = ["pre_turn", "handle_stream_event", "handle_error", "post_turn", "snapshot"]
    assert agent.names[3:-1] == order
    [(turn, error)] = agent.given("handle_error")
    assert (turn.number, turn.attempt, turn.task.id) == (1, 1, "task-1")
    assert type(error) is BackendError
    assert error.cause.message == "cut"
    assert agent.given("post_turn") == [(turn, error)]


@either
async def test_callbacks_of_a_halt_run_in_the_documented_order(kind: type[Diary]) -> None:
    agent = kind(handle_response=Halt("review"))

    async with engine(agent=agent) as one:
        outcome = await one.run(ask())

    assert agent.names[6:-1] == ["handle_response", "post_turn", "post_run", "snapshot"]
    assert outcome.halt == "review"


async def test_post_turn_sees_the_response_that_handle_response_saw() -> None:
    agent = DefDiary()

    async with engine(agent=agent) as one:
        await one.run(ask(session="user-42"))

    [(turn, response)] = agent.given("post_turn")
    assert agent.given("handle_response") == [(turn, response)]
    assert (response.text, turn.task.session, turn.session_id) == ("why?", "user-42", "user-42")


async def test_pre_turn_sees_the_prompt_and_may_leave_it_as_it_is() -> None:
    agent = DefDiary()

    async with engine(agent=agent) as one:
        assert text_of(await one.run(ask(prompt="why not?"))) == "why not?"

    [(_, prompt)] = agent.given("pre_turn")
    assert prompt == "why not?"


@either
@pytest.mark.parametrize(
    "rewritten", ["why at all?", [{"role": "user", "content": "why at all?"}]], ids=["text", "list"]
)
async def test_pre_turn_may_rewrite_the_prompt(kind: type[Diary], rewritten: Any) -> None:
    backend = Steps("because")

    async with engine(backend, kind(pre_turn=[rewritten])) as one:
        assert text_of(await one.run(ask())) == "because"

    assert backend.asked == [rewritten]


@either
async def test_skipped_task_is_cancelled_with_the_reason_and_nothing_is_asked(
    kind: type[Diary],
) -> None:
    backend, agent = Steps(), kind(pre_turn=Skip("asked before"))

    async with engine(backend, agent) as one:
        outcome = await one.run(ask())

    assert outcome == Outcome(1, skipped="asked before", snapshot="null")
    assert backend.asked == []
    assert agent.names[3:-1] == ["pre_turn", "snapshot"]
    assert backend.open_sessions == 0


@either
async def test_halt_before_a_turn_hands_the_task_back_unasked(kind: type[Diary]) -> None:
    backend, agent = Steps(), kind(pre_turn=Halt("not now"))

    async with engine(backend, agent) as one:
        outcome = await one.run(ask())

    assert outcome == Outcome(1, is_returned=True, halt="not now", snapshot="null")
    assert agent.names[3:-1] == ["pre_turn", "post_run", "snapshot"]


@either
@pytest.mark.parametrize("hook", ["init_agent", "restore", "pre_run"])
async def test_what_a_callback_of_the_start_raises_fails_it(kind: type[Diary], hook: str) -> None:
    one = new_engine(agent=kind(**{hook: LookupError("no such file")}))

    with pytest.raises(LookupError, match="no such file"):
        await one.begin(START, snapshot="1")

    await one.end()


@either
async def test_pre_turn_that_raises_fails_its_turn_for_good(kind: type[Diary]) -> None:
    backend, agent = Steps(), kind(pre_turn=LookupError("no template"))

    async with engine(backend, agent) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.kind, failure.type, failure.verdict) == ("TaskFailed", "LookupError", "invalid")
    assert "pre_turn" in agent.names
    [(_, error)] = agent.given("handle_error")
    assert isinstance(error.cause.exception, LookupError)
    assert backend.asked == []


@either
async def test_handle_response_that_raises_fails_its_task_and_is_asked_nothing_more(
    kind: type[Diary],
) -> None:
    agent = kind(handle_response=ValueError("not a number"))

    async with engine(agent=agent) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.kind, failure.type, failure.verdict) == ("TaskFailed", "ValueError", "invalid")
    assert agent.given("handle_error") == []
    [(_, error)] = agent.given("post_turn")
    assert type(error) is TaskFailed


class Panic(BaseException):
    """What an extension in another language raises."""


@either
@pytest.mark.parametrize("hook", ["pre_turn", "handle_response"])
@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (KeyboardInterrupt(), ("KeyboardInterrupt", "KeyboardInterrupt, without a message")),
        (SystemExit(3), ("SystemExit", "3")),
        (Panic("no memory"), ("RuntimeError", "Panic: no memory")),
    ],
    ids=["KeyboardInterrupt", "SystemExit", "Panic"],
)
async def test_callback_that_raises_what_is_no_exception_fails_its_task_alone(
    kind: type[Diary], hook: str, raised: BaseException, told: tuple[str, str]
) -> None:
    async with engine(agent=kind(**{hook: raised})) as one:
        failure = failure_of(await one.run(ask()))
        again = failure_of(await one.run(ask(2)))

    assert (failure.type, failure.message) == told
    assert again.type == failure.type


@either
@pytest.mark.parametrize("hook", ["handle_stream_event", "post_turn"])
async def test_other_callback_that_raises_is_logged_and_changes_nothing(
    kind: type[Diary], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(agent=kind(**{hook: ValueError("no")})) as one:
        assert text_of(await one.run(ask())) == "why?"

    assert f"{hook} of worker 'crew-1' raised; it changes nothing" in caplog.messages
    assert caplog.records[0].exc_info is not None


@either
async def test_handle_error_that_raises_leaves_the_first_error(
    kind: type[Diary], caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(Steps(CUT), kind(handle_error=ValueError("no")), FIRST) as one:
        failure = failure_of(await one.run(ask()))

    assert failure.type == "ConnectionError"
    assert caplog.messages == ["handle_error of worker 'crew-1' raised; it changes nothing"]


FIRST = TurnRules(max_attempts=1)


@either
async def test_handle_event_that_raises_is_dealt_with(
    kind: type[Diary], caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(agent=kind(handle_event=ValueError("no"))) as one:
        assert await one.hear(Notice(5, "news")) == Outcome(5, snapshot="null")

    assert caplog.messages == ["handle_event of worker 'crew-1' raised; it changes nothing"]


@either
@pytest.mark.parametrize("hook", ["post_run", "terminate_agent"])
async def test_callback_of_the_end_that_raises_is_logged(
    kind: type[Diary], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = kind(**{hook: ValueError("no"), "handle_response": Halt("enough")})

    async with engine(agent=agent) as one:
        assert text_of(await one.run(ask())) == "why?"

    assert caplog.messages == [f"{hook} of worker 'crew-1' raised; it changes nothing"]


@either
@pytest.mark.parametrize(
    ("hook", "returned", "message"),
    [
        (
            "pre_turn",
            42,
            "pre_turn must return None (as it is), a prompt, Skip(reason) or Halt(reason), got 42",
        ),
        ("pre_turn", " ", "the prompt is empty"),
        (
            "handle_response",
            42,
            "handle_response must return None (idle), Prompt(text) or Halt(reason), got 42",
        ),
        ("handle_response", Prompt(""), "the prompt is empty"),
        (
            "handle_response",
            Prompt(42),  # type: ignore[arg-type]
            "a prompt must be a text or a list of messages, got int",
        ),
        (
            "handle_response",
            Halt(42),  # type: ignore[arg-type]
            "Halt(reason) takes a text, got 42",
        ),
        (
            "pre_turn",
            Skip(None),  # type: ignore[arg-type]
            "Skip(reason) takes a text, got NoneType",
        ),
        (
            "handle_response",
            Skip("late"),
            "handle_response must return None (idle), Prompt(text) or Halt(reason), got Skip",
        ),
    ],
)
async def test_wrong_decision_fails_the_task_and_says_what_to_return(
    kind: type[Diary], hook: str, returned: Any, message: str
) -> None:
    async with engine(agent=kind(**{hook: returned})) as one:
        failure = failure_of(await one.run(ask()))

    assert failure.message == message
    assert failure.verdict == "invalid"


@either
@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (
            "handle_error",
            "handle_error must return None (idle), Prompt(text) or Halt(reason), got 42",
        ),
        ("post_turn", "post_turn must return nothing, got 42"),
        ("handle_stream_event", "handle_stream_event must return nothing, got 42"),
        ("terminate_agent", "terminate_agent must return nothing, got 42"),
    ],
)
async def test_other_wrong_return_is_logged_with_what_to_return(
    kind: type[Diary], hook: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(Steps(CUT), kind(**{hook: 42}), FIRST) as one:
        assert failure_of(await one.run(ask())).type == "ConnectionError"

    assert errors_in(caplog) == [message]


@either
async def test_wrong_return_of_handle_event_is_logged_with_what_to_return(
    kind: type[Diary], caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(agent=kind(handle_event=42)) as one:
        await one.hear(Notice(5, "news"))

    assert errors_in(caplog) == [
        "handle_event must return None (idle), Prompt(text) or Halt(reason), got 42"
    ]


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


@either
@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("init_agent", "init_agent must return SessionOptions or None, got int"),
        ("pre_run", "pre_run must return nothing, got 42"),
        ("restore", "restore must return nothing, got 42"),
    ],
)
async def test_wrong_return_of_a_callback_of_the_start_fails_it(
    kind: type[Diary], hook: str, message: str
) -> None:
    one = new_engine(agent=kind(**{hook: 42}))

    with pytest.raises(TypeError, match=message):
        await one.begin(START, snapshot="1")

    await one.end()


@either
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system": 42}, "SessionOptions: system must be a text or None, got int"),
        ({"model": b"m"}, "SessionOptions: model must be a text or None, got bytes"),
        (
            {"max_tokens": "150"},
            "SessionOptions: max_tokens must be a whole number of at least 1, got str",
        ),
        (
            {"max_tokens": 0},
            "SessionOptions: max_tokens must be a whole number of at least 1, got 0",
        ),
        (
            {"parse_attempts": 0},
            "SessionOptions: parse_attempts must be a whole number of at least 1, got 0",
        ),
    ],
)
async def test_options_that_are_none_fail_the_start_and_say_what_they_must_be(
    kind: type[Diary], options: dict[str, Any], message: str
) -> None:
    one = new_engine(agent=kind(init_agent=SessionOptions(**options)))

    with pytest.raises((TypeError, ValueError), match=message):
        await one.begin(START)

    await one.end()


async def test_agent_knows_its_worker_before_its_first_callback() -> None:
    class Curious(Agent):
        def init_agent(self, start: AgentStart) -> SessionOptions:
            return SessionOptions(system=f"You work as {self.worker}.")

    backend = Steps("42")
    async with engine(backend, Curious()) as one:
        await one.run(ask())

    assert backend.options[0].system == "You work as crew-1."


async def test_exception_that_cannot_be_unpickled_reaches_handle_error_as_it_was() -> None:
    class Picky(Exception):
        def __init__(self, code: int, reason: str) -> None:
            super().__init__(f"{code}: {reason}")

    picky = Picky(7, "no line")
    agent = DefDiary()

    async with engine(Steps(picky), agent, FIRST) as one:
        failure = failure_of(await one.run(ask()))

    [(_, error)] = agent.given("handle_error")
    assert error.cause.exception is picky
    assert failure.message == "7: no line"


async def test_stream_events_come_one_by_one_while_the_turn_runs() -> None:
    go_on = asyncio.Event()

    class Waiting(AsyncDiary):
        async def handle_stream_event(self, turn: Turn, event: Any) -> None:
            self.pages.append(("handle_stream_event", event))
            if event == TextEvent("so "):
                await go_on.wait()

    agent = Waiting()
    backend = Steps([TextEvent("so "), TextEvent("far"), ResultEvent()])
    async with engine(backend, agent) as one:
        turn = asyncio.create_task(one.run(ask()))
        await asyncio.wait({turn}, timeout=0.02)
        first = agent.given("handle_stream_event")
        go_on.set()
        await turn

    assert first == [(TextEvent("so "),)]
    assert [event for (event,) in agent.given("handle_stream_event")] == [
        TextEvent("so "),
        TextEvent("far"),
        ResultEvent(),
    ]


async def test_error_of_a_turn_that_ran_out_of_time_is_a_turn_timeout() -> None:
    agent = DefDiary()

    async with engine(Steps(asyncio.Event().wait), agent) as one:
        await one.run(ask(timeout=0.01))

    [(_, error)] = agent.given("handle_error")
    assert type(error) is TurnTimeout


async def test_error_of_a_turn_that_was_interrupted_is_an_interrupted() -> None:
    agent = AsyncDiary()

    async with engine(Steps(asyncio.Event().wait), agent) as one:
        turn = asyncio.create_task(one.run(ask()))
        await asyncio.wait({turn}, timeout=0.01)
        assert one.limits.interrupt() == 1
        failure = failure_of(await turn)

    [(_, error)] = agent.given("handle_error")
    assert type(error) is Interrupted
    assert (failure.kind, failure.verdict) == ("Interrupted", "invalid")


async def test_turns_are_told_of_as_they_begin_and_end() -> None:
    log = new_log()

    async with engine(Steps(CUT, "42"), log=log) as one:
        await one.run(ask())
        await one.run(ask(attempt=2))

    events = told(log)
    assert [event.name for event in events] == [
        "prompt.start",
        "prompt.error",
        "prompt.start",
        "prompt.stop",
    ]
    assert {event.task for event in events} == {"task-1"}
    assert events[1].fields["verdict"] == "transient"
    assert events[3].fields["input_tokens"] == 1
    assert events[3].fields["attempt"] == 2


@either
async def test_callback_that_does_not_end_is_cut_off_and_changes_nothing(
    kind: type[Diary], caplog: pytest.LogCaptureFixture
) -> None:
    class Endless(kind):  # type: ignore[misc, valid-type]
        async def post_turn(self, turn: Turn, outcome: Response | TaskFailed) -> None:
            await asyncio.Event().wait()

        async def post_run(self) -> None:
            await asyncio.Event().wait()

        async def snapshot(self) -> Any:
            if len(self.pages) > 3:
                await asyncio.Event().wait()
            return None

    rules = TurnRules(turn_timeout=0.02)
    async with engine(agent=Endless(handle_response=Halt("enough")), rules=rules) as one:
        assert text_of(await one.run(ask(timeout=10.0))) == "why?"

    assert caplog.messages == [
        "handle_error or post_turn of worker 'crew-1' did not end within 0.02 s",
        "post_run of worker 'crew-1' did not end within 0.02 s",
        "worker 'crew-1' keeps its older snapshot: the new one failed",
    ]
