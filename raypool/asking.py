"""One turn with the backend: the prompt, the tools that the model calls, and the answer's shape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeAlias, get_args

import msgspec

from raypool.backends.faults import error_event
from raypool.callbacks import USER_ERRORS, Callbacks, errors_only, raise_if_cancelled
from raypool.chain import NO_USAGE, PAUSE, Chain, Pause
from raypool.config import Price
from raypool.conversations import Conversation, Conversations, settled
from raypool.events import (
    ErrorEvent,
    Event,
    ResultEvent,
    TextEvent,
    ToolResultEvent,
    ToolUseEvent,
    UsageEvent,
)
from raypool.outcomes import BROKEN_CONTRACT, TOO_MANY_TURNS
from raypool.output_type import InvalidAnswer, OutputType
from raypool.prices import cost_usd
from raypool.provider_limits import LimitNews
from raypool.task import Content
from raypool.telemetry import EventLog
from raypool.threads import by_itself
from raypool.tools import Call, ToolBox, error_text, result_text
from raypool.usage import Usage

End: TypeAlias = ResultEvent | ErrorEvent
EVENT_TYPES = get_args(Event)
ENDS = (ResultEvent, ErrorEvent)
INVALID_ANSWER = "InvalidAnswer"


class Asking:
    """Runs the exchanges of a turn, until the model has answered it.

    What follows from the reason for which the model stopped:

    - `end_turn`, `stop_sequence`: the turn is answered.
    - `max_tokens`: answered, and cut; an output type that it does not fit is asked for again.
    - `tool_use`: the tools are run, and the model is given their results.
    - `pause_turn`: the backend's session has gone on by itself.
    - `refusal`: answered with what there is; with an output type the turn fails at once.
    - `model_context_window_exceeded`: answered, and cut; the conversation is shortened
      before its next turn.
    - any other: answered.

    Args:
        callbacks: the agent's.
        tools: what the model may call.
        conversations: where a conversation is shortened.
        max_exchanges: the most exchanges that a task may take.
        parse_attempts: how many answers in all may be asked for to fit an output type.
        prices: what models cost, in the place of what the backend says.
        model: the model that is asked where a conversation names none.
        log: where telemetry goes.
        put_text: is given each piece of text of a task that streams, with its number.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        tools: ToolBox,
        conversations: Conversations,
        *,
        max_exchanges: int,
        parse_attempts: int,
        prices: Mapping[str, Price],
        model: str | None,
        log: EventLog,
        put_text: Callable[[int, str], None],
    ) -> None:
        self._callbacks = callbacks
        self._tools = tools
        self._conversations = conversations
        self._max_exchanges = max_exchanges
        self._parse_attempts = parse_attempts
        self._prices = prices
        self._model = model
        self._limit_news = LimitNews()
        self._log = log
        self._put_text = put_text
        self._handles_events = callbacks.is_overridden("handle_stream_event")

    async def ask(self, chain: Chain) -> ErrorEvent | Pause | None:
        """Ask what the chain has pending until the turn is answered; else what failed, or a pause.

        After a pause it goes on with the exchange that it stopped before.
        """
        conversation = chain.conversation
        assert conversation is not None
        wanted = conversation.options.output_type
        output_type = None if wanted is None else OutputType.of(wanted)
        while True:
            failure = await self._exchange(chain, conversation)
            if failure is not None:
                if isinstance(failure, Pause):
                    return failure
                if failure.is_context_full and self._conversations.shorten(conversation):
                    continue
                return failure
            result = chain.result
            assert result is not None
            if result.stop_reason == "tool_use" and (uses := _open_calls(chain)):
                chain.pending = await self._run_tools(chain, uses)
                continue
            chain.seen = len(chain.events)
            if result.stop_reason == "model_context_window_exceeded":
                self._conversations.shorten(conversation)
            if output_type is None:
                return None
            again = _parse(chain, output_type, self._parse_attempts)
            if again is None or isinstance(again, ErrorEvent):
                return again
            chain.pending = again

    async def _exchange(
        self, chain: Chain, conversation: Conversation
    ) -> ErrorEvent | Pause | None:
        """Ask once; an answer is noted in the chain."""
        if chain.exchanges >= self._max_exchanges:
            return _too_many(self._max_exchanges)
        if chain.left == 0:
            return PAUSE
        asked = chain.pending
        assert asked is not None
        if conversation.is_rewritten:
            await self._conversations.open_again(conversation)
        chain.begin_exchange()
        stream: Any = conversation.session.prompt(asked)
        if not hasattr(stream, "aclose"):
            stream = await _closable(stream)
        events: list[Event] = []
        try:
            end = await self._listen(chain, conversation, stream, events)
        finally:
            chain.count(*self._consumption(conversation, events))
            await stream.aclose()
        if isinstance(end, ErrorEvent):
            return end
        chain.take_result(events, end)
        if conversation.keeps_own_record:
            conversation.remember(asked, chain.text)
        return None

    async def _listen(
        self, chain: Chain, conversation: Conversation, stream: Any, events: list[Event]
    ) -> End:
        """Gather what the backend yields in `events`, up to the exchange's end."""
        is_heard = self._handles_events or chain.work.streams
        end: End | None = None
        async for event in stream:
            if not isinstance(event, EVENT_TYPES):
                return _broken_contract(f"yielded a {type(event).__name__}, which is no event")
            if isinstance(event, ENDS):
                end = self._read_end(chain, conversation, event, events)
            events.append(end or event)
            if is_heard:
                await self._hand_on(chain, end or event)
            if end is not None:
                return end
        return _broken_contract("ended its turn with neither a result nor an error event")

    def _read_end(
        self, chain: Chain, conversation: Conversation, end: End, before: list[Event]
    ) -> End:
        """The end of an exchange, priced by the pool's own table.

        What the provider says of its limits is taken out, and noted where it is news.
        """
        if end.limits is not None:
            is_refused = isinstance(end, ErrorEvent) and end.verdict == "refused"
            news = self._limit_news.of(end.limits, is_refused=is_refused)
            chain.limits = news or chain.limits
            end = msgspec.structs.replace(end, limits=None)
        if self._prices and isinstance(end, ResultEvent):
            for name in (end.model, conversation.options.model, self._model):
                if name is not None and name in self._prices:
                    usage, _ = _consumption([*before, end])
                    cost = cost_usd(name, usage, self._prices)
                    return msgspec.structs.replace(end, cost_usd=cost)
        return end

    def _consumption(
        self, conversation: Conversation, events: list[Event]
    ) -> tuple[Usage, float | None]:
        """Tokens and USD of an exchange, also of one that was cut off."""
        usage, known_usd = _consumption(events)
        if events and isinstance(events[-1], ENDS):
            return usage, known_usd
        so_far = getattr(conversation.session, "usage_so_far", None)
        usage = so_far if isinstance(so_far, Usage) else usage
        if not usage.total_tokens:
            return usage, known_usd
        model = conversation.options.model or self._model
        return usage, None if model is None else cost_usd(model, usage, self._prices)

    async def _hand_on(self, chain: Chain, event: Event) -> None:
        if chain.work.streams and isinstance(event, TextEvent):
            self._put_text(chain.work.number, event.text)
        if self._handles_events:
            await self._callbacks.call_quietly("handle_stream_event", chain.turn(), event)

    async def _run_tools(self, chain: Chain, uses: list[ToolUseEvent]) -> Content:
        """The next message of the conversation: what each tool gave."""
        results = await asyncio.gather(*(self._run_tool(chain, use) for use in uses))
        blocks = []
        for result in results:
            chain.events.append(result)
            await self._hand_on(chain, result)
            blocks.append(
                {
                    "type": "tool_result",
                    "tool_use_id": result.id,
                    "content": result.content,
                    "is_error": result.is_error,
                }
            )
        chain.seen = len(chain.events)
        return [{"role": "user", "content": blocks}]

    async def _run_tool(self, chain: Chain, use: ToolUseEvent) -> ToolResultEvent:
        started = time.monotonic()
        failure: BaseException | None = None
        try:
            with errors_only():
                text = result_text(await self._call(self._tools.bind(use.name, use.input)))
        except USER_ERRORS as error:
            raise_if_cancelled()
            failure, text = error, error_text(error)
        self._log.emit(
            "tool.called" if failure is None else "tool.failed",
            task=chain.work.id,
            tool=use.name if use.name in self._tools else None,
            turn=chain.number,
            duration_ms=round((time.monotonic() - started) * 1000, 3),
            error_type=None if failure is None else type(failure).__name__,
        )
        return ToolResultEvent(use.id, text, is_error=failure is not None)

    async def _call(self, call: Call) -> Any:
        """A method of the agent is called as its callbacks are, any other function beside them.

        One that is `def` and no method is left to itself when its turn is interrupted.
        """
        if call.owner is self._callbacks.agent:
            return await self._callbacks.run(call.function, **call.kwargs)
        if call.is_async:
            return await call.function(**call.kwargs)
        return await settled(await by_itself(call.function, **call.kwargs))


