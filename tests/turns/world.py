"""A real host, its agent and its backend, driven step by step, with what they do noted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from raypool.agent import Agent, Halt, Prompt, SessionOptions, Skip, Turn
from raypool.backends import Backend, Session
from raypool.chain_run import TurnRules
from raypool.clock import FakeClock
from raypool.errors import TaskFailed
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent, ToolUseEvent
from raypool.host import AgentHost
from raypool.messages import Assignment, Notice, Outcome
from raypool.response import Response
from raypool.task import Content
from tests.turns.model import MAX_ATTEMPTS, MAX_TURNS, EventPlan, Once, Plan, TurnPlan
from tests.turns.parts import START, new_engine

TURN_TIMEOUT = 60.0
COMES_AGAIN = ("again", "paused", "returned")


class Book:
    """The plans by number, as agent and backend look them up from a prompt like `7:2`."""

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self.events: dict[int, EventPlan] = {}
        self.once = Once()

    def turn(self, prompt: Content) -> TurnPlan:
        number, turn = place_of(prompt)
        return self.plans[number].turn(turn)


def place_of(prompt: Content) -> tuple[int, int]:
    """The numbers of task and turn that a prompt tells, or the result of a tool."""
    told = prompt if isinstance(prompt, str) else prompt[0]["content"][0]["tool_use_id"]
    number, turn = told.split()[0].split(":")
    return int(number), int(turn)


class Acting(Agent):
    """Does what is planned, notes what it is told, and counts how many callbacks run at once.

    Attributes:
        journal: the callbacks that ran, as in the model.
        most: the most that ran at once.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._running = 0
        self.journal: list[tuple[object, ...]] = []
        self.most = 0

    def enter(self, hook: str, turn: Turn) -> TurnPlan:
        number, _ = place_of(turn.prompt)
        self.journal.append((hook, number, turn.number, turn.attempt))
        self.begin()
        return self._book.turn(turn.prompt)

    def begin(self) -> None:
        self._running += 1
        self.most = max(self.most, self._running)

    def leave(self, decides: str, following: str = "") -> Any:
        self._running -= 1
        if decides == "raises":
            raise LookupError("as planned")
        return {"prompt": Prompt(following or "never"), "halt": Halt("as planned"), "42": 42}.get(
            decides
        )

    def before(self, turn: Turn, prompt: Content) -> Any:
        before = self.enter("pre_turn", turn).before
        if before == "halts" and not self._book.once.is_first("halts", place_of(prompt)):
            before = "nothing"
        decided = {"skips": Skip("as planned"), "rewrites": f"{prompt} rewritten"}
        returned = self.leave({"halts": "halt"}.get(before, before))
        return decided.get(before, returned)

    def following(self, turn: Turn) -> str:
        number, place = place_of(turn.prompt)
        return f"{number}:{place + 1}"

    def hear(self, event: int) -> EventPlan:
        self.journal.append(("handle_event", event))
        self.begin()
        return self._book.events[event]


class DefActing(Acting):
    """Its callbacks are `def`."""

    def pre_turn(self, turn: Turn, prompt: Content) -> Any:
        return self.before(turn, prompt)

    def handle_response(self, turn: Turn, response: Response) -> Any:
        return self.leave(self.enter("handle_response", turn).response, self.following(turn))

    def handle_error(self, turn: Turn, error: TaskFailed) -> Any:
        return self.leave(self.enter("handle_error", turn).error, self.following(turn))

    def post_turn(self, turn: Turn, outcome: Response | TaskFailed) -> Any:
        return self.leave(self.enter("post_turn", turn).looks_back)

    def handle_event(self, event: int) -> Any:
        return self.leave(self.hear(event).decides, f"{event}:1")

    def post_run(self) -> Any:
        self.journal.append(("post_run",))
        self.begin()
        return self.leave("nothing")

    def snapshot(self) -> Any:
        self.journal.append(("snapshot",))
        self.begin()
        return self.leave("nothing")


class AsyncActing(Acting):
    """Its callbacks are `async def`, and let others run."""

    async def pre_turn(self, turn: Turn, prompt: Content) -> Any:
        await asyncio.sleep(0)
        return self.before(turn, prompt)

    async def handle_response(self, turn: Turn, response: Response) -> Any:
        plan = self.enter("handle_response", turn)
        await asyncio.sleep(0)
        return self.leave(plan.response, self.following(turn))

    async def handle_error(self, turn: Turn, error: TaskFailed) -> Any:
        plan = self.enter("handle_error", turn)
        await asyncio.sleep(0)
        return self.leave(plan.error, self.following(turn))

    async def post_turn(self, turn: Turn, outcome: Response | TaskFailed) -> Any:
        plan = self.enter("post_turn", turn)
        await asyncio.sleep(0)
        return self.leave(plan.looks_back)

    async def handle_event(self, event: int) -> Any:
        plan = self.hear(event)
        await asyncio.sleep(0)
        return self.leave(plan.decides, f"{event}:1")

    async def post_run(self) -> Any:
        self.journal.append(("post_run",))
        self.begin()
        await asyncio.sleep(0)
        return self.leave("nothing")

    async def snapshot(self) -> Any:
        self.journal.append(("snapshot",))
        self.begin()
        await asyncio.sleep(0)
        return self.leave("nothing")


