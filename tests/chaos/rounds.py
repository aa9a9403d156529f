"""A round: something is killed at a moment of its life, and what that has cost is counted."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from tests.chaos.backend import MODEL_MARK, answer_to
from tests.chaos.program import CONCURRENCY, WORKERS
from tests.chaos.sights import Mark, Sights, await_that
from tests.chaos.stage import VICTIMS, Program, Shot, Stage, Victim, thaw

Moment: TypeAlias = Literal[
    "before accept",
    "after accept",
    "mid-turn",
    "answered, not committed",
    "during commit",
    "during recovery",
    "twice in a row",
]
MOMENTS: tuple[Moment, ...] = get_args(Moment)

QUESTIONS = 36
MODEL_EVERY = 6
READY_SECONDS = 120.0
ANSWER_SECONDS = 120.0
SIGHT_SECONDS = 20.0
FREEZES = 5
LONGEST_PAUSE: dict[Victim, float] = {
    "worker": 0.3,
    "dispatcher": 1.0,
    "program": 4.0,
    "model server": 0.3,
    "node": 2.0,
    "everything": 4.0,
}


class Stuck(Exception):
    """A pool did not come to what it must come to."""


class Kill(NamedTuple):
    """What ended with a kill.

    Attributes:
        pids: the processes of workers that ended with it.
        ended: the questions whose end was in the ledger before it.
    """

    pids: set[int]
    ended: set[str]


@dataclass
class Verdict:
    """What is found once a round is over.

    Attributes:
        kills: how often it was killed.
        asked: how many questions were asked.
        missing: questions without an end in the ledger.
        twice: ends beyond one for a question.
        wrong: questions with another one's answer, or none.
        again: turns that were run beyond the one that each question needs, without those that
            failed because the model server was killed.
        allowed: how many those may be: turns that ran in what was killed, and had no end in the
            ledger.
        needless: those of them that no kill explains, question by question.
        workers: how many processes of workers ended with what was killed.
        is_seen: the moment came.
        trouble: what did not come, empty when all did.
        seconds: how long it took.
    """

    victim: Victim
    moment: Moment
    kills: int = 0
    asked: int = 0
    missing: int = 0
    twice: int = 0
    wrong: int = 0
    again: int = 0
    allowed: int = 0
    needless: int = 0
    workers: int = 0
    is_seen: bool = True
    trouble: str = ""
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, nothing recorded twice, and no turn run needlessly."""
        lost = self.missing or self.twice or self.wrong or self.trouble
        return not lost and not self.needless


def plan(rounds: int, seed: int) -> Iterator[tuple[Victim, Moment]]:
    """What to kill and when: each victim once in six rounds, at each moment once in seven times."""
    chance = random.Random(seed)
    moments = {victim: chance.sample(MOMENTS, len(MOMENTS)) for victim in VICTIMS}
    for number in range(rounds):
        block, place = divmod(number, len(VICTIMS))
        if place == 0:
            victims = chance.sample(VICTIMS, len(VICTIMS))
        yield victims[place], moments[victims[place]][block % len(MOMENTS)]


def play(directory: Path, *, rounds: int, seed: int) -> Iterator[Verdict]:
    """Play rounds on one ledger; after one that is stuck, on another."""
    chance = random.Random(seed)
    stage = Stage(directory / "0")
    killed: set[int] = set()
    try:
        for number, (victim, moment) in enumerate(plan(rounds, seed)):
            started = time.monotonic()
            one = Round(stage, f"r{number}-", victim, moment, chance)
            try:
                one.run()
            except Stuck as error:
                one.verdict.trouble = str(error)
                stage.clear_away()
                stage = Stage(directory / str(number + 1))
            one.verdict.seconds = time.monotonic() - started
            killed |= one.killed
            late = _count_late(stage, one.name, killed)
            one.verdict.again += late
            one.verdict.needless += late
            yield one.verdict
    finally:
        stage.clear_away()


def _count_late(stage: Stage, name: str, killed: set[int]) -> int:
    """How many turns of earlier rounds were begun after those, by what was not killed."""
    late = 0
    for mark in Sights(stage.turns, stage.ledger).forget_marks():
        is_earlier = not mark.question.startswith(name)
        late += is_earlier and mark.what == "begun" and mark.pid not in killed
    return late


