"""A small model of a worker with one slot: what its agent is told, and what is reported."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Reply: TypeAlias = Literal["answers", "is cut", "is refused", "breaks"]
Decided: TypeAlias = Literal["nothing", "prompt", "halt", "raises", "42"]
Before: TypeAlias = Literal["nothing", "rewrites", "skips", "halts", "raises"]

MAX_ATTEMPTS = 2
MAX_TURNS = 4


@dataclass(frozen=True)
class TurnPlan:
    """What happens in a turn, when it comes to that.

    Attributes:
        before: what `pre_turn` decides; it halts but once.
        calls: the model asks for a tool before it replies.
        reply: how the backend ends; it refuses but once.
        response: what `handle_response` decides.
        error: what `handle_error` decides.
        looks_back: whether `post_turn` raises.
    """

    before: Before = "nothing"
    calls: bool = False
    reply: Reply = "answers"
    response: Decided = "nothing"
    error: Decided = "nothing"
    looks_back: Literal["nothing", "raises"] = "nothing"


@dataclass(frozen=True)
class Plan:
    """The turns of a task; what comes after them is plain."""

    turns: tuple[TurnPlan, ...] = ()

    def turn(self, number: int) -> TurnPlan:
        return self.turns[number - 1] if number <= len(self.turns) else TurnPlan()


@dataclass(frozen=True)
class EventPlan:
    """What `handle_event` decides, and the plan of what it asks."""

    decides: Decided = "nothing"
    asks: Plan = Plan()


@dataclass
class Run:
    """A task that the worker has, or that waits for another attempt or for capacity.

    Attributes:
        left: how many exchanges it may make before it pauses.
        exchanges: how many it has made.
        has_called: the model has asked for a tool in this turn.
        waits: it goes on in the middle of its attempt.
    """

    number: int
    plan: Plan
    turn: int = 1
    attempt: int = 1
    left: int | None = None
    exchanges: int = 0
    has_called: bool = False
    is_cancelled: bool = False
    waits: bool = False

    @property
    def now(self) -> TurnPlan:
        return self.plan.turn(self.turn)


@dataclass
class Once:
    """What happens but once in a life."""

    _seen: set[tuple[object, ...]] = field(default_factory=set)

    def is_first(self, *what: object) -> bool:
        is_first = what not in self._seen
        self._seen.add(what)
        return is_first


@dataclass
class Model:
    """The worker.

    Attributes:
        journal: what the agent is told, in order.
        ended: by number, what was reported last: `answer`, `again`, `paused`, `failed`,
            `cancelled`, `skipped` or `returned`.
        halts: how often the agent has halted.
    """

    journal: list[tuple[object, ...]] = field(default_factory=list)
    ended: dict[int, str] = field(default_factory=dict)
    halts: int = 0
    halted: bool = False
    owes_post_run: bool = False
    current: Run | None = None
    parcels: deque[Run] = field(default_factory=deque)
    letters: deque[tuple[int, EventPlan]] = field(default_factory=deque)
    wishes: deque[Run] = field(default_factory=deque)
    paused: dict[int, Run] = field(default_factory=dict)
    once: Once = field(default_factory=Once)

    # What the world does

    def post(self, number: int, plan: Plan, attempt: int, exchanges: int | None) -> None:
        if self.halted:
            self.ended[number] = "returned"
        else:
            self.parcels.append(Run(number, plan, attempt=attempt, left=exchanges))
            self._pump()

    def notify(self, number: int, plan: EventPlan) -> None:
        self.letters.append((number, plan))
        self._pump()

    def reply(self) -> None:
        """The backend ends the running exchange."""
        run = self.current
        assert run is not None
        plan = run.now
        if plan.calls and not run.has_called:
            self._call(run)
            return
        is_refused = plan.reply == "is refused"
        if is_refused and self.once.is_first("refused", run.number, run.turn):
            self._pause(run)
        elif is_refused or plan.reply == "answers":
            run.exchanges += 1
            self._tell("handle_response", run)
            is_wrong = plan.response in ("raises", "42")
            self._look_back(run)
            self._conclude(run, "failed" if is_wrong else "answer", plan.response)
        elif plan.reply == "is cut" and run.attempt < MAX_ATTEMPTS:
            self._pause(run)
        else:
            self._fail(run)

    def cut_short(self) -> None:
        """An interrupt, or the end of the turn's time."""
        if self.current is not None:
            self._fail(self.current)

    def cancel(self, number: int) -> None:
        run = self.current
        if run is not None and run.number == number:
            run.is_cancelled = True
            self._fail(run)
            return
        for waiting in self.parcels:
            waiting.is_cancelled |= waiting.number == number
        self.paused.pop(number, None)

    def resume(self) -> None:
        self.halted = self.owes_post_run = False
        self._pump()

    # What the worker does

    def _pump(self) -> None:
        while self.current is None:
            if self.wishes and not self.halted:
                self._begin(self.wishes.popleft())
            elif self.letters:
                self._hear(*self.letters.popleft())
            elif self.parcels and not self.halted:
                run = self.parcels.popleft()
                if run.is_cancelled:
                    self.ended[run.number] = "cancelled"
                else:
                    self._begin(self._taken_up(run))
            else:
                return

    def _taken_up(self, run: Run) -> Run:
        """The run that waits for this attempt, if one does."""
        paused = self.paused.pop(run.number, run)
        if not paused.waits:
            paused.attempt = run.attempt
        paused.waits = False
        paused.left = run.left
        return paused

    def _begin(self, run: Run) -> None:
        self.current = run
        if run.left == 0:
            self._wait(run)
        elif run.has_called:
            self._ask(run)
        else:
            self._look_before(run)

    def _look_before(self, run: Run) -> None:
        self._tell("pre_turn", run)
        if run.now.before == "skips":
            self._hear_all()
            self._end(run, "skipped")
        elif run.now.before == "halts" and self.once.is_first("halts", run.number, run.turn):
            self._halt()
            self._hear_all()
            if run.turn > 1:
                run.waits = True
                self.paused[run.number] = run
            self._end(run, "returned")
        elif run.now.before == "raises":
            self._fail(run)
        else:
            self._ask(run)

    def _ask(self, run: Run) -> None:
        if run.left is not None:
            run.left -= 1

    def _call(self, run: Run) -> None:
        """The model has asked for a tool, and is to have what that gave."""
        run.has_called = True
        run.exchanges += 1
        if run.exchanges >= MAX_TURNS:
            self._fail(run)
        elif run.left == 0:
            self._wait(run)
        else:
            self._ask(run)

    def _wait(self, run: Run) -> None:
        run.waits = True
        self.paused[run.number] = run
        self._end(run, "paused")

    def _fail(self, run: Run) -> None:
        self._tell("handle_error", run)
        self._look_back(run)
        self._conclude(run, "failed", run.now.error)

    def _look_back(self, run: Run) -> None:
        self._tell("post_turn", run)

    def _conclude(self, run: Run, result: str, decided: Decided) -> None:
        if decided == "halt":
            self._halt()
        self._hear_all()
        if run.is_cancelled:
            self._end(run, "cancelled")
        elif decided != "prompt":
            self._end(run, result)
        elif max(run.turn, run.exchanges) >= MAX_TURNS:
            self._end(run, "failed")
        else:
            run.turn += 1
            run.attempt = 1
            run.has_called = False
            self._begin(run)

    def _pause(self, run: Run) -> None:
        self.paused[run.number] = run
        self._end(run, "again")

    def _end(self, run: Run, result: str) -> None:
        self.ended[run.number] = result
        self.current = None
        if self.halted and self.owes_post_run:
            self.owes_post_run = False
            self.journal.append(("post_run",))
        if result not in ("again", "paused"):
            self.journal.append(("snapshot",))
        self._pump()

    def _halt(self) -> None:
        if self.halted:
            return
        self.halts += 1
        self.halted = self.owes_post_run = True
        for run in self.parcels:
            self.ended[run.number] = "returned"
        self.parcels.clear()

    def _hear_all(self) -> None:
        while self.letters:
            self._hear(*self.letters.popleft())

    def _hear(self, number: int, plan: EventPlan) -> None:
        self.journal.append(("handle_event", number))
        if plan.decides == "prompt":
            self.wishes.append(Run(number, plan.asks))
            return
        if plan.decides == "halt":
            self._halt()
            if self.current is None and self.owes_post_run:
                self.owes_post_run = False
                self.journal.append(("post_run",))
        self.journal.append(("snapshot",))
        self.ended[number] = "heard"

    def _tell(self, hook: str, run: Run) -> None:
        self.journal.append((hook, run.number, run.turn, run.attempt))
