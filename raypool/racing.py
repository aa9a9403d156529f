"""The verbs of a pool that have several workers answer one question."""

from __future__ import annotations

from typing import Any

from raypool.errors import InvalidTask
from raypool.races import (
    Key,
    RaceFuture,
    any_answer,
    check_agree,
    check_count,
    check_key,
    same_answer,
    tasks_of_race,
)
from raypool.submitting import Submitting, may_block, task_of
from raypool.task import Content, Task


class Racing(Submitting):
    """Has tasks race, each on a worker of its own."""

    def first(
        self,
        prompt: Content | Task,
        n: int = 2,
        *,
        role: str | None = None,
        id: str | None = None,  # noqa: A002 - the contract's word
        metadata: Any = None,
        timeout: float | None = None,
        output_type: Any = None,
        priority: int = 0,
        tenant: str | None = None,
        block: bool = True,
    ) -> RaceFuture:
        """Have `n` workers answer the same, and take the first good answer.

        The others are cancelled then: those that wait are dropped, those that run are
        interrupted. What each of them came to and what it cost is in the pool's results,
        under the ids `<id>/1`, `<id>/2` and so on, and in `RaceFuture.losers`. It fails only
        when all have failed, with what the last of them has failed with.

        Args:
            prompt: as in `submit`; a `Task` brings its own options.
            n: how many workers; at most as many as the pool has now, of that role.
            role: the role that must answer.
            id: the race's name for ever; a second race with it gives the same answer.
            metadata: whatever JSON can hold; comes back on each task's result.
            timeout: the longest that one turn may run, in seconds.
            output_type: what each answer must be.
            priority: of the tasks that wait, those with a higher one go first.
            tenant: on whose account it is.
            block: wait for room, as in `submit`; a race takes `n` tasks' room.

        Raises:
            InvalidTask: the prompt or an option is wrong, there are not so many workers, or a
                `Task` is in a session, streams or is hedged.
            UnknownRole, PoolFull, PoolStopped: as `submit`.
        """
        options = (role, id, metadata, timeout, None, output_type, False, priority, tenant)
        return self._race(task_of(prompt, *options), n, agree=1, key=any_answer, block=block)

    def quorum(
        self,
        prompt: Content | Task,
        n: int = 5,
        agree: int = 3,
        key: Key | None = None,
        *,
        role: str | None = None,
        id: str | None = None,  # noqa: A002 - the contract's word
        metadata: Any = None,
        timeout: float | None = None,
        output_type: Any = None,
        priority: int = 0,
        tenant: str | None = None,
        block: bool = True,
    ) -> RaceFuture:
        """Have `n` workers answer the same, until `agree` of them say the same.

        The future then gives the first of the answers that agree. As soon as that is certain,
        or certain not to happen, the tasks that have not ended are cancelled as in `first`. In
        the latter case it raises a `TaskFailed` whose cause says how the votes fell.

        Args:
            prompt: as in `submit`; a `Task` brings its own options.
            n: how many workers; at most as many as the pool has now, of that role.
            agree: how many answers must agree.
            key: from a `Response` to what answers agree by, compared with `==`; runs on a
                thread of raypool's and must not block, and when it raises, that answer does not
                count. `None`: the text, whatever its case and the white space around it; what
                was parsed, with an `output_type`.
            role: the role that must answer.
            id: the race's name for ever; a second race with it counts the same answers.
            metadata: whatever JSON can hold; comes back on each task's result.
            timeout: the longest that one turn may run, in seconds.
            output_type: what each answer must be.
            priority: of the tasks that wait, those with a higher one go first.
            tenant: on whose account it is.
            block: wait for room, as in `submit`; a race takes `n` tasks' room.

        Raises:
            InvalidTask: as `first`, or `agree` is not from 1 to `n`.
            UnknownRole, PoolFull, PoolStopped: as `submit`.
        """
        options = (role, id, metadata, timeout, None, output_type, False, priority, tenant)
        task = task_of(prompt, *options)
        same = same_answer if key is None else key
        return self._race(task, n, agree=agree, key=same, block=block)

    def _race(self, task: Task, n: int, *, agree: int, key: Key, block: bool) -> RaceFuture:
        self._check(task)
        check_count(n)
        check_agree(agree, n)
        check_key(key)
        self._check_workers(n, task.role)
        race, tasks = tasks_of_race(task, n)
        for one in tasks:
            self._check(one)
        client = self._client
        futures = client.submit(tasks, block=may_block(block), race=race)
        return RaceFuture(client, race, futures, agree=agree, key=key)

    def _check_workers(self, n: int, role: str | None) -> None:
        count = sum(role in (None, one) for one in self.workers.values())
        if n > count:
            of_role = "" if role is None else f" with the role {role!r}"
            raise InvalidTask(
                f"n must be at most the number of workers{of_role}, each task of a race runs on "
                f"one of its own: pool {self.name!r} has {count} now, got {n}"
            )
