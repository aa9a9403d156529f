"""One turn with a Messages API server: one request, or more where the server pauses."""

from __future__ import annotations

from typing import Any

from raypool.backends.anthropic_answer import Answer
from raypool.backends.dialogue import Message, has_tool_results
from raypool.events import ErrorEvent, Event, ResultEvent, UsageEvent
from raypool.prices import cost_usd
from raypool.provider_limits import ProviderLimits
from raypool.usage import Usage

MOST_PAUSES = 10
CUT_OFF_LAST = frozenset({"thinking", "redacted_thinking"})
"""Blocks that no message of the model's may end with."""


class AnthropicTurn:
    """What has come of a turn so far.

    Attributes:
        failure: what went wrong; `None` while nothing has.
        limits: what the last answer said of the provider's limits.
    """

    def __init__(self, asked: list[Message], model: str) -> None:
        self.failure: ErrorEvent | None = None
        self.limits: ProviderLimits | None = None
        self._asked = asked
        self._model = model
        self._answers: list[Answer] = []
        self._incoming: Answer | None = None
        self._content: list[dict[str, Any]] = []

    @property
    def messages(self) -> list[Message]:
        """What the next request sends: the question, and what was answered before a pause."""
        return self._with_answer(self._content)

    @property
    def is_open(self) -> bool:
        """Whether a request is to be sent."""
        if self.failure is not None or len(self._answers) > MOST_PAUSES:
            return False
        return self.stop_reason == "pause_turn" if self._answers else True

    @property
    def is_paused(self) -> bool:
        """Whether the server has begun to answer and waits to be asked on."""
        return self.is_open and bool(self._answers)

    @property
    def stop_reason(self) -> str | None:
        """Why the last answer stopped."""
        return self._answers[-1].stop_reason

    @property
    def usage(self) -> Usage:
        """The tokens counted so far."""
        incoming = [] if self._incoming is None else [self._incoming]
        return sum((answer.usage for answer in self._answers + incoming), Usage())

    def expect(self, answer: Answer) -> None:
        """Count the answer to a request as it comes in, until it is added."""
        self._incoming = answer

    def add(self, answer: Answer) -> None:
        """Take the answer to a request, complete or not."""
        self._incoming = None
        self._answers.append(answer)
        self._content += answer.content()

    def remembered(self) -> list[Message] | None:
        """The conversation with this turn; `None` when the API would refuse to see it again."""
        if self.stop_reason == "refusal":
            return None
        content = self._lasting_content()
        can_do_without = has_tool_results(self._asked[-1])
        return self._with_answer(content) if content or can_do_without else None

    def last_events(self) -> list[Event]:
        """The tools that the model asks for, and how the turn ended."""
        usage = self.usage
        if self.failure is not None:
            return [UsageEvent(usage), self.failure] if usage != Usage() else [self.failure]
        calls = self._answers[-1].tool_calls() if self.stop_reason == "tool_use" else []
        return [*calls, self._result(usage)]

    def _result(self, usage: Usage) -> ResultEvent:
        costs = [cost_usd(answer.model or self._model, answer.usage) for answer in self._answers]
        known = [cost for cost in costs if cost is not None]
        return ResultEvent(
            model=self._answers[-1].model or self._model,
            stop_reason=self.stop_reason,
            usage=usage,
            cost_usd=sum(known) if len(known) == len(costs) else None,
            limits=self.limits,
        )

    def _with_answer(self, content: list[dict[str, Any]]) -> list[Message]:
        if not content:
            return self._asked
        return [*self._asked, {"role": "assistant", "content": list(content)}]

    def _lasting_content(self) -> list[dict[str, Any]]:
        """What a later request can repeat: no tool call without its result, unless all wait."""
        if self.stop_reason == "tool_use":
            return self._content
        answered = {block.get("tool_use_id") for block in self._content}
        kept = [
            block
            for block in self._content
            if not block["type"].endswith("tool_use") or block["id"] in answered
        ]
        while kept and kept[-1]["type"] in CUT_OFF_LAST:
            kept.pop()
        return kept
