"""The turn engine: conversations, time-outs, and whatever a user's agent or backend may do."""

from __future__ import annotations

import asyncio
import pickle
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from raypool import conversations
from raypool.agent import Agent, AgentStart, RoleAgent, SessionOptions, Turn, TurnTask
from raypool.backends import FunctionBackend, ScriptedBackend, Session
from raypool.chain_run import TurnRules
from raypool.clock import FakeClock
from raypool.conversations import Memory
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, ToolUseEvent, UsageEvent
from raypool.messages import decode_outcomes, encode
from raypool.response import Response
from raypool.task import Content
from raypool.usage import Usage
from tests.turns.parts import Told, ToldSession, ask, engine, failure_of, text_of

pytestmark = pytest.mark.asyncio


async def test_answer_has_all_that_the_turn_gave() -> None:
    clock = FakeClock()

    async def answer(prompt: Content, options: SessionOptions) -> Response:
        clock.advance(1.5)
        return Response(
            text="42", usage=Usage(3, 1), model="m", stop_reason="max_tokens", cost_usd=0.25
        )

    async with engine(FunctionBackend(answer), clock=clock) as one:
        outcome = await one.run(ask(7))

    assert outcome.number == 7
    assert outcome.failure is None
    assert outcome.answer is not None
    assert outcome.answer.text == "42"
    assert outcome.usage == Usage(3, 1)
    assert outcome.answer.duration_ms == 1500.0
    assert (outcome.answer.model, outcome.answer.stop_reason) == ("m", "max_tokens")
    assert outcome.cost_usd == 0.25
    assert outcome.answer.session_id


async def test_each_task_has_a_conversation_of_its_own() -> None:
    prompts: list[Content] = []

    async def answer(prompt: Content, options: SessionOptions) -> str:
        prompts.append(prompt)
        return "yes"

    async with engine(FunctionBackend(answer)) as one:
        first, second = await one.run(ask(1, "a?")), await one.run(ask(2, "b?"))

    assert prompts == ["a?", "b?"]
    assert first.answer is not None
    assert second.answer is not None
    assert first.answer.session_id != second.answer.session_id


async def test_conversation_of_a_task_is_closed_after_it() -> None:
    backend = Told()
    async with engine(backend) as one:
        await one.run(ask(1, "a?"))
        await one.run(ask(2, "b?"))

    assert backend.log == [
        "open backend",
        SessionOptions(),
        "a?",
        "close session",
        SessionOptions(),
        "b?",
        "close session",
        "close backend",
    ]


async def test_worker_with_memory_has_one_conversation_for_its_whole_life() -> None:
    backend = Told()
    async with engine(backend, rules=TurnRules(memory="worker")) as one:
        first, second = await one.run(ask(1, "a?")), await one.run(ask(2, "b?"))

    assert backend.log == [
        "open backend",
        SessionOptions(),
        "a?",
        "b?",
        "close session",
        "close backend",
    ]
    assert first.answer is not None
    assert second.answer is not None
    assert first.answer.session_id == second.answer.session_id


async def test_worker_with_memory_remembers_what_was_said() -> None:
    prompts: list[Content] = []

    async def answer(prompt: Content, options: SessionOptions) -> str:
        prompts.append(prompt)
        return "yes"

    async with engine(FunctionBackend(answer), rules=TurnRules(memory="worker")) as one:
        await one.run(ask(1, "a?"))
        await one.run(ask(2, "b?"))

    assert prompts[1] == [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "b?"},
    ]


async def test_session_that_has_an_id_gives_it_to_its_answers() -> None:
    class Named(Told):
        async def start(self, options: SessionOptions) -> Session:
            session = await super().start(options)
            session.id = "conversation 7"
            return session

    async with engine(Named()) as one:
        outcome = await one.run(ask())

    assert outcome.answer is not None
    assert outcome.answer.session_id == "conversation 7"


async def test_agent_decides_how_its_conversations_are_held() -> None:
    backend = Told()

    async with engine(backend, RoleAgent()) as one:
        await one.run(ask())

    options = backend.log[1]
    assert options.system.startswith("You are a chemist.")
    assert options.max_tokens == 7


