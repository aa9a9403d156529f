"""The scheduler at a gate: what is set aside, who goes first, and what is given back."""

from __future__ import annotations

import pytest

from raypool.config import RetryPolicy
from raypool.messages import Outcome
from raypool.records import AcceptedTask
from raypool.routing import NextFree
from raypool.task_record import TaskRecord
from raypool.window import Window
from tests.gates import NarrowGate
from tests.stage import LONGEST_WAIT, Stage


def narrow(room: int, **options: object) -> tuple[Stage, NarrowGate]:
    gate = NarrowGate(room)
    return Stage(gate=gate, **options), gate  # type: ignore[arg-type]


class WatchedWindow(Window):
    """A window that counts how often its worker is looked at."""

    looks = 0

    def room(self, held: int, *, prefetches: bool = True) -> int:
        self.looks += 1
        return super().room(held, prefetches=prefetches)


def test_nothing_is_sent_for_which_the_gate_has_no_room() -> None:
    stage, gate = narrow(room=1)
    stage.accept(1, 2, 3)

    assert stage.send() == {"crew-1": [1]}
    assert stage.send() == {}
    assert [record.number for record in gate.out] == [1]


def test_task_that_is_taken_over_takes_its_room_at_the_gate() -> None:
    stage, gate = narrow(room=1)
    taken = TaskRecord(AcceptedTask(1, "task-1", "why?"))
    stage.scheduler.take_over(stage.a, taken, is_kept=False)
    stage.accept(2)

    assert stage.send() == {}
    assert [record.number for record in gate.out] == [1]
    stage.answer(stage.a, 1)
    assert stage.send() == {"crew-1": [2]}


def test_what_a_dead_worker_was_not_sent_has_taken_nothing() -> None:
    stage, gate = narrow(room=2, concurrency=2)
    begun, unsent = stage.accept(1, 3, worker="crew-1")
    stage.send()
    stage.a.unsent.add(3)

    stage.scheduler.worker_died(stage.a, "killed", is_coming_back=True)

    assert gate.settled == [(1, None), (3, Outcome(3, is_returned=True))]
    assert (len(begun.deaths), len(unsent.deaths)) == (1, 0)


def test_worker_at_a_gate_is_sent_no_more_than_it_runs_at_once() -> None:
    stage, _ = narrow(room=9, concurrency=2)
    stage.accept(*range(1, 12))

    assert stage.send() == {"crew-1": [1, 3], "crew-2": [2, 4]}


def test_task_that_passes_a_gate_has_one_exchange_and_others_as_many_as_they_take() -> None:
    stage, _ = narrow(room=9)
    [limited] = stage.accept(1)
    stage.send()
    free = Stage()
    [unlimited] = free.accept(1)
    free.send()

    assert limited.assignment().exchanges == 1
    assert unlimited.assignment().exchanges is None


def test_room_that_one_worker_gives_back_goes_to_the_task_that_waits_longest() -> None:
    stage, _ = narrow(room=1)
    stage.accept(1, 2, 3, 4)
    stage.send()

    order: list[tuple[str, list[int]]] = []
    for _ in range(3):
        [worker] = [one for one in stage.workers if one.held]
        stage.answer(worker, next(iter(worker.held)))
        order += stage.send().items()

    assert order == [("crew-2", [2]), ("crew-1", [3]), ("crew-2", [4])]


def test_urgent_task_passes_first_whichever_workers_it_is() -> None:
    stage, _ = narrow(room=1)
    stage.accept(1, 2, 3)
    stage.send()
    stage.accept(4, priority=1)
    stage.answer(stage.a, 1)

    assert stage.send() == {"crew-2": [4]}


def test_urgent_task_of_another_role_passes_before_what_came_to_the_gate_earlier() -> None:
    stage, _ = narrow(room=1, roles=["chemist", "chemist", "historian"], routing=NextFree())
    stage.accept(1, 2, 3, role="chemist")
    stage.accept(4, role="historian")
    stage.send()
    stage.accept(5, role="historian", priority=7)
    stage.answer(stage.a, 1)

    assert stage.send() == {"crew-3": [5]}


def test_worker_that_must_hear_by_itself_what_it_died_of_lets_others_pass() -> None:
    stage, _ = narrow(room=1, routing=NextFree())
    stage.notify(stage.a, 1)
    stage.scheduler.blame_notice(stage.a)
    stage.accept(2, 3)

    assert stage.send() == {"crew-2": [2]}
    assert stage.send() == {}


@pytest.mark.parametrize("routing", [None, NextFree()], ids=["round_robin", "next_free"])
def test_every_way_to_end_an_attempt_gives_back_what_was_set_aside(
    routing: NextFree | None,
) -> None:
    gate = NarrowGate(9)
    stage = Stage(["chemist"], concurrency=9, gate=gate, routing=routing)
    records = stage.accept(*range(1, 8))
    stage.send()
    stage.answer(stage.a, 1)
    stage.fail(stage.a, 2)
    stage.fail(stage.a, 3, "refused")
    stage.settle(stage.a, Outcome(4, is_paused=True))
    stage.scheduler.cancel(records[4])
    stage.scheduler.drop(stage.a, 5)
    stage.hand_back(stage.a, 6)
    stage.die(stage.a)

    assert gate.out == []
    assert gate.room == 9
    assert [number for number, _ in gate.settled] == [1, 2, 3, 4, 5, 6, 7]
    assert [outcome and outcome.is_returned for _, outcome in gate.settled][4:] == [
        True,
        True,
        None,
    ]


