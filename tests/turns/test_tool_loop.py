"""The tools that a model calls: run by raypool, and what each failure tells the model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from raypool.agent import Agent, AgentStart, SessionOptions, Turn
from raypool.backends import FunctionBackend
from raypool.chain_run import TurnRules
from raypool.events import Event, ResultEvent, TextEvent, ToolResultEvent, ToolUseEvent
from raypool.response import Response
from raypool.task import Content
from raypool.tools import Tool
from raypool.usage import Usage
from tests.turns.parts import (
    CUT,
    START,
    Steps,
    ask,
    calls,
    engine,
    failure_of,
    new_engine,
    new_log,
    text_of,
    told,
)

pytestmark = pytest.mark.asyncio


class Equipped(Agent):
    """Has these tools, and notes the events that it hears of."""

    def __init__(self, *tools: Callable[..., Any], **options: Any) -> None:
        self._tools: Sequence[Callable[..., Any]] = tools
        self._options = options
        self.heard: list[Event] = []

    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(tools=self._tools, **self._options)

    def handle_stream_event(self, turn: Turn, event: Event) -> None:
        self.heard.append(event)


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


async def spell(word: str) -> list[str]:
    """Spell a word."""
    await asyncio.sleep(0)
    return list(word)


def explode() -> str:
    """Explode."""
    raise OSError("boom")


SUM = ToolUseEvent("call-1", "add", {"left": 40, "right": 2})


def results(prompt: Content) -> list[tuple[str, str, bool]]:
    """What the tools gave, as the model reads it."""
    assert isinstance(prompt, list)
    [message] = prompt
    assert message["role"] == "user"
    return [
        (block["tool_use_id"], block["content"], block["is_error"]) for block in message["content"]
    ]


async def test_tool_is_run_and_the_model_is_given_its_result() -> None:
    backend, agent = Steps(SUM, "It is 42."), Equipped(add)

    async with engine(backend, agent) as one:
        outcome = await one.run(ask())

    assert text_of(outcome) == "It is 42."
    assert results(backend.asked[1]) == [("call-1", "42", False)]
    assert (outcome.turns, outcome.usage, outcome.cost_usd) == (2, Usage(2, 2), 1.0)
    assert outcome.answer is not None
    last = ResultEvent(usage=Usage(1, 1), cost_usd=0.5)
    assert outcome.answer.events == [
        SUM,
        ToolResultEvent("call-1", "42"),
        TextEvent("It is 42."),
        last,
    ]
    first = ResultEvent(stop_reason="tool_use", usage=Usage(1, 1), cost_usd=0.5)
    assert agent.heard == [SUM, first, *outcome.answer.events[1:]]


async def test_tools_are_offered_to_the_backend_with_their_schemas_made() -> None:
    backend = Steps("42")

    async with engine(backend, Equipped(add, spell)) as one:
        await one.run(ask())

    assert [type(tool) for tool in backend.options[0].tools] == [Tool, Tool]


async def test_tools_that_are_called_together_run_side_by_side() -> None:
    both = threading.Barrier(3)

    def wait(n: int) -> int:
        """Wait."""
        both.wait(10)
        return n

    async def wait_too(n: int) -> int:
        """Wait."""
        await asyncio.to_thread(both.wait, 10)
        return n

    uses = [
        ToolUseEvent("a", "wait", {"n": 1}),
        ToolUseEvent("b", "wait", {"n": 2}),
        ToolUseEvent("c", "wait_too", {"n": 3}),
    ]
    backend = Steps(calls(*uses), "done")
    async with engine(backend, Equipped(wait, wait_too)) as one:
        await one.run(ask())

    assert results(backend.asked[1]) == [("a", "1", False), ("b", "2", False), ("c", "3", False)]


@pytest.mark.parametrize(
    ("use", "told_to_the_model"),
    [
        (ToolUseEvent("1", "explode", {}), "OSError: boom"),
        (
            ToolUseEvent("1", "divine", {}),
            "There is no tool 'divine'. The tools are: add, spell, explode.",
        ),
        (
            ToolUseEvent("1", "add", {"left": "many"}),
            "The input of tool 'add' does not fit its schema:\n"
            "- left: Input should be a valid integer, unable to parse string as an integer\n"
            "- right: Field required",
        ),
    ],
    ids=["raises", "unknown", "wrong input"],
)
async def test_model_is_told_why_its_call_came_to_nothing(
    use: ToolUseEvent, told_to_the_model: str
) -> None:
    log, backend = new_log(), Steps(use, "I see.")

    async with engine(backend, Equipped(add, spell, explode), log=log) as one:
        outcome = await one.run(ask())

    assert text_of(outcome) == "I see."
    assert results(backend.asked[1]) == [("1", told_to_the_model, True)]
    [event] = [event for event in told(log) if event.name.startswith("tool.")]
    a_name_of_ours = None if use.name == "divine" else use.name
    assert (event.name, event.fields.get("tool")) == ("tool.failed", a_name_of_ours)


async def test_async_tool_runs_on_the_loop_and_its_list_is_json() -> None:
    backend = Steps(ToolUseEvent("1", "spell", {"word": "hi"}), "done")

    async with engine(backend, Equipped(spell)) as one:
        await one.run(ask())

    assert results(backend.asked[1]) == [("1", '["h","i"]', False)]


async def test_tool_that_cancels_itself_has_raised() -> None:
    async def give_up() -> None:
        """Give up."""
        raise asyncio.CancelledError("enough")

    backend = Steps(ToolUseEvent("1", "give_up", {}), "done")
    async with engine(backend, Equipped(give_up)) as one:
        assert text_of(await one.run(ask())) == "done"

    assert results(backend.asked[1]) == [("1", "CancelledError: enough", True)]


async def test_method_of_the_agent_is_a_tool_that_never_runs_beside_a_callback() -> None:
    class Counter(Agent):
        """Its tools and its callbacks must not overlap."""

        def __init__(self) -> None:
            self.running = 0
            self.most = 0
            self.count = 0
            self.threads: set[str] = set()

        def init_agent(self, start: AgentStart) -> SessionOptions:
            return SessionOptions(tools=[self.count_up, self.count_slowly])

        def enter(self) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads.add(threading.current_thread().name.split("_")[0])

        def count_up(self) -> int:
            """Count."""
            self.enter()
            threading.Event().wait(0.001)
            self.count += 1
            self.running -= 1
            return self.count

        async def count_slowly(self) -> int:
            """Count."""
            self.enter()
            await asyncio.sleep(0)
            self.count += 1
            self.running -= 1
            return self.count

        def handle_stream_event(self, turn: Turn, event: Event) -> None:
            self.enter()
            self.running -= 1

    agent = Counter()
    both = [ToolUseEvent("a", "count_up", {}), ToolUseEvent("b", "count_slowly", {})]
    backend = Steps(*[calls(*both)] * 4, *["done"] * 4)
    async with engine(backend, agent) as one:
        await asyncio.gather(*(one.run(ask(number)) for number in range(4)))

    assert (agent.count, agent.most) == (8, 1)
    assert agent.threads == {"raypool-callbacks", "MainThread"}


async def test_tools_that_the_backend_has_run_itself_are_not_run_again() -> None:
    ran: list[str] = []

    def note(what: str) -> None:
        """Note."""
        ran.append(what)

    mine, yours = ToolUseEvent("1", "note", {"what": "mine"}), ToolUseEvent("2", "search", {})
    step: list[Event] = [
        yours,
        ToolResultEvent("2", "found"),
        mine,
        ResultEvent(stop_reason="tool_use"),
    ]
    backend = Steps(step, "done")
    async with engine(backend, Equipped(note)) as one:
        await one.run(ask())

    assert ran == ["mine"]
    assert results(backend.asked[1]) == [("1", "", False)]


async def test_tool_calls_without_end_fail_at_the_limit_and_say_what_to_do() -> None:
    backend = Steps(*[SUM] * 9)

    async with engine(backend, Equipped(add), TurnRules(max_turns_per_task=3)) as one:
        outcome = await one.run(ask())

    failure = failure_of(outcome)
    assert (failure.type, failure.verdict, outcome.turns) == ("TooManyTurns", "invalid", 3)
    assert "max_turns_per_task=3 turns, tool calls included" in failure.message


async def test_retry_in_the_middle_of_a_tool_loop_does_not_run_the_tools_again() -> None:
    ran: list[int] = []

    def roll() -> int:
        """Roll a die."""
        ran.append(4)
        return 4

    backend = Steps(ToolUseEvent("1", "roll", {}), CUT, "four")
    async with engine(backend, Equipped(roll)) as one:
        cut = await one.run(ask())
        outcome = await one.run(ask(attempt=2))

    assert failure_of(cut).verdict == "transient"
    assert text_of(outcome) == "four"
    assert ran == [4]
    assert backend.asked[1] == backend.asked[2]
    assert (cut.usage, outcome.usage, outcome.turns) == (Usage(1, 1), Usage(1, 1), 2)


async def test_interrupt_leaves_a_def_tool_to_itself_and_ends_the_turn_at_once() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        """Wait."""
        entered.set()
        go_on.wait()

    async with engine(Steps(ToolUseEvent("1", "wait", {}), "done"), Equipped(wait)) as one:
        turn = asyncio.create_task(one.run(ask()))
        await asyncio.to_thread(entered.wait)
        one.limits.interrupt()
        failure = failure_of(await turn)
        go_on.set()

    assert failure.kind == "Interrupted"


async def test_interrupt_cancels_an_async_tool() -> None:
    cancelled: list[str] = []

    async def wait() -> None:
        """Wait."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("wait")
            raise

    async with engine(Steps(ToolUseEvent("1", "wait", {}), "done"), Equipped(wait)) as one:
        failure = failure_of(await one.run(ask(timeout=0.02)))

    assert failure.kind == "TurnTimeout"
    assert cancelled == ["wait"]


