"""Tasks as they travel, and the output types that go with them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from raypool.errors import InvalidTask
from raypool.messages import Submission, decode_submissions, encode
from raypool.output_type import OutputType, read_packed
from raypool.sealing import Sealer, packed_type
from raypool.task import Task


class City(BaseModel):
    """What an answer must be."""

    name: str


def sealed(task: Task, worker: str | None = None) -> Submission:
    [arrived] = decode_submissions(encode([Sealer().seal(1, "a", task, worker)]))
    return arrived


def test_everything_that_is_asked_of_a_task_travels() -> None:
    task = Task(
        "why?",
        role="chemist",
        metadata={"row": 1},
        timeout=5.0,
        session="user-42",
        output_type=City,
        stream=True,
    )

    assert sealed(task, "crew-2") == Submission(
        ticket=1,
        id="a",
        prompt="why?",
        role="chemist",
        metadata={"row": 1},
        timeout=5.0,
        session="user-42",
        worker="crew-2",
        output_type=OutputType.of(City).digest,
        stream=True,
    )


def test_task_of_a_prompt_alone_asks_for_nothing_else() -> None:
    assert sealed(Task("why?")) == Submission(1, "a", "why?")


def test_metadata_travels_as_it_is_when_the_task_is_sealed() -> None:
    metadata = {"row": 1}
    packed = Sealer().seal(1, "a", Task("why?", metadata=metadata), None)
    metadata["row"] = 2

    [arrived] = decode_submissions(encode([packed]))

    assert arrived.metadata == {"row": 1}


def test_task_that_no_message_can_hold_is_refused() -> None:
    with pytest.raises(InvalidTask, match="the task cannot be sent"):
        Sealer().seal(1, "a", Task("why?", metadata=object()), None)


def test_each_type_goes_along_once() -> None:
    sealer = Sealer()
    for output_type in (City, None, City, list[City]):
        sealer.seal(1, "a", Task("why?", output_type=output_type), None)

    types = sealer.take_types()
    sealer.seal(2, "b", Task("why?", output_type=City), None)

    assert list(types) == [OutputType.of(City).digest, OutputType.of(list[City]).digest]
    assert [read_packed(packed).digest for packed in types.values()] == list(types)
    assert sealer.take_types() == {}


@pytest.mark.parametrize(
    "output_type",
    [City(name="Paris"), "City", {"type": "object"}],
    ids=["object", "text", "schema"],
)
def test_output_type_that_is_none_is_refused_with_what_to_write(output_type: Any) -> None:
    with pytest.raises(InvalidTask, match="output_type must be a pydantic model"):
        packed_type(output_type)
    with pytest.raises(InvalidTask, match="output_type must be a pydantic model"):
        Sealer().seal(1, "a", Task("why?", output_type=output_type), None)
