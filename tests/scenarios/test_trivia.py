"""The reference's program, word for word, with a script, with the Messages API and with a model."""

from __future__ import annotations

from itertools import pairwise

import pytest

from raypool import Pool
from raypool.backends import AnthropicBackend, Backend, LocalBackend, ScriptedBackend
from raypool.testing import MessagesServer

QUESTIONS = [
    "capital of France?",
    "who wrote Hamlet?",
    "first president of the US?",
    "speed of light in vacuum?",
    "chemical symbol for gold?",
    "tallest mountain on Earth?",
    "largest ocean?",
    "year WWII ended?",
    "composer of the Ninth Symphony?",
]


def ask_nine_questions(backend: Backend) -> dict[str, list[str]]:
    """Each worker's answers, after a look at everything else that results promise."""
    with Pool.start(3, role="trivia expert", backend=backend, name="pool-1") as pool:
        pool.submit_many(QUESTIONS)
        pool.wait_for_all()
        results = pool.results()

    assert [worker.worker for worker in results] == ["pool-1-1", "pool-1-2", "pool-1-3"]
    for place, worker in enumerate(results):
        assert worker.role == "trivia expert"
        assert worker.count == 3
        assert [result.prompt for result in worker.results] == QUESTIONS[place::3]
        for result in worker.results:
            assert result.text
            assert result.usage.output_tokens > 0
            assert result.duration_ms is not None
            assert result.duration_ms > 0
            assert result.completed_at is not None
        ends = [result.completed_at or 0 for result in worker.results]
        assert all(earlier <= later for earlier, later in pairwise(ends))
    return {worker.worker: [result.text or "" for result in worker.results] for worker in results}


def test_nine_questions_with_a_script(local_ray: None) -> None:
    answers = {question: question.upper() for question in QUESTIONS}

    by_worker = ask_nine_questions(ScriptedBackend(answers))

    assert by_worker["pool-1-2"] == [question.upper() for question in QUESTIONS[1::3]]


def test_nine_questions_over_the_messages_api(local_ray: None) -> None:
    with MessagesServer() as server:
        ask_nine_questions(AnthropicBackend(base_url=server.url, api_key="a-key"))

        systems = {call.body["system"][0]["text"] for call in server.calls}
    assert len(server.calls) == 9
    assert all("trivia expert" in system for system in systems)


@pytest.mark.timeout(240)
def test_nine_questions_with_the_local_model(local_ray: None) -> None:
    by_worker = ask_nine_questions(LocalBackend())

    assert "Paris" in by_worker["pool-1-1"][0]
