"""Random lives of a worker, held to a model of it and to what is promised of any."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.turns.model import Before, Decided, EventPlan, Model, Plan, Reply, TurnPlan
from tests.turns.world import COMES_AGAIN, Acting, AsyncActing, DefActing, World

pytestmark = pytest.mark.timeout(120)

FIRST_EVENT = 1000

turn_plans = st.builds(
    TurnPlan,
    before=st.sampled_from(["nothing"] * 4 + list(get_args(Before))),
    calls=st.booleans(),
    reply=st.sampled_from(["answers"] * 2 + list(get_args(Reply))),
    response=st.sampled_from(["nothing", "prompt", "prompt", *get_args(Decided)]),
    error=st.sampled_from(["nothing", "prompt", *get_args(Decided)]),
    looks_back=st.sampled_from(["nothing", "nothing", "raises"]),
)
plans = st.builds(Plan, st.lists(turn_plans, max_size=3).map(tuple))
event_plans = st.builds(EventPlan, st.sampled_from(["nothing", *get_args(Decided)]), plans)
allowances = st.sampled_from([None, None, 0, 1, 1, 2])
posts = st.tuples(st.just("post"), st.tuples(plans, allowances))
steps = st.one_of(
    posts,
    posts,
    st.tuples(st.just("reply"), st.integers(0, 9)),
    st.tuples(st.just("reply"), st.integers(0, 9)),
    st.tuples(st.just("notify"), event_plans),
    st.tuples(st.just("again"), st.tuples(st.integers(0, 9), allowances)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["interrupt", "pass_time", "resume"]), st.none()),
)
lives = st.lists(steps, max_size=25)
kinds = st.sampled_from([DefActing, AsyncActing])


class Life:
    """A worker that lives through steps; with one slot, its model beside it.

    Attributes:
        cancelled: the tasks that were cancelled before they had an end.
    """

    def __init__(self, world: World, *, slots: int) -> None:
        self.world = world
        self.model = Model() if slots == 1 else None
        self.tasks: list[int] = []
        self.events: list[int] = []
        self.cancelled: set[int] = set()

    def take(self, step: tuple[str, Any]) -> None:
        name, argument = step
        getattr(self, name)(argument)
        if self.model is not None:
            assert self.world.agent.journal == self.model.journal
            assert self.world.ended == self.model.ended
            assert self.world.halts == self.model.halts

    def post(self, sent: tuple[Plan, int | None]) -> None:
        self.tasks.append(len(self.tasks) + 1)
        self._send(self.tasks[-1], *sent)

    def again(self, sent: tuple[int, int | None]) -> None:
        """Send a task that came back once more."""
        which, exchanges = sent
        waiting = [
            number
            for number, what in self.world.ended.items()
            if what in COMES_AGAIN and number not in self.cancelled
        ]
        if waiting:
            number = waiting[which % len(waiting)]
            del self.world.ended[number]
            if self.model is not None:
                del self.model.ended[number]
            self._send(number, self.world.book.plans[number], exchanges)

    def notify(self, plan: EventPlan) -> None:
        self.events.append(FIRST_EVENT + len(self.events))
        if self.model is not None:
            self.model.notify(self.events[-1], plan)
        self.world.notify(self.events[-1], plan)

    def reply(self, which: int) -> None:
        running = list(self.world.backend.turns)
        if running:
            if self.model is not None:
                self.model.reply()
            self.world.reply(running[which % len(running)])

    def interrupt(self, _: None) -> None:
        running = len(self.world.backend.turns)
        if self.model is not None:
            self.model.cut_short()
        assert self.world.interrupt() == running

    def pass_time(self, _: None) -> None:
        if self.model is not None:
            self.model.cut_short()
        self.world.pass_time()

    def resume(self, _: None) -> None:
        if self.model is not None:
            self.model.resume()
        self.world.resume()

    def cancel(self, which: int) -> None:
        if not self.tasks:
            return
        number = self.tasks[which % len(self.tasks)]
        has_ended = self.world.ended.get(number, "again") not in COMES_AGAIN
        if has_ended or number in self.cancelled:
            return
        if self.model is not None:
            self.model.cancel(number)
        self.world.cancel(number)
        self.cancelled.add(number)

    def end(self) -> None:
        """Go on until everything has ended."""
        for _ in range(500):
            self.take(("resume", None))
            if self.world.backend.turns:
                self.take(("reply", 0))
            elif any(self._waits(number) for number in self.world.ended):
                self.take(("again", (0, 1)))
            elif not self.world.host.running:
                return
        raise AssertionError(f"it does not end: {self.world.ended}")

    def _waits(self, number: int) -> bool:
        return self.world.ended[number] in COMES_AGAIN and number not in self.cancelled

    def _send(self, number: int, plan: Plan, exchanges: int | None) -> None:
        if self.model is not None:
            self.model.post(number, plan, self.world.attempt_of(number), exchanges)
        self.world.post(number, plan, exchanges)


@contextmanager
def life(kind: type[Acting], slots: int) -> Iterator[Life]:
    """A worker that stops after the block; what it logs of raising callbacks is not of interest."""
    logging.disable(logging.CRITICAL)
    world = World(kind, slots)
    try:
        yield Life(world, slots=slots)
    finally:
        world.stop()
        logging.disable(logging.NOTSET)


TURNS = re.compile(r"(P|PET|PRT)*")
"""What may be told of a task's turns: before it; then an error or a response, and a look back."""


def check_promises(lived: Life) -> None:
    """What holds for any worker that has ended everything."""
    world = lived.world
    journal = world.agent.journal
    assert world.agent.most <= 1, "two callbacks ran at the same time"
    heard = [page[1] for page in journal if page[0] == "handle_event"]
    assert heard == lived.events, "an event was lost, or heard out of order"
    for number in [*lived.tasks, *lived.events]:
        ends = world.ends[number] + (number in lived.cancelled and world.ends[number] == 0)
        assert ends == 1, f"{number} ended {ends} times"
        told = "".join(
            {"pre_turn": "P", "handle_error": "E", "handle_response": "R", "post_turn": "T"}[
                str(page[0])
            ]
            for page in journal
            if page[0] != "handle_event" and page[1:2] == (number,)
        )
        assert TURNS.fullmatch(told), f"callbacks of {number} ran as {told}"


@settings(max_examples=120, deadline=None)
@given(kind=kinds, lived=lives)
def test_worker_with_one_slot_does_what_its_model_does(
    kind: type[Acting], lived: list[tuple[str, Any]]
) -> None:
    with life(kind, slots=1) as one:
        for step in lived:
            one.take(step)
        one.end()

        check_promises(one)


@settings(max_examples=80, deadline=None)
@given(kind=kinds, lived=lives)
def test_worker_with_many_slots_keeps_its_promises(
    kind: type[Acting], lived: list[tuple[str, Any]]
) -> None:
    with life(kind, slots=3) as one:
        for step in lived:
            one.take(step)
            assert len(one.world.backend.turns) <= 3
        one.end()

        check_promises(one)
