"""The gate of a role: what it lets go, what it sets aside, and what it makes of outcomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.capacity.alone import LoneShare
from raypool.capacity.breaker import Breaker
from raypool.capacity.budget import BudgetBook
from raypool.capacity.limit_gate import LimitGate
from raypool.capacity.outage import Outage
from raypool.capacity.usage_log import UsageLog
from raypool.clock import FakeClock
from raypool.config import Budget, Price, RateLimit
from raypool.events import Verdict
from raypool.messages import Answer, Failure, Outcome, Terms
from raypool.records import AcceptedTask
from raypool.task_record import TaskRecord
from raypool.usage import Usage

TERMS = Terms("https://api", "key", "my-model", max_tokens=100, is_priced=True)
FREELY = RateLimit(adaptive=False)
PRICES = {"my-model": Price(input_mtok=1.0, output_mtok=10.0)}


class Desk:
    """A gate with everything around it."""

    def __init__(
        self,
        budget: Budget | None = None,
        rate_limit: RateLimit = FREELY,
        *,
        terms: Terms = TERMS,
        has_memory: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.book = BudgetBook(budget)
        self.breaker = Breaker(self.clock)
        self.outage = Outage(self.clock)
        share = LoneShare(self.clock, rate_limit)
        self.gate = LimitGate(
            terms,
            share,
            self.book,
            self.breaker,
            self.outage,
            log=UsageLog(share, self.clock),
            table=PRICES,
            has_memory=has_memory,
        )
        self._number = 0

    def task(self, prompt: str = "a question", session: str | None = None) -> TaskRecord:
        self._number += 1
        record = TaskRecord(AcceptedTask(self._number, str(self._number), prompt, session=session))
        record.worker = "pool-1"
        return record

    def sent(self, **task: Any) -> TaskRecord:
        """A task that was sent."""
        record = self.task(**task)
        assert self.gate.reserve(record)
        assert record.reserved is not None
        return record

    def settle(self, record: TaskRecord, outcome: Outcome | None) -> None:
        self.gate.settle(record, outcome)
        record.reserved = None

    @property
    def spent(self) -> tuple[int, int]:
        """Tokens that are spent, and set aside."""
        status = self.book.status()
        assert status is not None
        return status.spent_tokens, status.reserved_tokens


NOTHING = Usage()
SOME = Usage(20, 50)


def answered(usage: Usage = SOME, **fields: Any) -> Outcome:
    return Outcome(1, Answer("text", 100.0), usage=usage, requests=1, **fields)


def paused(usage: Usage) -> Outcome:
    return Outcome(1, usage=usage, requests=1, is_paused=True)


def failed(
    verdict: Verdict, kind: str = "BackendError", usage: Usage = NOTHING, requests: int = 1
) -> Outcome:
    return Outcome(1, failure=Failure(kind, verdict, "Error", "no"), usage=usage, requests=requests)


def test_gate_is_wide_open_while_nothing_limits() -> None:
    assert Desk().gate.is_wide_open
    assert not Desk(Budget(tokens=1)).gate.is_wide_open
    assert not Desk(rate_limit=RateLimit(requests_per_minute=60)).gate.is_wide_open


def test_answer_is_counted_by_what_it_took_and_gives_the_rest_back() -> None:
    desk = Desk(Budget(tokens=10_000))
    record = desk.sent()
    assert desk.spent[0] == 0
    assert desk.spent[1] >= 100

    desk.settle(record, answered(Usage(20, 50, 7, 3)))

    assert desk.spent == (80, 0)


def test_money_is_counted_by_the_workers_figure_else_by_the_price() -> None:
    desk = Desk(Budget(usd=1.0))
    desk.settle(desk.sent(), answered(Usage(1_000, 50), cost_usd=0.25))
    desk.settle(desk.sent(), answered(Usage(1_000, 50), cost_usd=None))

    status = desk.book.status()

    assert status is not None
    assert status.spent_usd == 0.25 + 0.0015


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        failed("invalid", kind="TurnTimeout"),
        failed("invalid", kind="Interrupted", usage=Usage(10)),
        failed("transient", usage=Usage(10)),
        Outcome(1, requests=1),
        answered(Usage()),
    ],
    ids=["death", "time-out", "interrupt", "cut off", "cancelled", "no usage"],
)
def test_what_ended_without_telling_its_usage_counts_as_what_was_set_aside(
    outcome: Outcome | None,
) -> None:
    desk = Desk(Budget(tokens=10_000))
    record = desk.sent()
    set_aside = desk.spent[1]

    desk.settle(record, outcome)

    assert desk.spent == (set_aside, 0)


@pytest.mark.parametrize(
    "outcome",
    [
        failed("refused"),
        failed("transient"),
        failed("invalid"),
        failed("fatal"),
        Outcome(1, is_returned=True),
        Outcome(1, skipped="known"),
        Outcome(1),
    ],
    ids=["refused", "no connection", "invalid", "bad key", "returned", "skipped", "not begun"],
)
def test_what_the_provider_has_not_answered_costs_nothing(outcome: Outcome) -> None:
    desk = Desk(Budget(tokens=10_000))

    desk.settle(desk.sent(), outcome)

    assert desk.spent == (0, 0)


def test_failure_after_a_full_answer_counts_as_told() -> None:
    desk = Desk(Budget(tokens=10_000))

    desk.settle(desk.sent(), failed("invalid", kind="TaskFailed", usage=Usage(20, 5)))

    assert desk.spent == (25, 0)


def test_turn_that_was_sent_before_there_was_a_budget_counts() -> None:
    desk = Desk()
    record = desk.task()
    desk.book.set(Budget(tokens=100))

    desk.settle(record, answered(Usage(20, 50)))

    assert desk.spent == (70, 0)


def test_turn_that_an_earlier_dispatcher_has_sent_is_set_aside_whatever_is_left() -> None:
    desk = Desk(Budget(tokens=150))
    first, second = desk.task(), desk.task()
    desk.gate.hold(first)
    desk.gate.hold(second)
    _, set_aside = desk.spent
    assert set_aside > 150

    assert not desk.gate.reserve(desk.task())
    desk.settle(first, answered(Usage(20, 5)))
    desk.settle(second, None)

    assert desk.spent == (25 + set_aside // 2, 0)


def test_nothing_is_set_aside_for_a_turn_of_an_earlier_dispatcher_without_a_budget() -> None:
    desk = Desk()
    record = desk.task()

    desk.gate.hold(record)

    assert record.reserved is None


def test_spent_budget_lets_nothing_go_says_why_and_is_not_a_matter_of_time() -> None:
    desk = Desk(Budget(tokens=150))
    desk.settle(desk.sent(), answered(Usage(60, 60)))

    assert not desk.gate.reserve(desk.task())

    assert desk.gate.opens_in() is None
    assert desk.gate.why is not None
    assert "120 of 150 tokens" in desk.gate.why


def test_rate_limit_lets_the_next_go_when_it_says() -> None:
    desk = Desk(rate_limit=RateLimit(requests_per_minute=60))
    desk.sent()
    assert not desk.gate.reserve(desk.task())

    assert desk.gate.opens_in() == pytest.approx(1.0)
    desk.clock.advance(1.0)
    assert desk.gate.reserve(desk.task())


def test_gate_that_has_turned_nobody_away_wakes_nobody() -> None:
    desk = Desk(rate_limit=RateLimit(requests_per_minute=60))
    desk.sent()
    assert desk.gate.opens_in() is None
    assert not desk.gate.reserve(desk.task())
    assert desk.gate.opens_in() is not None

    desk.gate.wake()

    assert desk.gate.opens_in() is None


def test_budget_keeps_nothing_for_a_turn_that_the_rate_limit_holds_back() -> None:
    desk = Desk(Budget(tokens=10_000), RateLimit(requests_per_minute=60))
    desk.sent()
    before = desk.spent

    assert not desk.gate.reserve(desk.task())

    assert desk.spent == before


def test_retry_after_holds_everything_back_for_so_long_and_says_so() -> None:
    desk = Desk(rate_limit=RateLimit(requests_per_minute=6_000, adaptive=False))
    refused = Failure("BackendError", "refused", "rate_limit_error", "no", retry_after=20.0)
    desk.settle(desk.sent(), Outcome(1, failure=refused, requests=1))

    assert not desk.gate.reserve(desk.task())

    assert desk.gate.opens_in() == pytest.approx(20.0)
    assert desk.gate.why == ("the rate limit of my-model lets nothing through for another 20 s")
    desk.clock.advance(20.0)
    desk.gate.wake()
    assert desk.gate.reserve(desk.task())


def test_exchange_within_a_task_sets_aside_what_its_conversation_has_already() -> None:
    desk = Desk(Budget(tokens=100_000))
    record = desk.sent()
    desk.settle(record, paused(Usage(4_000, 100)))

    assert desk.gate.reserve(record)

    assert desk.spent[0] == 4_100
    assert desk.spent[1] > 4_200
    desk.settle(record, answered(Usage(4_200, 60)))
    assert desk.spent == (4_100 + 4_260, 0)


def test_next_task_of_a_session_sets_aside_what_the_session_has_already() -> None:
    desk = Desk(Budget(tokens=100_000))
    desk.settle(desk.sent(session="ann"), answered(Usage(4_000, 100)))
    spent = desk.spent[0]

    desk.sent(session="bob")
    assert desk.spent == (spent, desk.spent[1])
    fresh = desk.spent[1]
    desk.sent(session="ann")

    assert desk.spent[1] - fresh > 4_100


def test_worker_with_one_conversation_for_life_sets_aside_all_of_it() -> None:
    desk = Desk(Budget(tokens=100_000), has_memory=True)
    desk.settle(desk.sent(), answered(Usage(4_000, 100)))

    desk.sent()

    assert desk.spent[1] > 4_200


def break_gate(desk: Desk) -> None:
    for _ in range(3):
        desk.settle(desk.task(), failed("fatal"))
    assert desk.gate.is_broken


def test_three_fatal_failures_stop_the_sending_and_it_says_why() -> None:
    desk = Desk()
    break_gate(desk)

    assert not desk.gate.is_wide_open
    assert not desk.gate.reserve(desk.task())

    assert desk.gate.opens_in() == 30.0
    assert desk.gate.why is not None
    assert "Error: no" in desk.gate.why


def test_one_task_is_the_probe_and_its_answer_opens_the_gate() -> None:
    desk = Desk()
    break_gate(desk)
    desk.clock.advance(30.0)
    probe = desk.sent()
    assert not desk.gate.reserve(desk.task())

    desk.settle(probe, answered())

    assert desk.gate.is_wide_open


@pytest.mark.parametrize(
    "outcome",
    [None, failed("refused"), Outcome(1, is_returned=True)],
    ids=["death", "refused", "returned"],
)
def test_probe_that_came_to_nothing_is_followed_by_another(outcome: Outcome | None) -> None:
    desk = Desk()
    break_gate(desk)
    desk.clock.advance(30.0)

    desk.settle(desk.sent(), outcome)

    assert desk.gate.is_broken
    desk.clock.advance(1.0)
    assert desk.gate.reserve(desk.task())


def test_answer_in_between_keeps_the_gate_open() -> None:
    desk = Desk()
    for _ in range(5):
        desk.settle(desk.task(), failed("fatal"))
        desk.settle(desk.task(), failed("fatal"))
        desk.settle(desk.task(), paused(Usage(1, 1)))

    assert desk.gate.is_wide_open


def test_model_without_a_price_is_sent_nothing_under_a_budget_in_usd() -> None:
    desk = Desk(Budget(usd=1.0), terms=Terms("https://api", "key", "their-model"))

    assert not desk.gate.reserve(desk.task())

    assert desk.gate.why is not None
    assert 'prices={"their-model": Price(' in desk.gate.why


def test_backend_without_cost_is_kept_to_no_amount_of_usd() -> None:
    desk = Desk(Budget(usd=0.0), terms=Terms(is_priced=True))

    desk.settle(desk.sent(), answered(cost_usd=0.0))

    assert desk.book.why is None


ENDINGS = ("answered", "paused", "refused", "transient", "died", "returned", "interrupted")


@given(data=st.data())
def test_no_order_of_events_overspends_or_leaks(data: st.DataObject) -> None:
    limit = data.draw(st.integers(0, 3_000))
    desk = Desk(Budget(tokens=limit), RateLimit(requests_per_minute=600))
    out: list[TaskRecord] = []
    waiting: list[TaskRecord] = [desk.task("x" * data.draw(st.integers(1, 400))) for _ in range(20)]
    for _ in range(60):
        sends: bool = data.draw(st.booleans())
        if waiting and sends:
            if desk.gate.reserve(waiting[-1]):
                out.append(waiting.pop())
        elif out:
            record = out.pop(data.draw(st.integers(0, len(out) - 1)))
            waiting += end(desk, record, data.draw(st.sampled_from(ENDINGS)))
        desk.clock.advance(data.draw(st.sampled_from([0.0, 0.05, 1.0])))
        assert sum(desk.spent) <= limit

    for record in out:
        desk.settle(record, answered(Usage(1, 1)))
    assert desk.spent[1] == 0
    assert desk.spent[0] <= limit


def end(desk: Desk, record: TaskRecord, how: str) -> list[TaskRecord]:
    """End an attempt one way or the other; the task, where it goes on."""
    tokens = len(record.task.prompt) // 4
    outcomes = {
        "answered": answered(Usage(tokens, 90)),
        "paused": paused(Usage(tokens, 90)),
        "refused": failed("refused"),
        "transient": failed("transient", usage=Usage(tokens)),
        "died": None,
        "returned": Outcome(1, is_returned=True),
        "interrupted": failed("invalid", kind="Interrupted"),
    }
    desk.settle(record, outcomes[how])
    return [] if how == "answered" else [record]


def test_provider_out_of_reach_stops_the_sending_and_it_says_why() -> None:
    desk = Desk()

    desk.settle(desk.task(), failed("unreachable"))

    assert not desk.gate.is_wide_open
    assert not desk.gate.is_broken
    assert not desk.gate.reserve(desk.task())
    assert desk.gate.opens_in() == 0.5
    assert desk.gate.why is not None
    assert "out of reach" in desk.gate.why


@pytest.mark.parametrize("outcome", [answered(), failed("refused"), failed("fatal")])
def test_whatever_a_probe_is_answered_ends_an_outage(outcome: Outcome) -> None:
    desk = Desk()
    desk.settle(desk.task(), failed("unreachable"))
    desk.clock.advance(0.5)
    probe = desk.sent()
    assert not desk.gate.reserve(desk.task())

    desk.settle(probe, outcome)

    assert not desk.outage.is_open


def test_probe_whose_worker_dies_is_followed_by_another() -> None:
    desk = Desk()
    desk.settle(desk.task(), failed("unreachable"))
    desk.clock.advance(0.5)

    desk.settle(desk.sent(), None)

    assert desk.outage.is_open
    assert desk.gate.reserve(desk.task())


def test_probe_that_still_runs_after_a_while_opens_the_gate() -> None:
    desk = Desk()
    desk.settle(desk.task(), failed("unreachable"))
    desk.clock.advance(0.5)
    desk.sent()
    assert not desk.gate.reserve(desk.task())
    seconds = desk.gate.opens_in()
    assert seconds is not None

    desk.clock.advance(seconds)
    desk.gate.wake()

    assert desk.gate.is_wide_open
