"""An agent that does what its tasks say, and keeps a journal of its callbacks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raypool import Agent, Halt, Pool, Prompt, Response, Skip, TaskFailed
from raypool.agent import Turn
from raypool.task import Content

JOURNAL = "journal?"


class Acting(Agent):
    """Reads what to decide from each task's metadata, and from each event.

    - `then`: what to ask next, one prompt after another; `endless`: the same for ever;
    - `halt`, `halt_first`: halt after, or before, the turn, for that reason;
    - `skip`: skip the task, for that reason; `instead`: ask this instead;
    - `after_error`: what to ask when a turn has failed; `block`: seconds to block a callback for;
    - `returns`: what `handle_response` returns.
    """

    def __init__(self) -> None:
        self.journal: list[Any] = []

    def pre_turn(self, turn: Turn, prompt: Content) -> Content | Skip | Halt | None:
        if prompt == JOURNAL:
            return json.dumps(self.journal)
        act = turn.task.metadata or {}
        self.journal.append(["pre_turn", prompt])
        if "halt_first" in act:
            return Halt(act["halt_first"])
        return Skip(act["skip"]) if "skip" in act else act.get("instead")

    def handle_response(self, turn: Turn, response: Response) -> Prompt | Halt | None:
        act = turn.task.metadata or {}
        time.sleep(act.get("block", 0.0))
        if turn.task.id.startswith(JOURNAL):
            return None
        self.journal.append(["handle_response", response.text])
        if "returns" in act:
            returned: Any = act["returns"]
            return returned  # type: ignore[no-any-return]
        if "endless" in act:
            return Prompt(act["endless"])
        following = act.get("then", [])[turn.number - 1 :]
        if following:
            return Prompt(following[0])
        return Halt(act["halt"]) if "halt" in act else None

    def handle_error(self, turn: Turn, error: TaskFailed) -> Prompt | None:
        self.journal.append(["handle_error", type(error).__name__])
        act = turn.task.metadata or {}
        return Prompt(act["after_error"]) if "after_error" in act else None

    def handle_event(self, event: Any) -> Prompt | Halt | None:
        self.journal.append(["handle_event", event])
        if not isinstance(event, dict):
            return None
        if "notify" in event:
            self.pool.notify(event["notify"], event["with"])
        if "halt" in event:
            return Halt(event["halt"])
        return Prompt(event["ask"]) if "ask" in event else None

    def post_run(self) -> None:
        self.journal.append(["post_run"])


def journal_of(pool: Pool, role: str) -> list[Any]:
    """What the only worker of that role has done so far, this question left out."""
    future = pool.submit(JOURNAL, role=role, id=f"{JOURNAL} {time.monotonic_ns()}")
    text = future.result(timeout=30).text
    entries: list[Any] = json.loads(text[text.index("[") :])
    return entries


@contextmanager
def new_entries(pool: Pool, role: str) -> Iterator[list[Any]]:
    """What the worker has added to its journal within the block; there once that is left."""
    entries: list[Any] = []
    before = len(journal_of(pool, role))
    yield entries
    entries += journal_of(pool, role)[before:]


def seconds_of(prompt: str) -> float:
    """The latency that a prompt like `0.2 a question` asks for; none otherwise."""
    try:
        return float(prompt.split(maxsplit=1)[0])
    except ValueError:
        return 0.0


def worker_of(pool: Pool, role: str) -> str:
    """The first worker of that role."""
    return next(name for name, one in pool.workers.items() if one == role)
