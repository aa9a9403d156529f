"""Whatever is asked, cancelled, watched and killed: it is all the same where tasks wait."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypool.lane import lane_of
from raypool.messages import Submission
from tests.house import House

CLIENTS = ["mine", "yours"]

pytestmark = pytest.mark.timeout(300)


class Ask(NamedTuple):
    """Submit as many tasks as there are places in lanes; a number asks for a known id again."""

    client: str
    tasks: list[tuple[str | None, int] | str | int]


class Cancel(NamedTuple):
    choices: list[int]


class Watch(NamedTuple):
    client: str
    choice: int


class Do(NamedTuple):
    """One of the plain things that may happen, so many times."""

    what: str
    times: int = 1


Step: TypeAlias = Ask | Cancel | Watch | Do

clients = st.sampled_from(CLIENTS)
choices = st.integers(0, 1_000)
lanes = st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([0, 0, 0, 5]))
plain = st.just((None, 0))
asked = st.lists(
    plain | plain | lanes | st.sampled_from(["chat", "talk"]) | choices, min_size=1, max_size=14
)
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Ask, clients, asked),
    st.builds(Ask, clients, asked),
    st.builds(Cancel, st.lists(choices, min_size=1, max_size=6)),
    st.builds(Watch, clients, choices),
    st.builds(Do, st.just("breathe"), st.integers(1, 40)),
    st.builds(Do, st.sampled_from(["hold", "let go", "close", "open", "wait", "restart"])),
    st.builds(Do, st.just("fail"), st.integers(1, 3)),
)


class Story:
    """Plays steps, and knows what must have come of them in the end."""

    def __init__(self) -> None:
        self.house = House(most=4, fewest=2)
        self.ids: list[str] = []
        self.cancelled: set[str] = set()
        self.tickets: defaultdict[str, int] = defaultdict(int)
        self.expected: dict[tuple[str, int], str] = {}
        self.delivered: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self.background: set[asyncio.Task[None]] = set()
        self.waits: set[asyncio.Task[None]] = set()

    async def play(self, steps: list[Step]) -> None:
        await self.house.resume()
        for client in CLIENTS:
            self.house.desks.of(client)
        for step in steps:
            match step:
                case Ask():
                    self._ask(step)
                case Cancel():
                    ids = [self.ids[one % len(self.ids)] for one in step.choices if self.ids]
                    self.cancelled.update(ids)
                    self.house.unshelving.cancel_all(ids)
                case Watch() if self.ids:
                    self._begin(self._watch(step.client, self.ids[step.choice % len(self.ids)]))
                case Do():
                    await self._do(step)
        await self._end()
        await self._check()

    def _ask(self, step: Ask) -> None:
        submissions = []
        for one in step.tasks:
            ticket = self._ticket(step.client)
            if isinstance(one, int) and self.ids:
                task_id = self.ids[one % len(self.ids)]
            else:
                task_id = f"task-{len(self.ids) + 1}"
                self.ids.append(task_id)
            session = one if isinstance(one, str) else None
            tenant, priority = one if isinstance(one, tuple) else (None, 0)
            submissions.append(
                Submission(
                    ticket, task_id, task_id, session=session, tenant=tenant, priority=priority
                )
            )
        self._begin(self._submit(step.client, submissions))

    async def _submit(self, client: str, submissions: list[Submission]) -> None:
        receipt = await self.house.submit(client, *submissions)
        refused = {one.ticket for one in receipt.refusals}  # a known id in another session
        for one in submissions:
            if one.ticket not in refused:
                self.expected[client, one.ticket] = one.id

    async def _watch(self, client: str, task_id: str) -> None:
        ticket = self._ticket(client)
        found = await self.house.watching.watch(client, ticket, task_id)
        if found is not None:
            self.expected[client, ticket] = task_id
            if found.ending is not None:
                self.delivered[client, ticket].append(found.ending.number)

    async def _wait(self) -> None:
        house, last = self.house, self.house.intake.last_assigned
        await house.sender.finish_up_to(last)
        await house.ledger.record([])
        assert all(task.number > last for task in house.file.unfinished(0, 10_000))

    async def _do(self, step: Do) -> None:
        match step.what:
            case "breathe":
                for _ in range(step.times):
                    await asyncio.sleep(0)
            case "hold" | "let go":
                for link in self.house.links.values():
                    (link.gate.clear if step.what == "hold" else link.gate.set)()
            case "close":
                self.house.file.gate.clear()
            case "open":
                self.house.file.gate.set()
            case "fail":
                self.house.file.failures = step.times
            case "wait":
                self.waits.add(asyncio.create_task(self._wait()))
            case "restart":
                await self._restart()

    async def _restart(self) -> None:
        await self._come_to_rest()
        for wait in self.waits:
            wait.cancel()
        self.waits.clear()
        self.house.file.failures = 0
        self._check_what_was_sent()
        old, self.house = self.house, await self.house.restart()
        await self._collect(old)
        await self.house.resume()
        for client in CLIENTS:
            self.house.desks.of(client)
            open_ones = [
                (ticket, task_id)
                for (one, ticket), task_id in self.expected.items()
                if one == client and not self.delivered[one, ticket]
            ]
            for delivery in await self.house.watching.watch_all(client, open_ones):
                assert delivery.ending is not None
                self.delivered[client, delivery.ticket].append(delivery.ending.number)

    async def _come_to_rest(self) -> None:
        self.house.file.gate.set()
        await asyncio.gather(*self.background)

    async def _end(self) -> None:
        for what in ("open", "let go"):
            await self._do(Do(what))
        async with asyncio.timeout(60):
            await self._come_to_rest()
            await self.house.finish()
            await asyncio.gather(*self.waits)
        await self.house.die()

    async def _check(self) -> None:
        self._check_what_was_sent()
        await self._collect(self.house)
        file = self.house.file
        ends = {end.task.id: end for end in file.ended(0, 10_000)}
        assert file.totals().unfinished == self.house.scheduler.unfinished == 0
        assert set(ends) == set(self.ids)
        assert {end.task.id for end in ends.values() if end.ending.state != "completed"} <= (
            self.cancelled
        )
        assert {key: ends[task_id].task.number for key, task_id in self.expected.items()} == {
            key: number for key in self.expected for number in self.delivered[key]
        }
        assert all(len(numbers) == 1 for numbers in self.delivered.values())
        await self.house.ledger.close()

    async def _collect(self, house: House) -> None:
        for client in CLIENTS:
            for one in await house.desks.of(client).collect(0.0):
                assert one.ending is not None
                self.delivered[client, one.ticket].append(one.ending.number)

    def _check_what_was_sent(self) -> None:
        """Nothing twice, and each worker has had the tasks of a lane in their order."""
        sent = self.house.sent()
        assert len(sent) == len(set(sent))
        known = {task.number: task for task in self.house.file.unfinished(0, 10_000)}
        known |= {end.task.number: end.task for end in self.house.file.ended(0, 10_000)}
        for link in self.house.links.values():
            by_lane: defaultdict[object, list[int]] = defaultdict(list)
            for number in [number for envelope in link.envelopes for number in envelope]:
                lane = lane_of(known[number])
                if lane is not None:
                    by_lane[lane].append(number)
            for numbers in by_lane.values():
                assert all(one < two for one, two in pairwise(numbers))

    def _ticket(self, client: str) -> int:
        self.tickets[client] += 1
        return self.tickets[client]

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(steps, min_size=3, max_size=25))
def test_no_task_is_lost_run_twice_or_out_of_order_and_all_who_wait_are_told(
    steps: list[Step],
) -> None:
    async def story() -> None:
        await Story().play(steps)

    asyncio.run(story())
