"""One task in a worker: its turns so far, and what the next exchange asks."""

from __future__ import annotations

from typing import Any

import msgspec

from raypool.agent import Turn, TurnTask
from raypool.conversations import Conversation
from raypool.events import Event, ResultEvent, TextEvent
from raypool.messages import Answer, Asked, Assignment, Failure, Outcome
from raypool.provider_limits import ProviderLimits
from raypool.task import Content
from raypool.usage import Usage

NO_USAGE = Usage()


class Pause(msgspec.Struct, frozen=True):
    """The turn waits before an exchange that no capacity is reserved for."""


PAUSE = Pause()


class Chain:
    """The turns of one task, each a prompt and the exchanges with the backend that answer it.

    Attributes:
        work: the task, and which attempt at its turn this is.
        asked: the task that it is for the dispatcher, where an agent's notice led to it; `None`
            once the dispatcher has it.
        conversation: the conversation, once it is open.
        prompt: what the turn asks.
        pending: what the next exchange asks: the prompt as `pre_turn` left it, or the results
            of tools; `None` before `pre_turn`.
        number: the turn's place in the chain, from 1.
        attempt: which attempt at the turn this is, from 1.
        is_under_way: the attempt has begun to ask.
        seconds: how long the attempt had run when it paused last; 0 when it has not.
        left: how many exchanges may be made before the chain pauses; `None`: any number.
        exchanges: exchanges that gave a result, in all turns.
        exchanges_of_turn: those of this turn.
        events: what the turn's exchanges have yielded, and its tools given.
        seen: how many of the events have been dealt with.
        text: the answer of the last exchange.
        is_plain: the turn gave text and a result, and nothing else.
        result: the result of the last exchange.
        parsed: the answer as its output type.
        answers: texts of the turn that did not fit its output type.
        aside: what the turn has said in the worker's conversation, which goes on without it.
        limits: what the provider said of its limits that nobody was told of.
        concluded: what came of the turn, once that is decided.
        outcome: what is reported of the attempt, once that is decided.
        is_cancelled: nobody wants its answer any more.
    """

    __slots__ = (
        "_consumed",
        "_requests",
        "_taken",
        "_turn_from",
        "_waits",
        "answers",
        "aside",
        "asked",
        "attempt",
        "concluded",
        "conversation",
        "events",
        "exchanges",
        "exchanges_of_turn",
        "is_cancelled",
        "is_plain",
        "is_under_way",
        "left",
        "limits",
        "number",
        "outcome",
        "parsed",
        "pending",
        "prompt",
        "result",
        "seconds",
        "seen",
        "text",
        "work",
    )

    def __init__(self, work: Assignment, asked: Asked | None = None) -> None:
        self.work = work
        self.asked = asked
        self.conversation: Conversation | None = None
        self.number = 1
        self.attempt = work.attempt
        self.exchanges = 0
        self.left = work.exchanges
        self.limits: ProviderLimits | None = None
        self.outcome: Outcome | None = None
        self.is_cancelled = False
        self._waits = False
        self._requests = 0
        self._consumed: list[tuple[Usage, float | None]] = []
        self._taken = 0
        self.result: ResultEvent | None
        self.events: list[Event]
        self.aside: list[dict[str, Any]]
        self._begin_turn(work.prompt)

    @property
    def has_begun(self) -> bool:
        """Whether anything is lost when it starts anew."""
        return self.number > 1 or self.exchanges > 0

    def turn(self) -> Turn:
        """The turn, as callbacks see it."""
        work = self.work
        return Turn(
            task=TurnTask(id=work.id, role=work.role, session=work.session, metadata=work.metadata),
            number=self.number,
            attempt=self.attempt,
            session_id=self.conversation.id if self.conversation else None,
            prompt=self.prompt,
        )

    def take_up(self, work: Assignment) -> None:
        """Go on after the last exchange that worked, with another attempt at the same turn.

        A chain that waits is at the attempt that it was.
        """
        self.work = work
        self.asked = None
        self.left = work.exchanges
        self.outcome = None
        if self._waits:
            self._waits = False
            return
        self.attempt = work.attempt
        self._begin_attempt()
        if self.exchanges_of_turn == 0:
            self._begin_turn(self.prompt)

    def wait(self) -> None:
        """Stay as it is until it is taken up: for the agent to be resumed, or for capacity."""
        self._waits = True

    def leave_conversation(self) -> None:
        """Go on, once it is taken up, in what the conversation has become by then."""
        assert self.conversation is not None
        self.aside = self.conversation.set_aside()
        self.conversation = None

    def join_conversation(self, conversation: Conversation) -> None:
        """Go on in `conversation`."""
        self.conversation = conversation
        if self.aside:
            conversation.bring_back(self.aside)
            self.aside = []

    def go_on(self, prompt: Content) -> None:
        """Begin the next turn."""
        self.number += 1
        self.attempt = 1
        if self.conversation is not None:
            self.conversation.begin_turn()
        self._begin_turn(prompt)

    def begin_exchange(self) -> None:
        """Note that the backend is asked."""
        self._requests += 1
        if self.left is not None:
            self.left -= 1

    def count(self, usage: Usage, cost_usd: float | None) -> None:
        """Add what an exchange has consumed; a cost that is not known makes the sum so."""
        self._consumed.append((usage, cost_usd))

    def take_consumption(self) -> tuple[Usage, float | None]:
        """Tokens and USD since they were last taken; each is reported once."""
        fresh = self._consumed[self._taken :] if self._taken else self._consumed
        self._taken = len(self._consumed)
        return fresh[0] if len(fresh) == 1 else _sum(fresh)

    def take_requests(self) -> int:
        """How often the backend was asked since this was last taken."""
        requests, self._requests = self._requests, 0
        return requests

    def take_limits(self) -> ProviderLimits | None:
        """What the provider said of its limits that nobody was told of."""
        limits, self.limits = self.limits, None
        return limits

    def turn_consumption(self) -> tuple[Usage, float | None]:
        """Tokens and USD of this turn."""
        return _sum(self._consumed[self._turn_from :])

    def take_result(self, events: list[Event], result: ResultEvent) -> None:
        """Note an exchange that ended in a result."""
        texts = [event.text for event in events if isinstance(event, TextEvent)]
        self.events = [*self.events, *events] if self.events else events
        self.exchanges += 1
        self.exchanges_of_turn += 1
        self.result = result
        self.text = "".join(texts)
        self.is_plain = self.events is events and len(texts) + 1 == len(events)

    def _begin_attempt(self) -> None:
        self.is_under_way = False
        self.seconds = 0.0

    def _begin_turn(self, prompt: Content) -> None:
        self._begin_attempt()
        self.prompt = prompt
        self.exchanges_of_turn = 0
        self.pending: Content | None = None
        self.events = []
        self.seen = 0
        self.aside = []
        self.text = ""
        self.is_plain = True
        self.concluded: Answer | Failure | None = None
        self.result = None
        self.parsed: Any = None
        self.answers: list[str] = []
        self._turn_from = len(self._consumed)


def _sum(consumed: list[tuple[Usage, float | None]]) -> tuple[Usage, float | None]:
    usage = NO_USAGE
    cost_usd: float | None = 0.0
    for more, costs in consumed:
        usage += more
        if costs is None or cost_usd is None:
            cost_usd = None
        else:
            cost_usd += costs
    return usage, cost_usd