async def test_agent_whose_init_returns_something_else_does_not_start() -> None:
    class Confused(Agent):
        def init_agent(self, start: AgentStart) -> Any:
            return {"system": "be brief"}

    with pytest.raises(TypeError, match="init_agent must return SessionOptions or None, got dict"):
        async with engine(agent=Confused()):
            pass


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async"])
async def test_what_init_raises_is_the_cause_of_a_failed_start(is_async: bool) -> None:
    class Broken(Agent):
        def init_agent(self, start: AgentStart) -> Any:
            raise LookupError("no such prompt file")

    class BrokenLater(Agent):
        async def init_agent(self, start: AgentStart) -> Any:
            raise LookupError("no such prompt file")

    with pytest.raises(LookupError, match="no such prompt file"):
        async with engine(agent=BrokenLater() if is_async else Broken()):
            pass


async def test_what_open_raises_is_the_cause_of_a_failed_start() -> None:
    class Closed(Told):
        async def open(self) -> None:
            raise ConnectionError("nobody listens")

    with pytest.raises(ConnectionError, match="nobody listens"):
        async with engine(Closed()):
            pass


class Duck:
    """A backend of plain `def`s, with nothing but what a turn needs, derived from nothing."""

    def start(self, options: SessionOptions) -> Duck:
        return self

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        yield TextEvent("quack")
        yield ResultEvent()

    def close(self) -> None:
        pass


async def test_backend_may_write_def_and_leave_out_what_it_does_not_need() -> None:
    async with engine(Duck()) as one:
        assert text_of(await one.run(ask())) == "quack"


async def test_prompt_may_be_a_coroutine_that_returns_the_events() -> None:
    class Deferred(Duck):
        async def prompt(self, prompt: Content) -> Any:  # type: ignore[override]
            return super().prompt(prompt)

    async with engine(Deferred()) as one:
        assert text_of(await one.run(ask())) == "quack"


async def test_prompt_may_return_any_async_iterator() -> None:
    class Answer:
        def __init__(self) -> None:
            self._events: Iterator[Event] = iter((TextEvent("quack"), ResultEvent()))

        def __aiter__(self) -> Answer:
            return self

        async def __anext__(self) -> Event:
            return next(self._events)

    class Iterated(Duck):
        def prompt(self, prompt: Content) -> Any:
            return Answer()

    async with engine(Iterated()) as one:
        assert text_of(await one.run(ask())) == "quack"


async def test_pieces_of_text_are_one_answer() -> None:
    async with engine(
        Told(TextEvent("for"), TextEvent("ty-"), TextEvent("two"), ResultEvent())
    ) as one:
        assert text_of(await one.run(ask())) == "forty-two"


async def test_last_usage_event_counts_when_the_result_has_none() -> None:
    backend = Told(UsageEvent(Usage(3, 0)), UsageEvent(Usage(3, 9)), ResultEvent())
    async with engine(backend) as one:
        outcome = await one.run(ask())

    assert outcome.answer is not None
    assert outcome.usage == Usage(3, 9)


async def test_events_of_more_than_text_and_a_result_come_with_the_answer() -> None:
    tool = ToolUseEvent("call-1", "search", {"query": "42"})
    backend = Told(TextEvent("let "), TextEvent("me see"), tool, TextEvent("42"), ResultEvent())
    async with engine(backend) as one:
        outcome = await one.run(ask())

    assert outcome.answer is not None
    assert outcome.answer.events == [
        TextEvent("let me see"),
        tool,
        TextEvent("42"),
        ResultEvent(),
    ]


async def test_error_event_is_the_failure_it_says() -> None:
    error = ErrorEvent("refused", "rate_limit_error", "slow down", retry_after=3.0)
    async with engine(Told(TextEvent("so f"), error)) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.kind, failure.verdict) == ("BackendError", "refused")
    assert (failure.type, failure.message) == ("rate_limit_error", "slow down")
    assert failure.retry_after == 3.0


async def test_nothing_is_read_after_the_end_of_a_turn() -> None:
    async with engine(Told(TextEvent("42"), ResultEvent(), TextEvent("!"), ResultEvent())) as one:
        assert text_of(await one.run(ask())) == "42"


class StatusError(Exception):
    status_code = 400


class MuteError(Exception):
    """An exception of a careless library."""

    def __str__(self) -> str:
        raise RuntimeError("there is no message")


def coroutine_instead(session: Session, prompt: Content) -> Any:
    async def answer() -> str:
        return "42"

    return answer()


def raising(error: BaseException) -> Callable[[Session, Content], Any]:
    async def prompt(session: Session, prompt: Content) -> AsyncIterator[Event]:
        yield TextEvent("so f")
        raise error

    return prompt


def raising_at_once(session: Session, prompt: Content) -> Any:
    raise OSError("no file")


def yielding(*events: Any) -> Callable[[Session, Content], Any]:
    async def prompt(session: Session, prompt: Content) -> AsyncIterator[Any]:
        for event in events:
            yield event

    return prompt


