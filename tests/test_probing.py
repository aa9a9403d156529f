"""What a breaker that is open leaves to the scheduler: which tasks are tried, and which fail."""

from __future__ import annotations

from raypool.capacity.alone import LoneShare
from raypool.capacity.breaker import Breaker
from raypool.capacity.budget import BudgetBook
from raypool.capacity.limit_gate import LimitGate
from raypool.capacity.outage import Outage
from raypool.capacity.usage_log import UsageLog
from raypool.messages import Terms
from raypool.routing import NextFree
from tests.stage import Stage

BAD = frozenset({1, 2, 3, 4})
LAST = 20
PATIENCE_SECONDS = 600.0


def stage_at_a_breaker() -> Stage:
    """Two workers behind one gate, whose breaker is closed."""
    stage = Stage(("chemist", "chemist"), routing=NextFree())
    share = LoneShare(stage.clock)
    gate = LimitGate(
        Terms(),
        share,
        BudgetBook(None),
        Breaker(stage.clock),
        Outage(stage.clock),
        log=UsageLog(share, stage.clock),
        table={},
    )
    for worker in stage.workers:
        worker.gate = gate
    stage.gate = gate
    stage.scheduler.roster.sort()
    return stage


def test_tasks_that_no_probe_succeeds_with_do_not_hold_up_the_others_for_ever() -> None:
    stage = stage_at_a_breaker()
    stage.accept(*range(1, LAST + 1))
    failed: dict[int, str | None] = {}
    answered: list[int] = []

    started = stage.clock.monotonic()
    while stage.clock.monotonic() < started + PATIENCE_SECONDS:
        sent = stage.send()
        for name, numbers in sent.items():
            worker = stage.scheduler.roster[name]
            for number in numbers:
                if number not in BAD:
                    stage.answer(worker, number)
                    answered.append(number)
                elif (ending := stage.fail(worker, number, "fatal")) is not None:
                    failed[number] = ending.state
        if not sent:
            due = stage.scheduler.due_in()
            if due is None:
                break
            stage.clock.advance(due + 0.001)
            stage.scheduler.wake()

    assert failed == dict.fromkeys(BAD, "failed")
    assert sorted(answered) == [number for number in range(1, LAST + 1) if number not in BAD]
