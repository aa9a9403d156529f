"""Roles with agents, backends and options of their own, in one pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from raypool import Agent, AgentStart, Autoscale, InvalidTask, Pool, UnknownRole, UnknownWorker
from raypool.agent import Turn
from raypool.backends import ScriptedBackend
from raypool.task import Content
from tests.scenarios.acting import seconds_of


class Historian(Agent):
    """Says who it is and what it was started with."""

    def init_agent(self, start: AgentStart) -> None:
        self._era = start.options["era"]

    def pre_turn(self, turn: Turn, prompt: Content) -> Content:
        return f"of the {self._era}: {prompt}"


@pytest.fixture(scope="module")
def faculty(local_ray: None) -> Iterator[Pool]:
    roles: dict[str, int | dict[str, Any]] = {
        "chemist": 2,
        "historian": {
            "size": 1,
            "agent": Historian,
            "agent_options": {"era": "Renaissance"},
            "backend": ScriptedBackend(lambda prompt: f"history {prompt}"),
            "concurrency": 3,
        },
        "poet": {"autoscale": Autoscale(min_size=0, max_size=2)},
    }
    backend = ScriptedBackend(latency=seconds_of)
    with Pool.start(roles=roles, backend=backend, namespace="typed") as pool:
        yield pool


def test_workers_are_numbered_in_the_order_of_their_roles(faculty: Pool) -> None:
    assert list(faculty.workers.values())[:3] == ["chemist", "chemist", "historian"]


def test_role_answers_with_its_own_agent_and_backend(faculty: Pool) -> None:
    historian = faculty.submit("what?", role="historian")
    chemist = faculty.submit("what?", role="chemist")

    assert historian.result(timeout=30).text == "history of the Renaissance: what?"
    assert chemist.result(timeout=30).text == "what?"


def test_role_without_workers_gets_one_for_its_first_task(faculty: Pool) -> None:
    future = faculty.submit("a poem", role="poet")

    assert future.result(timeout=60).text == "a poem"
    assert faculty.workers[future.worker or ""] == "poet"


def test_task_without_a_role_goes_to_any_worker(faculty: Pool) -> None:
    futures = [faculty.submit(f"question {n}") for n in range(6)]
    for future in futures:
        future.result(timeout=30)

    roles = {faculty.workers[future.worker or ""] for future in futures}

    assert {"chemist", "historian"} <= roles


def test_what_is_of_no_role_or_worker_is_refused(faculty: Pool) -> None:
    with pytest.raises(UnknownRole, match="it has: chemist, historian, poet"):
        faculty.submit("a play", role="playwright")
    with pytest.raises(UnknownRole):
        faculty.broadcast("a play", role="playwright")
    with pytest.raises(UnknownWorker, match="has no worker 'nobody'; it has: "):
        faculty.interrupt("nobody")
    with pytest.raises(InvalidTask):
        faculty.submit(" ", role="chemist")


def test_broadcast_goes_to_the_workers_of_the_moment(faculty: Pool) -> None:
    futures = faculty.broadcast("who are you?", role="chemist")

    assert [future.result(timeout=30).text for future in futures] == ["who are you?"] * 2
    assert {future.worker for future in futures} == {
        worker for worker, role in faculty.workers.items() if role == "chemist"
    }


def test_results_tell_the_role_of_each_worker(faculty: Pool) -> None:
    faculty.submit("what?", role="historian").result(timeout=30)

    by_worker = {one.worker: one for one in faculty.results()}

    assert {by_worker[worker].role for worker in faculty.workers} >= {"chemist", "historian"}
    historian = next(one for one in by_worker.values() if one.role == "historian")
    assert historian.count == len(historian.results) > 0