@pytest.mark.parametrize(
    ("prompt", "error_type", "verdict"),
    [
        (yielding(), "BrokenContract", "invalid"),
        (yielding(TextEvent("42")), "BrokenContract", "invalid"),
        (yielding("42", ResultEvent()), "BrokenContract", "invalid"),
        (yielding(None, ResultEvent()), "BrokenContract", "invalid"),
        (yielding({"type": "text", "text": "42"}, ResultEvent()), "BrokenContract", "invalid"),
        (yielding(TextEvent(b"42"), ResultEvent()), "TypeError", "transient"),  # type: ignore[arg-type]
        (yielding(ResultEvent(model=object())), "BrokenContract", "invalid"),  # type: ignore[arg-type]
        (yielding(ResultEvent(usage=7)), "BrokenContract", "invalid"),  # type: ignore[arg-type]
        (
            yielding(ToolUseEvent("a", "b", {"c": 2**70}), ResultEvent()),
            "BrokenContract",
            "invalid",
        ),
        (yielding(ErrorEvent("maybe", "E", "m")), "BrokenContract", "invalid"),  # type: ignore[arg-type]
        (coroutine_instead, "TypeError", "transient"),
        (raising_at_once, "OSError", "transient"),
        (raising(ConnectionError("cut")), "ConnectionError", "transient"),
        (raising(StatusError("bad request")), "StatusError", "invalid"),
        (raising(TimeoutError("slow")), "TimeoutError", "transient"),
        (raising(StopIteration()), "RuntimeError", "transient"),
        (raising(StopAsyncIteration()), "RuntimeError", "transient"),
        (raising(SystemExit(3)), "SystemExit", "transient"),
        (raising(asyncio.CancelledError()), "CancelledError", "transient"),
        (raising(MuteError()), "MuteError", "transient"),
    ],
    ids=[
        "nothing",
        "no end",
        "texts",
        "none",
        "dicts",
        "bytes",
        "object",
        "wrong usage",
        "large integer",
        "unknown verdict",
        "coroutine",
        "raises at once",
        "raises",
        "raises a status",
        "raises a time-out",
        "StopIteration",
        "StopAsyncIteration",
        "sys.exit",
        "cancels itself",
        "mute exception",
    ],
)
async def test_backend_that_breaks_its_promise_fails_the_turn_and_no_more(
    prompt: Callable[[Session, Content], Any], error_type: str, verdict: str
) -> None:
    class Broken(Told):
        async def start(self, options: SessionOptions) -> Session:
            session = ToldSession(self)
            session.prompt = types.MethodType(prompt, session)  # type: ignore[method-assign]
            return session

    backend = Broken()
    async with engine(backend) as one:
        outcome = await one.run(ask())

    failure = failure_of(outcome)
    assert (failure.kind, failure.type, failure.verdict) == ("BackendError", error_type, verdict)
    assert decode_outcomes(encode([outcome])) == [outcome]
    assert backend.log.count("close session") == 1


@pytest.mark.parametrize("error", [OSError("no file"), SystemExit(3)], ids=["raises", "sys.exit"])
async def test_session_that_cannot_be_opened_fails_the_turn(error: BaseException) -> None:
    class Shut(Told):
        async def start(self, options: SessionOptions) -> Session:
            raise error

    async with engine(Shut()) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.type, failure.verdict) == (type(error).__name__, "transient")