@dataclass
class Round:
    """One victim, one moment; two kills where the moment asks for them."""

    stage: Stage
    name: str
    victim: Victim
    moment: Moment
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)
    batches: dict[str, list[str]] = field(default_factory=dict)
    asker: Program | None = None
    seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.verdict = Verdict(self.victim, self.moment)
        self.sights = Sights(self.stage.turns, self.stage.ledger)

    @property
    def killed(self) -> set[int]:
        """The processes of workers that have ended."""
        return set().union(*(one.pids for one in self.kills))

    def run(self) -> None:
        """Ask, kill, resume, and judge.

        Raises:
            Stuck: something did not come in time.
        """
        self._resume()
        if self.victim == "node" and not self.stage.aim("node", self.chance).pids:
            self.stage.end_program()
            self._resume()
        if self.victim == "model server":
            self._ask("warm", WORKERS)
            self._await_answers()
        if self.moment == "before accept":
            self._kill_before_accept()
        else:
            self._ask("a", QUESTIONS)
            self._kill_at_the_moment()
        if self.moment in ("during recovery", "twice in a row"):
            self._kill_again()
        self._resume()
        self._await_answers()
        self._judge()

    def _resume(self) -> None:
        """Start what is not there; a new program asks again what an earlier one has asked."""
        self.stage.set_up()
        program = self.stage.program
        if not program.await_line("ready", READY_SECONDS):
            raise Stuck("no pool was ready")
        if program is not self.asker:
            self.asker = program
            for batch, questions in self.batches.items():
                program.ask(self.name + batch, questions)

    def _ask(self, batch: str, count: int) -> None:
        every = 1 if batch == "warm" else MODEL_EVERY
        names = [f"{self.name}{batch}-{number}" for number in range(count)]
        if self.victim == "model server":
            names[::every] = [f"{name}-{MODEL_MARK}" for name in names[::every]]
        self.batches[batch] = names
        assert self.asker is not None
        self.asker.ask(self.name + batch, names)

    def _await_answers(self) -> None:
        for batch in self.batches:
            assert self.asker is not None
            if not self.asker.await_line(f"answered {self.name}{batch}", ANSWER_SECONDS):
                raise Stuck(f"batch {batch!r} was not answered")

    def _kill_before_accept(self) -> None:
        frozen = self.stage.freeze()
        self._ask("a", QUESTIONS)
        assert self.asker is not None
        self.asker.await_line(f"submitted {self.name}a", SIGHT_SECONDS)
        self._kill()
        thaw(frozen)

    def _kill_at_the_moment(self) -> None:
        if self.moment == "after accept":
            self._see(lambda: len(self.sights.rows(self.name)) >= QUESTIONS)
            self._kill()
        elif self.moment == "answered, not committed":
            self._kill_with_answers_on_their_way()
        elif self.moment == "during commit":
            self._see(lambda: self._marks("answered"))
            ended = self.sights.ended(self.name)
            shot = self._aim()
            self.verdict.is_seen &= self.sights.await_write(SIGHT_SECONDS)
            self._shoot(shot, ended)
        else:
            begun = self.chance.randint(1, WORKERS * CONCURRENCY)
            self._see(lambda: len(self._marks("begun")) >= begun)
            self._kill()

    def _kill_with_answers_on_their_way(self) -> None:
        """The dispatcher cannot record what it cannot hear of."""
        self._see(lambda: self._marks("begun"))
        for _ in range(FREEZES):
            frozen = self.stage.freeze()
            ended = self.sights.ended(self.name)
            if await_that(lambda: self._answered() - ended, 1.0):  # noqa: B023 - used at once
                break
            thaw(frozen)
        else:
            self.verdict.is_seen = False
        self._shoot(self._aim(), ended)
        thaw(frozen)

    def _kill_again(self) -> None:
        """Once what was killed begins to come back, or is back at work."""
        if self.victim in ("program", "everything", "node"):
            self.stage.set_up()
        else:
            self._see(lambda: {one.pid for one in self.stage.find(self.victim)} - self.seen)
        if self.moment == "twice in a row":
            self._resume()
            self._ask("b", QUESTIONS)
            self._see(lambda: any("-b-" in mark.question for mark in self._marks("begun")))
        else:
            time.sleep(self.chance.uniform(0.0, LONGEST_PAUSE[self.victim]))
        self._kill()

    def _kill(self) -> None:
        self._shoot(self._aim(), self.sights.ended(self.name))

    def _aim(self) -> Shot:
        if self.victim in ("worker", "dispatcher", "model server"):
            self.seen |= {one.pid for one in self.stage.find(self.victim)}
        return self.stage.aim(self.victim, self.chance)

    def _shoot(self, shot: Shot, ended: set[str]) -> None:
        self.stage.shoot(shot)
        if shot.processes:
            self.kills.append(Kill(shot.pids, ended))

    def _see(self, condition: Callable[[], object]) -> None:
        """Wait for the moment; note when it does not come within reason."""
        self.verdict.is_seen &= await_that(condition, SIGHT_SECONDS)

    def _marks(self, what: str) -> list[Mark]:
        marks = self.sights.marks()
        return [one for one in marks if one.what == what and one.question.startswith(self.name)]

    def _answered(self) -> set[str]:
        return {mark.question for mark in self._marks("answered")}

    def _judge(self) -> None:
        asked = {question for batch in self.batches.values() for question in batch}
        rows = self.sights.rows(self.name)
        found = Counter(row.question for row in rows if row.state is not None)
        right = {row.question for row in rows if row.text == answer_to(row.question)}
        begun = self._marks("begun")
        verdict = self.verdict
        verdict.kills = len(self.kills)
        verdict.workers = len(self.killed)
        verdict.asked = len(asked)
        verdict.missing = len(asked - set(found))
        verdict.twice = sum(found.values()) - len(found)
        verdict.wrong = len(set(found) - right) + len(set(found) - asked)
        turns = Counter(mark.question for mark in begun)
        turns.subtract(mark.question for mark in self._marks("failed"))
        allowed = Counter(
            mark.question
            for kill in self.kills
            for mark in begun
            if mark.pid in kill.pids and mark.question not in kill.ended
        )
        verdict.again = turns.total() - len(asked)
        verdict.allowed = allowed.total()
        verdict.needless = sum(max(0, turns[one] - 1 - allowed[one]) for one in asked)