def test_paused_chain_goes_on_before_all_others_on_the_worker_that_keeps_it() -> None:
    stage, _ = narrow(room=1)
    [first] = stage.accept(1)
    stage.send()
    stage.accept(2, 3, 4, priority=9)
    stage.settle(stage.a, Outcome(1, is_paused=True))

    assert first.is_kept
    assert stage.send() == {"crew-1": [1]}
    assert first.assignment().attempt == 1
    ending = stage.answer(stage.a, 1)
    assert ending is not None
    assert ending.attempts == 1


def test_paused_chain_of_a_next_free_pool_stays_with_its_worker() -> None:
    stage, gate = narrow(room=2, routing=NextFree())
    stage.accept(1, 2)
    stage.send()
    gate.room = -1
    stage.settle(stage.a, Outcome(1, is_paused=True))
    stage.answer(stage.b, 2)

    assert stage.send() == {"crew-1": [1]}


def test_paused_chain_is_cancelled_at_once_and_its_worker_must_forget_it() -> None:
    stage, gate = narrow(room=1)
    [record] = stage.accept(1)
    stage.send()
    stage.settle(stage.a, Outcome(1, is_paused=True))

    ending = stage.scheduler.cancel(record)

    assert ending is not None
    assert ending.state == "cancelled"
    assert record.is_kept
    assert len(stage.a.line) == 0
    assert gate.out == []


def test_paused_chain_starts_anew_elsewhere_when_its_worker_dies() -> None:
    stage, _ = narrow(room=1)
    [record] = stage.accept(1)
    stage.send()
    stage.settle(stage.a, Outcome(1, is_paused=True))

    stage.die(stage.a)

    assert not record.is_paused
    assert stage.send() == {"crew-2": [1]}
    assert record.tries.deaths == 0


def test_retry_asks_the_gate_again() -> None:
    stage, gate = narrow(room=1)
    stage.accept(1)
    stage.send()
    stage.fail(stage.a, 1)
    gate.room = 0
    stage.wait(LONGEST_WAIT)

    assert stage.send() == {}
    gate.room = 1
    assert stage.send() == {"crew-1": [1]}


def test_worker_whose_task_must_go_alone_waits_at_no_gate() -> None:
    gate = NarrowGate(9)
    stage = Stage(["chemist"], concurrency=2, gate=gate)
    stage.accept(1, 2)
    stage.send()
    for _ in range(2):
        stage.die(stage.a)
        stage.come_back(stage.a)
        sent = stage.send()

    assert sent == {"crew-1": [1]}
    assert stage.send() == {}
    assert [record.number for record in gate.out] == [1]


@pytest.mark.parametrize("room", [0, 5])
def test_worker_that_may_not_have_what_waits_is_looked_at_once(room: int) -> None:
    stage, _ = narrow(room=room, routing=NextFree())
    stage.notify(stage.a, 9)
    stage.a.notices[9].tries.deaths = 1
    stage.scheduler.dismiss(stage.b)

    stage.accept(1)

    assert stage.send() == {}
    stage.a.notices.clear()
    stage.scheduler.resume(stage.a)
    assert stage.send() == ({"crew-1": [1]} if room else {})


@pytest.mark.parametrize("gate", [None, NarrowGate(99)], ids=["no limit", "limit"])
def test_worker_that_is_passed_over_is_looked_at_again_only_after_what_had_to_go_alone(
    gate: NarrowGate | None,
) -> None:
    stage = Stage(
        ["chemist"] * 8,
        concurrency=3,
        policy=RetryPolicy(max_deaths=2),
        routing=NextFree(),
        gate=gate,
    )
    alone, others = stage.workers[:4], stage.workers[4:]
    stage.accept(*range(1, 9))
    stage.send()
    for worker in alone:
        stage.die(worker)
        stage.come_back(worker)
    assert sorted(stage.send()) == ["crew-1", "crew-2", "crew-3", "crew-4"]
    windows = [WatchedWindow(3) for _ in alone]
    for worker, window in zip(alone, windows, strict=True):
        worker.window = window

    stage.answer(others[0], 5)
    stage.answer(others[1], 6)
    stage.answer(others[2], 7)
    stage.answer(others[3], 8)
    stage.accept(*range(9, 21))
    assert sorted(map(len, stage.send().values())) == [3, 3, 3, 3]
    looks = [window.looks for window in windows]

    for worker in others[:3]:
        for number in list(worker.held):
            stage.answer(worker, number)
    stage.die(stage.b)
    stage.come_back(stage.b)
    stage.accept(*range(21, 24))
    assert sorted(map(len, stage.send().values())) == [1, 1, 1, 3]

    assert looks == [1, 1, 1, 1]
    assert all(2 <= window.looks <= 1 + (1 + 3) for window in windows)