@pytest.mark.parametrize("error", [OSError("no file"), SystemExit(3)], ids=["raises", "sys.exit"])
async def test_session_that_cannot_be_closed_has_answered_all_the_same(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Sticky(ToldSession):
        async def close(self) -> None:
            raise error

    class Stuck(Told):
        async def start(self, options: SessionOptions) -> Session:
            return Sticky(self)

    async with engine(Stuck()) as one:
        assert text_of(await one.run(ask())) == "42"

    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


async def test_session_that_takes_for_ever_to_close_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Endless(ToldSession):
        async def close(self) -> None:
            await asyncio.Event().wait()

    class Slow(Told):
        async def start(self, options: SessionOptions) -> Session:
            return Endless(self)

    monkeypatch.setattr(conversations, "CLOSE_SECONDS", 0.02)
    async with engine(Slow()) as one:
        assert text_of(await one.run(ask())) == "42"

    assert caplog.messages == ["Endless could not be closed"]


@pytest.mark.parametrize("memory", ["task", "worker"])
async def test_end_closes_all_that_can_be_closed(memory: Memory) -> None:
    class Stuck(Told):
        async def close(self) -> None:
            raise OSError("no file")

    before = set(threading.enumerate())
    async with engine(Stuck(), RoleAgent(), rules=TurnRules(memory=memory)) as one:
        await one.run(ask())
        mine = set(threading.enumerate()) - before

    assert mine
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


async def test_surrogates_in_an_answer_are_joined_or_replaced() -> None:
    backend = Told(TextEvent("a \ud83d"), TextEvent("\ude00 b \ud800 c"), ResultEvent())

    async with engine(backend) as one:
        outcome = await one.run(ask())

    assert text_of(outcome) == "a \N{GRINNING FACE} b \ufffd c"
    assert decode_outcomes(encode([outcome])) == [outcome]


async def test_surrogates_in_an_error_are_replaced() -> None:
    async with engine(ScriptedBackend(lambda prompt: OSError("no file \udcff"))) as one:
        outcome = await one.run(ask())

    failure = failure_of(outcome)
    assert failure.message == "no file \ufffd"
    assert decode_outcomes(encode([outcome])) == [outcome]


async def test_exception_travels_where_it_pickles() -> None:
    class Local(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("cannot pickle")

    replies: dict[str, str | Exception] = {"a?": ConnectionError("cut"), "b?": Local("here")}
    async with engine(ScriptedBackend(replies)) as one:
        sent = failure_of(await one.run(ask(1, "a?")))
        kept = failure_of(await one.run(ask(2, "b?")))

    assert sent.exception is not None
    assert pickle.loads(sent.exception).args == ("cut",)
    assert kept.exception is None
    assert (kept.type, kept.message) == ("Local", "here")


async def test_turn_that_runs_into_its_timeout_fails_for_good() -> None:
    async with engine(ScriptedBackend(latency=60.0), rules=TurnRules(turn_timeout=0.02)) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.kind, failure.verdict) == ("TurnTimeout", "invalid")
    assert "did not finish within 0.02 s" in failure.message
    assert "turn_timeout=… on the pool or timeout=… on the task" in failure.message


async def test_timeout_of_a_task_replaces_the_pools() -> None:
    backend = ScriptedBackend(latency=0.05)
    async with engine(backend, rules=TurnRules(turn_timeout=0.02)) as patient:
        assert text_of(await patient.run(ask(timeout=10.0))) == "why?"
    async with engine(backend, rules=TurnRules(turn_timeout=10.0)) as hasty:
        failure = failure_of(await hasty.run(ask(timeout=0.01)))

    assert "within 0.01 s" in failure.message


async def test_interrupted_turns_conversation_is_closed_and_the_next_turn_works() -> None:
    class Slow(ToldSession):
        async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
            if prompt == "stuck?":
                await asyncio.Event().wait()
            yield TextEvent("42")
            yield ResultEvent()

    class Stuck(Told):
        async def start(self, options: SessionOptions) -> Session:
            return Slow(self)

    backend = Stuck()
    async with engine(backend, rules=TurnRules(turn_timeout=0.02)) as one:
        failure_of(await one.run(ask(1, "stuck?")))
        closed = backend.log.count("close session")
        outcome = await one.run(ask(2))

    assert closed == 1
    assert text_of(outcome) == "42"


async def test_timeout_counts_though_the_backend_turns_it_into_an_error_of_its_own() -> None:
    async def answer(prompt: Content, options: SessionOptions) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise ConnectionError("aborted") from error
        return "42"

    class Rude(Duck):
        async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
            yield TextEvent(await answer(prompt, SessionOptions()))

    async with engine(Rude(), rules=TurnRules(turn_timeout=0.02)) as one:
        failure = failure_of(await one.run(ask()))

    assert failure.kind == "TurnTimeout"


async def test_timeout_counts_though_the_backend_answers_all_the_same() -> None:
    class Rude(Duck):
        async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            yield TextEvent("42")
            yield ResultEvent()

    async with engine(Rude(), rules=TurnRules(turn_timeout=0.02)) as one:
        failure = failure_of(await one.run(ask()))

    assert failure.kind == "TurnTimeout"


async def test_time_out_error_of_a_provider_is_not_the_turns_timeout() -> None:
    async with engine(ScriptedBackend(lambda prompt: TimeoutError("read"))) as one:
        failure = failure_of(await one.run(ask()))

    assert (failure.kind, failure.verdict) == ("BackendError", "transient")


async def test_cancelled_turn_raises_that_and_leaves_the_engine_usable() -> None:
    entered = asyncio.Event()

    async def answer(prompt: Content, options: SessionOptions) -> str:
        if prompt == "stuck?":
            entered.set()
            await asyncio.Event().wait()
        return "42"

    async with engine(FunctionBackend(answer)) as one:
        turn = asyncio.create_task(one.run(ask(1, "stuck?")))
        await entered.wait()
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

        assert text_of(await one.run(ask(2))) == "42"


class Keeper(Agent):
    """Keeps what it is told of each response."""

    def __init__(self) -> None:
        self.told: list[tuple[Turn, Response]] = []

    def handle_response(self, turn: Turn, response: Response) -> None:
        self.told.append((turn, response))


async def test_agent_is_told_of_each_response_before_its_task_ends() -> None:
    agent = Keeper()

    async with engine(agent=agent) as one:
        outcome = await one.run(ask(3, attempt=2, role="chemist", metadata={"row": 1}))

    [(turn, response)] = agent.told
    assert outcome.answer is not None
    assert turn == Turn(
        task=TurnTask(id="task-3", role="chemist", metadata={"row": 1}),
        number=1,
        attempt=2,
        session_id=outcome.answer.session_id,
        prompt="why?",
    )
    assert response.text == "why?"
    assert response.events == (
        TextEvent("why?"),
        ResultEvent(model="scripted", usage=Usage(1, 1), cost_usd=0.0),
    )


async def test_agent_is_not_told_of_a_turn_that_failed() -> None:
    agent = Keeper()

    async with engine(ScriptedBackend({}), agent) as one:
        failure_of(await one.run(ask()))

    assert agent.told == []


def sync_raising(error: BaseException) -> Agent:
    class Raising(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            raise error

    return Raising()


def async_raising(error: BaseException) -> Agent:
    class Raising(Agent):
        async def handle_response(self, turn: Turn, response: Response) -> None:
            raise error

    return Raising()


@pytest.mark.parametrize("agent_of", [sync_raising, async_raising], ids=["def", "async"])
@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (ValueError("not a number"), "ValueError"),
        (SystemExit(3), "SystemExit"),
        (StopIteration(), "RuntimeError"),
        (asyncio.CancelledError(), "CancelledError"),
        (MuteError(), "MuteError"),
    ],
    ids=["error", "sys.exit", "StopIteration", "cancels itself", "mute exception"],
)
async def test_raising_callback_fails_its_task_for_good(
    agent_of: Callable[[BaseException], Agent], error: BaseException, error_type: str
) -> None:
    async with engine(agent=agent_of(error)) as one:
        first = failure_of(await one.run(ask()))
        second = failure_of(await one.run(ask()))

    assert (first.kind, first.verdict, first.type) == ("TaskFailed", "invalid", error_type)
    assert "handle_response" in first.traceback
    assert second.type == first.type