async def test_tool_calls_of_a_function_backend_are_run() -> None:
    prompts: list[Content] = []

    async def answer(prompt: Content, options: SessionOptions) -> str | Response:
        prompts.append(prompt)
        if len(prompts) == 1:
            return Response(text="", stop_reason="tool_use", events=(SUM,))
        return "It is 42."

    async with engine(FunctionBackend(answer), Equipped(add)) as one:
        assert text_of(await one.run(ask())) == "It is 42."

    assert results([prompts[1][-1]]) == [("call-1", "42", False)]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (add, r"tools must be a list of functions, .*write tools=\[\.\.\.\]"),
        ([lambda x: x], "a lambda has no name for the model to call; write the tool with def"),
        ([add, add], "two tools are called 'add'; give one of the functions another name"),
    ],
    ids=["no list", "lambda", "twice"],
)
async def test_tools_that_cannot_be_described_fail_the_start(tools: Any, message: str) -> None:
    class Wrong(Agent):
        def init_agent(self, start: AgentStart) -> SessionOptions:
            return SessionOptions(tools=tools)

    one = new_engine(agent=Wrong())
    with pytest.raises(TypeError, match=message):
        await one.begin(START)
    await one.end()


class Sum(BaseModel):
    result: int


async def test_tools_and_an_output_type_go_together() -> None:
    backend = Steps(SUM, '{"result": 42}')
    parsed: list[Any] = []

    class Typed(Equipped):
        def handle_response(self, turn: Turn, response: Response) -> None:
            parsed.append(response.parsed)

    async with engine(backend, Typed(add, output_type=Sum)) as one:
        await one.run(ask())

    assert parsed == [Sum(result=42)]