class Waiting(Backend):
    """Its turns end when they are told to, as planned.

    Attributes:
        turns: by the prompt's place, the turns that run, in the order in which they began.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self.turns: dict[tuple[int, int], asyncio.Future[None]] = {}

    async def start(self, options: SessionOptions) -> Session:
        return WaitingSession(self, self._book)


class WaitingSession(Session):
    def __init__(self, backend: Waiting, book: Book) -> None:
        self._backend = backend
        self._book = book

    async def prompt(self, prompt: Content) -> AsyncIterator[Event]:
        place = place_of(prompt)
        gate = self._backend.turns[place] = asyncio.get_running_loop().create_future()
        try:
            await gate
        finally:
            del self._backend.turns[place]
        if self._book.turn(prompt).calls and isinstance(prompt, str):
            yield ToolUseEvent(f"{place[0]}:{place[1]}", "tool", {})
            yield ResultEvent(stop_reason="tool_use")
            return
        reply = self._book.turn(prompt).reply
        if reply == "is cut":
            raise ConnectionError("as planned")
        if reply == "is refused" and self._book.once.is_first("refused", place):
            yield ErrorEvent("refused", "overloaded_error", "as planned")
        elif reply == "breaks":
            yield ErrorEvent("invalid", "invalid_request_error", "as planned")
        else:
            yield TextEvent("42")
            yield ResultEvent()


class World:
    """A host on a loop whose time stands still, and what a dispatcher would know of it.

    Attributes:
        ended: by number, what was reported last, in the model's words.
        ends: by number, how often an end was reported that is for good.
        halts: how often an outcome has told that the agent has halted.
    """

    def __init__(self, kind: type[Acting], slots: int) -> None:
        self.book = Book()
        self.agent = kind(self.book)
        self.backend = Waiting(self.book)
        self.clock = FakeClock()
        rules = TurnRules(
            turn_timeout=TURN_TIMEOUT, max_attempts=MAX_ATTEMPTS, max_turns_per_task=MAX_TURNS
        )
        self._engine = new_engine(self.backend, self.agent, rules, clock=self.clock)
        self.host = AgentHost(self._engine, slots)
        self.host._loop.time = self.clock.monotonic  # type: ignore[method-assign]
        self.ended: dict[int, str] = {}
        self.ends: Counter[int] = Counter()
        self.halts = 0
        self._tries: dict[int, tuple[int, int]] = {}
        self._letters: dict[int, Any] = {}
        self._envelopes: dict[int, Any] = {}
        self.host.start(START)
        self.agent.journal.clear()

    def stop(self) -> None:
        self.host.stop(grace=0.0)

    def attempt_of(self, number: int) -> int:
        return self._tries.get(number, (1, 0))[1] + 1

    def post(self, number: int, plan: Plan, exchanges: int | None) -> None:
        self.book.plans[number] = plan
        work = Assignment(
            number,
            f"task-{number}",
            f"{number}:1",
            self.attempt_of(number),
            exchanges=exchanges,
        )
        self._envelopes[number] = self.host.post([work], streams=False)
        self.settle()

    def notify(self, number: int, plan: EventPlan) -> None:
        self.book.events[number] = plan
        self.book.plans[number] = plan.asks
        self._letters[number] = self.host.notify(Notice(number, number))
        self.settle()

    def reply(self, place: tuple[int, int]) -> None:
        """Let a turn end."""
        self.host._loop.call_soon_threadsafe(self.backend.turns[place].set_result, None)
        self.settle()

    def interrupt(self) -> int:
        interrupted = self.host.interrupt()
        self.settle()
        return interrupted

    def pass_time(self) -> None:
        """Let every running turn run out of time."""
        self.clock.advance(TURN_TIMEOUT + 1.0)
        self.settle()

    def resume(self) -> None:
        self.host.resume()
        self.settle()

    def cancel(self, number: int) -> bool:
        """Whether the host has promised never to start it."""
        dropped = self.host.cancel([number])
        self.settle()
        return bool(dropped)

    def settle(self) -> None:
        """Wait until nothing moves by itself any more, and note what was reported."""
        asyncio.run_coroutine_threadsafe(self._calm(), self.host._loop).result(10)
        for number, letter in list(self._letters.items()):
            if letter.done():
                del self._letters[number]
                self._note(letter.result())
        for number, envelope in list(self._envelopes.items()):
            if envelope.left == 0:
                del self._envelopes[number]
                for batch in envelope.batches():
                    for outcome in batch.outcomes:
                        self._note(outcome)

    async def _calm(self) -> None:
        callbacks = self._engine._callbacks._one_at_a_time
        calm = 0
        while calm < 3:
            await asyncio.sleep(0)
            loop: Any = self.host._loop
            calm = 0 if loop._ready or callbacks.locked() else calm + 1

    def _note(self, outcome: Outcome) -> None:
        what = self._word(outcome)
        self.halts += outcome.halt is not None
        self.ended[outcome.number] = what
        self.ends[outcome.number] += what not in COMES_AGAIN
        if outcome.failure is not None:
            turn, attempts = self._tries.get(outcome.number, (1, 0))
            attempts = attempts if turn == outcome.failure.turn else 0
            is_attempt = outcome.failure.verdict != "refused"
            self._tries[outcome.number] = (outcome.failure.turn, attempts + is_attempt)

    def _word(self, outcome: Outcome) -> str:
        if outcome.answer is not None:
            return "answer"
        if outcome.failure is not None:
            return "again" if self._comes_again(outcome) else "failed"
        if outcome.is_returned or outcome.is_paused:
            return "paused" if outcome.is_paused else "returned"
        if outcome.skipped is not None:
            return "skipped"
        is_event = outcome.number in self.book.events and outcome.asked is None
        return "heard" if is_event and outcome.number not in self._tries else "cancelled"

    def _comes_again(self, outcome: Outcome) -> bool:
        assert outcome.failure is not None
        verdict = outcome.failure.verdict
        if verdict == "refused":
            return True
        turn, attempts = self._tries.get(outcome.number, (1, 0))
        before = attempts if turn == outcome.failure.turn else 0
        return verdict == "transient" and before + 1 < MAX_ATTEMPTS