async def test_callback_that_decides_what_is_not_known_fails_its_task() -> None:
    class Decided(Agent):
        def handle_response(self, turn: Turn, response: Response) -> Any:
            return "go on"

    async with engine(agent=Decided()) as one:
        failure = failure_of(await one.run(ask()))

    assert (
        failure.message
        == "handle_response must return None (idle), Prompt(text) or Halt(reason), got str"
    )


async def test_turn_whose_callback_does_not_return_runs_into_its_timeout() -> None:
    class Waiting(Agent):
        async def handle_response(self, turn: Turn, response: Response) -> None:
            await asyncio.Event().wait()

    async with engine(agent=Waiting(), rules=TurnRules(turn_timeout=0.02)) as one:
        failure = failure_of(await one.run(ask()))

    assert failure.kind == "TurnTimeout"


async def test_def_callback_that_runs_out_of_time_ends_its_turn_once_it_returns() -> None:
    go_on = threading.Event()

    class Blocking(Agent):
        def handle_response(self, turn: Turn, response: Response) -> None:
            go_on.wait()

    async with engine(agent=Blocking()) as one:
        turn = asyncio.create_task(one.run(ask(timeout=0.02)))
        ended, _ = await asyncio.wait({turn}, timeout=0.1)
        assert not ended
        go_on.set()

        assert failure_of(await turn).kind == "TurnTimeout"


async def test_turns_of_many_tasks_run_side_by_side() -> None:
    everybody = asyncio.Barrier(50)

    async def answer(prompt: Content, options: SessionOptions) -> str:
        await everybody.wait()
        return str(prompt)

    async with engine(FunctionBackend(answer)) as one:
        outcomes = await asyncio.gather(*(one.run(ask(n, f"question {n}")) for n in range(50)))

    assert [text_of(outcome) for outcome in outcomes] == [f"question {n}" for n in range(50)]
