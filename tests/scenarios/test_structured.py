"""Answers of a type that the caller, or the agent, asks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from raypool import BackendError, InvalidTask, Pool
from raypool.testing import Call
from tests.scenarios.conftest import Provider

PROGRAM = """
from pydantic import BaseModel

from raypool import Pool
from raypool.backends import ScriptedBackend

class City(BaseModel):
    name: str
    people: int

if __name__ == "__main__":
    backend = ScriptedBackend(lambda prompt: '{"name": "Paris", "people": 2100000}')
    with Pool.start(1, backend=backend, address="local") as pool:
        parsed = pool.submit("which city?", output_type=City).result(timeout=60).parsed
        print(type(parsed) is City, parsed)
"""


class City(BaseModel):
    """A city and how many live there."""

    name: str
    people: int = Field(gt=0)


PARIS = json.dumps({"name": "Paris", "people": 2_100_000})


def bad_first(call: Call) -> str:
    return PARIS if len(call.body["messages"]) > 1 else '{"name": "Paris", "people": -1}'


def test_answer_is_an_instance_of_the_callers_class(api_pool: Pool, provider: Provider) -> None:
    provider.begin(lambda call: PARIS)

    future = api_pool.submit("a city, please", role="plain", output_type=City)

    assert future.result(timeout=30).parsed == City(name="Paris", people=2_100_000)
    schema = provider.calls[0].body["output_config"]["format"]["schema"]
    assert set(schema["properties"]) == {"name", "people"}
    assert api_pool.poll(future.id).parsed == {"name": "Paris", "people": 2_100_000}


def test_answer_that_does_not_fit_is_asked_again_with_what_is_wrong(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(bad_first)

    future = api_pool.submit("a city, please", role="plain", output_type=City)

    assert future.result(timeout=30).parsed == City(name="Paris", people=2_100_000)
    roles = [message["role"] for message in provider.calls[1].body["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert "greater than 0" in provider.calls[1].prompt
    assert api_pool.poll(future.id).turns == 2


def test_three_answers_that_do_not_fit_fail_with_all_of_them_kept(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(lambda call: f"answer {len(call.body['messages']) // 2}")

    future = api_pool.submit("a city, please", role="plain", output_type=City)
    with pytest.raises(BackendError, match=r"no 3 answers of the model fit .*'City'") as raised:
        future.result(timeout=30)

    answers = ("answer 0", "answer 1", "answer 2")
    result = api_pool.poll(future.id)
    assert raised.value.cause.answers == answers
    assert result.error is not None
    assert result.error.answers == answers
    assert raised.value.attempts == 1
    assert result.usage.output_tokens == 6


def test_any_type_that_pydantic_knows_will_do(api_pool: Pool, provider: Provider) -> None:
    provider.begin(lambda call: '{"answer": [2, 3, 5]}')

    future = api_pool.submit("some primes", role="plain", output_type=list[int])

    assert future.result(timeout=30).parsed == [2, 3, 5]


def test_output_type_that_is_none_is_refused_at_once(api_pool: Pool) -> None:
    with pytest.raises(InvalidTask, match="output_type must be"):
        api_pool.submit("a city, please", output_type="City")


def test_class_of_the_program_itself_comes_back(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "RAY_TMPDIR": "/tmp"}

    ran = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
        check=False,
    )

    assert ran.stdout == "True name='Paris' people=2100000\n", ran.stderr


@pytest.mark.timeout(240)
def test_local_model_answers_in_the_shape_that_is_asked_for(local_pool: Pool) -> None:
    prompt = "Name a city, and say how many people live in it."
    future = local_pool.submit(prompt, role="plain", output_type=City)

    assert isinstance(future.result(timeout=120).parsed, City)