def _parse(
    chain: Chain, output_type: OutputType, parse_attempts: int
) -> Content | ErrorEvent | None:
    """Read the answer into `chain.parsed`; else what asks again, or the turn's failure."""
    try:
        chain.parsed = output_type.parse(chain.text)
    except InvalidAnswer as error:
        chain.answers.append(chain.text)
        refused = chain.result is not None and chain.result.stop_reason == "refusal"
        if not refused and len(chain.answers) < parse_attempts:
            return output_type.correction(error)
        many = "answer" if len(chain.answers) == 1 else f"{len(chain.answers)} answers"
        why = "the model refused to answer" if refused else f"the last {error}"
        return ErrorEvent(
            "invalid",
            INVALID_ANSWER,
            f"no {many} of the model fit the output type {output_type.name!r}: {why}",
        )
    except Exception as error:  # noqa: BLE001 - validators of the user's may raise anything
        return error_event(error, "invalid")
    return None


def _too_many(limit: int) -> ErrorEvent:
    return ErrorEvent(
        "invalid",
        TOO_MANY_TURNS,
        f"the task has taken max_turns_per_task={limit} turns, tool calls included, without "
        "coming to an end; decide None or Halt(…) at some point, or raise the limit on the pool",
    )


def _open_calls(chain: Chain) -> list[ToolUseEvent]:
    """The tools that the last exchange asks for; the backend may have run some itself."""
    new = chain.events[chain.seen :]
    run = {event.id for event in new if isinstance(event, ToolResultEvent)}
    return [event for event in new if isinstance(event, ToolUseEvent) and event.id not in run]


def _consumption(events: list[Event]) -> tuple[Usage, float | None]:
    """Tokens and USD of an exchange; what one that failed cost is not known, and left out."""
    last = events[-1] if events else None
    cost_usd: float | None = 0.0
    if isinstance(last, ResultEvent):
        cost_usd = last.cost_usd
        if last.usage is not None:
            return last.usage, cost_usd
    counted = [event.usage for event in events if isinstance(event, UsageEvent)]
    return (counted[-1] if counted else NO_USAGE), cost_usd


def _broken_contract(what: str) -> ErrorEvent:
    return ErrorEvent("invalid", BROKEN_CONTRACT, f"the backend {what}")


async def _closable(events: Any) -> Any:
    """A user's `prompt` may return any async iterator, and may be a coroutine that does."""
    events = await settled(events)
    return events if hasattr(events, "aclose") else _as_generator(events)


async def _as_generator(events: Any) -> AsyncIterator[Any]:
    async for event in events:
        yield event
