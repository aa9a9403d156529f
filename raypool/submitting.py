"""The verbs of a pool that hand tasks over and wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from raypool.errors import InvalidTask, UnknownRole
from raypool.future import TaskFuture
from raypool.mapping import as_task, map_tasks
from raypool.reading import Reading
from raypool.response import TaskResult
from raypool.stream import Stream
from raypool.task import Content, Task, check_task
from raypool.waiting import wait_for_all


class Submitting(Reading):
    """Hands tasks over."""

    def submit(
        self,
        prompt: Content | Task,
        *,
        role: str | None = None,
        session: str | None = None,
        id: str | None = None,  # noqa: A002 - the contract's word
        metadata: Any = None,
        timeout: float | None = None,
        output_type: Any = None,
        stream: bool = False,
        priority: int = 0,
        tenant: str | None = None,
        hedge_after: float | str | None = None,
        block: bool = True,
    ) -> TaskFuture:
        """Hand over one task and return at once.

        Args:
            prompt: a text, Messages-API messages that end with the user's, or a `Task`.
            role: the role that must answer.
            session: the conversation to continue, by a name of yours.
            id: the task's name for ever; a second submit with it gives the same task's future.
            metadata: whatever JSON can hold; comes back on the result.
            timeout: the longest that one turn may run, in seconds.
            output_type: what the answer must be: a pydantic model, or another type that
                pydantic can validate; `Response.parsed` is then one.
            stream: let `TaskFuture.stream` give the text as it is generated.
            priority: of the tasks that wait, those with a higher one go first.
            tenant: on whose account it is; tenants share the workers by their weights.
            hedge_after: start a second copy on another worker when there is no answer after so
                many seconds, or a percentile of how long turns take, as `"p95"`.
            block: wait for room.

        Waits only when `max_pending` tasks of this process are unfinished, and not even
        then with `block=False` or on a thread that runs an event loop.

        Raises:
            InvalidTask: the prompt or an option is wrong.
            UnknownRole: the pool has no worker of that role.
            PoolFull: there is no room, and the call may not wait.
            PoolStopped: the pool has stopped.
        """
        task = task_of(
            prompt,
            role,
            id,
            metadata,
            timeout,
            session,
            output_type,
            stream,
            priority,
            tenant,
            hedge_after,
        )
        self._check(task)
        return self._client.submit([task], block=may_block(block))[0]

    def submit_many(
        self, prompts: Iterable[Content | Task], *, block: bool = True
    ) -> list[TaskFuture]:
        """Hand over many tasks in one message; all of them are checked before any is sent.

        Raises what `submit` raises.
        """
        if isinstance(prompts, str):
            raise InvalidTask("submit_many takes a list of prompts, got one text; use submit")
        tasks = [as_task(prompt) for prompt in prompts]
        for task in tasks:
            self._check(task)
        return self._client.submit(tasks, block=may_block(block))

    def map(self, prompts: Iterable[Content | Task], *, ordered: bool = True) -> Stream[TaskResult]:
        """Results as a stream, in the order of `prompts` or as they come.

        Reads `prompts` lazily, at most `max_pending` ahead. A failed task is a result
        with an `error`; nothing is raised for it. Closing the stream early cancels
        what has not ended. Works in `for` and in `async for`.

        Raises:
            LedgerError: the ledger cannot be written. What is accepted is not cancelled then: it
                goes on once that works, and `future(id)` has it.
        """
        window = self._info.max_pending
        return Stream(map_tasks(self.submit, prompts, ordered=ordered, window=window))

    def broadcast(self, prompt: Content | Task, *, role: str | None = None) -> list[TaskFuture]:
        """One task for each worker, or each of a role: a panel of experts.

        In the order of the workers' numbers. A `Task` with an id, or in a session, is refused.

        Raises what `submit` raises.
        """
        task = as_task(prompt)
        if task.id is not None or task.session is not None:
            raise InvalidTask("broadcast makes a task for each worker; leave out id and session")
        if role is not None:
            task = msgspec.structs.replace(task, role=role)
        self._check(task)
        workers = [name for name, one in self.workers.items() if task.role in (None, one)]
        tasks = [task] * len(workers)
        return self._client.submit(tasks, block=may_block(True), workers=workers)

    def wait_for_all(self, timeout: float | None = 120.0) -> None:
        """Wait for every task submitted before the call, retries included.

        On return the futures of this process have resolved, and `results()` has them. While the
        ledger cannot be written it waits on, for what is kept until then, too.

        Raises:
            WaitTimeout: some have not ended, or are not recorded, after `timeout` seconds; names
                the workers, and what blocks them.
            PoolStopped: the pool stopped meanwhile.
        """
        wait_for_all(self._client, self.name, timeout)

    def _check(self, task: Task) -> None:
        check_task(task)
        if task.role is not None and task.role not in self._info.roles:
            roles = ", ".join(sorted(self._info.roles))
            raise UnknownRole(
                f"pool {self.name!r} has no worker with the role {task.role!r}; it has: {roles}"
            )


def task_of(prompt: Content | Task, *options: Any) -> Task:
    """A task that asks `prompt` with these options, in the order of its fields.

    Raises:
        InvalidTask: it is a task already, and has its own.
    """
    if not isinstance(prompt, Task):
        return Task(prompt, *options)
    if any(option is not None and option is not False and option != 0 for option in options):
        raise InvalidTask("a Task brings its own options; it takes none beside them")
    return prompt


def may_block(wanted: bool) -> bool:
    """Whether a call may wait for room: not on a thread that runs an event loop."""
    return wanted and asyncio._get_running_loop() is None
