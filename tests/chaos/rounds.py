"""Rounds of kills on one ledger, and what they have cost."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from raypool.sqlite_ledger import SqliteLedger
from tests.chaos.killer import TURNS_LOST, VICTIMS, Program, Victim, pause
from tests.chaos.program import answer_to, questions

END_SECONDS = 180.0
KILLS_OF_A_PROGRAM = 3


class Verdict(NamedTuple):
    """What is found in the ledger once all was answered.

    Attributes:
        asked: how many tasks were asked.
        missing: tasks without an answer.
        twice: answers beyond one for a task.
        wrong: tasks with another task's answer, or none of the right ones.
        turns: turns that were run.
        allowed: turns that the kills may have led to at most.
        kills: how often each kind was killed.
    """

    asked: int
    missing: int
    twice: int
    wrong: int
    turns: int
    allowed: int
    kills: Counter[Victim]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, nothing recorded twice, and no turn run needlessly."""
        return not (self.missing or self.twice or self.wrong) and self.turns <= self.allowed


def run(directory: Path, *, kills: int, tasks: int, seed: int) -> Verdict:
    """Have `tasks` answered while `kills` kills happen, as `seed` decides."""
    chance = random.Random(seed)
    turns = directory / "turns"
    turns.mkdir(parents=True)
    ledger, log = directory / "run.db", directory / "programs.log"
    killed: Counter[Victim] = Counter()
    while killed.total() < kills:
        program = Program(ledger, turns, tasks, log)
        try:
            killed += _harass(program, chance, min(KILLS_OF_A_PROGRAM, kills - killed.total()))
        finally:
            program.clear_away()
    program = Program(ledger, turns, tasks, log)
    try:
        assert program.wait(END_SECONDS) == 0, log.read_text()[-5_000:]
    finally:
        program.clear_away()
    return _judge(ledger, turns, tasks, killed)


def _harass(program: Program, chance: random.Random, most: int) -> Counter[Victim]:
    """Kill parts of a program until it ends, or as often as told; which."""
    killed: Counter[Victim] = Counter()
    if chance.random() < 0.75:
        program.wait_for("submitted" if chance.random() < 0.75 else "started")
    while killed.total() < most and not program.has_ended:
        pause(chance)
        victim = chance.choice(VICTIMS)
        killed[victim] += program.kill(victim, chance)
        if victim in ("program", "everything") or chance.random() < 0.2:
            break
    return killed


def _judge(ledger: Path, turns: Path, tasks: int, kills: Counter[Victim]) -> Verdict:
    answers: dict[str, list[str | None]] = {one: [] for one in questions(tasks)}
    after, strangers = 0, 0
    with closing(SqliteLedger(ledger)) as opened:
        while page := opened.ended(after, 1_000):
            for one in page:
                if one.task.id in answers:
                    answers[one.task.id].append(one.ending.text)
                else:
                    strangers += 1
            after = page[-1].position
    wrong = sum(any(text != answer_to(one) for text in texts) for one, texts in answers.items())
    return Verdict(
        asked=tasks,
        missing=sum(not texts for texts in answers.values()),
        twice=sum(max(0, len(texts) - 1) for texts in answers.values()),
        wrong=wrong + strangers,
        turns=sum(1 for _ in turns.iterdir()),
        allowed=tasks + sum(TURNS_LOST[victim] * count for victim, count in kills.items()),
        kills=kills,
    )
