"""Output types: what an answer must be, how it is read, and how its class reaches a worker."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, TypeAdapter
from typing_extensions import TypedDict

from raypool.agent import SessionOptions
from raypool.output_type import (
    InvalidAnswer,
    OutputType,
    is_wrapped,
    output_schema,
    pack_output_type,
    plain,
    read_packed,
    unpack_output_type,
)


class City(BaseModel):
    """A city."""

    name: str
    people: int = Field(ge=0)


class Person(BaseModel):
    name: str
    children: list[Person] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    limit: float = float("inf")


class Numbers(RootModel[list[int]]):
    pass


class Flight(TypedDict):
    start: City
    day: date


@dataclasses.dataclass
class Trip:
    cities: list[City]
    costs: dict[str, float] = dataclasses.field(default_factory=dict)


class Colour(enum.Enum):
    RED = "red"


class Box:
    """No type that pydantic knows."""


PARIS = '{"name": "Paris", "people": 2}'
NONSENSE = "Bonjour!"


def refusal(output_type: OutputType, text: str) -> str:
    with pytest.raises(InvalidAnswer) as caught:
        output_type.parse(text)
    return str(caught.value)


# What may be an output type


def test_object_schema_is_closed_and_has_no_needless_titles() -> None:
    city = OutputType.of(City)

    assert city.name == "City"
    assert city.schema == {
        "type": "object",
        "title": "City",
        "description": "A city.",
        "properties": {"name": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
        "required": ["name", "people"],
        "additionalProperties": False,
    }


def test_type_that_is_no_object_is_wrapped_in_one() -> None:
    numbers = OutputType.of(list[int])

    assert numbers.schema["type"] == "object"
    assert numbers.schema["required"] == ["answer"]
    assert numbers.schema["additionalProperties"] is False
    assert numbers.schema["properties"] == {
        "answer": {"type": "array", "items": {"type": "integer"}}
    }


OBJECTS: list[Any] = [City, Person, Open, Trip, Flight, dict[str, int]]
OTHERS: list[Any] = [
    list[City],
    Literal["yes", "no"],
    City | None,
    City | Trip,
    Colour,
    Numbers,
    tuple[int, ...],
    Annotated[int, Field(ge=3)],
    Annotated[int, BeforeValidator(abs)],
    Any,
    str,
    bool,
    date,
]


@pytest.mark.parametrize("type_", OBJECTS, ids=str)
def test_objects_stay_as_they_are(type_: Any) -> None:
    output_type = OutputType.of(type_)

    assert not is_wrapped(output_type.schema)
    assert output_type.schema["type"] == "object"


@pytest.mark.parametrize("type_", OTHERS, ids=str)
def test_every_other_type_is_wrapped(type_: Any) -> None:
    output_type = OutputType.of(type_)

    assert is_wrapped(output_type.schema)
    assert output_type.schema["type"] == "object"


@pytest.mark.parametrize("type_", [*OBJECTS, *OTHERS], ids=str)
def test_every_schema_is_one_and_can_travel_as_json(type_: Any) -> None:
    schema = OutputType.of(type_).schema

    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema


def test_objects_that_allow_more_properties_still_do() -> None:
    assert OutputType.of(Open).schema["additionalProperties"] is True
    assert OutputType.of(dict[str, int]).schema["additionalProperties"] == {"type": "integer"}


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (City, "City"),
        (list[City], "list[City]"),
        (dict[str, City | None], "dict[str, City | None]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[list[int], BeforeValidator(list)], "list[int]"),
        (Any, "Any"),
    ],
    ids=str,
)
def test_name_reads_as_the_type_is_written(type_: Any, name: str) -> None:
    assert OutputType.of(type_).name == name


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("City", "got 'City': that is no type"),
        (None, "got None"),
        (City(name="Paris", people=2), "that is a City object, not its class"),
        (Trip([]), "that is a Trip object, not its class"),
        (TypeAdapter(int), "not its class"),
        ({"type": "object"}, "OutputType.from_schema"),
        (print, "that is no type"),
        (lambda: City, "that is no type"),
        (3, "got 3: Unable to generate"),
        ([City], "Unable to generate"),
        (Box, "Unable to generate"),
        (Colour.RED, "Unable to generate"),
        (Callable[[], int], "Cannot generate a JsonSchema"),
        (list["Nowhere"], "not fully defined"),  # type: ignore[name-defined]  # noqa: F821
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_type_is_told_what_to_write(value: Any, why: str) -> None:
    with pytest.raises(TypeError) as caught:
        OutputType.of(value)

    assert "must be a pydantic model, or another type" in str(caught.value)
    assert why in str(caught.value)


def test_an_output_type_is_made_once() -> None:
    assert OutputType.of(City) is OutputType.of(City)
    assert OutputType.of(list[City]) is OutputType.of(list[City])
    assert OutputType.of(OutputType.of(City)) is OutputType.of(City)


def test_types_that_differ_in_order_alone_are_told_apart() -> None:
    one, other = OutputType.of(Literal["left", "right"]), OutputType.of(Literal["right", "left"])

    assert one.digest != other.digest
    assert other.schema["properties"]["answer"]["enum"] == ["right", "left"]


def test_digest_depends_on_name_and_schema_alone() -> None:
    city = OutputType.of(City)
    reordered = dict(reversed(city.schema.items()))

    assert len(city.digest) == 64
    assert OutputType.from_schema("City", reordered).digest == city.digest
    assert OutputType.from_schema("Town", city.schema).digest != city.digest
    assert OutputType.from_schema("City", {"type": "object"}).digest != city.digest


def test_schema_of_a_session_is_that_of_its_output_type() -> None:
    city = OutputType.of(City)

    assert output_schema(SessionOptions()) is None
    assert output_schema(SessionOptions(output_type=City)) == city.schema
    assert output_schema(SessionOptions(output_type=city)) == city.schema


# How an answer is read


@pytest.mark.parametrize(
    "text",
    [
        PARIS,
        f"\n  {PARIS}\n",
        f"```json\n{PARIS}\n```",
        f"Here you are:\n\n```JSON\n{PARIS}\n```\nAnything else?",
        f"```\n{PARIS}\n```",
        f"  ```json\n  {PARIS}\n  ```",
        f"```python\ncity = {{}}\n```\nprints\n```json\n{PARIS}\n```",
        f"Sure! {PARIS} That is all.",
        f"```json {PARIS} ```",
    ],
)
def test_json_is_found_alone_in_a_fence_or_amid_prose(text: str) -> None:
    assert OutputType.of(City).parse(text) == City(name="Paris", people=2)
    assert plain(text) == {"name": "Paris", "people": 2}


@pytest.mark.parametrize(
    "text",
    [
        "",
        NONSENSE,
        "{}}",
        '{"name": "Par',
        f"{PARIS} or {PARIS}",
        f"```json\n{PARIS}\n```\n```json\n{PARIS}\n```",
        "{'name': 'Paris', 'people': 2}",
        '{"name": "Paris", "people": NaN}',
        '{"name": "\ud83d", "people": 2}',
        '{"name": "\\ud83d", "people": 2}',
        "[" * 100_000,
        "9" * 10_000,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_text_without_one_json_value_is_refused(text: str) -> None:
    assert refusal(OutputType.of(City), text).startswith("The answer is not JSON: ")
    with pytest.raises(InvalidAnswer):
        plain(text)


@pytest.mark.parametrize("text", ['{"answer": [1, 2]}', "[1, 2]", "```json\n[1, 2]\n```"])
def test_wrapped_answer_is_unwrapped_and_a_bare_one_taken(text: str) -> None:
    numbers = OutputType.of(list[int])

    assert numbers.parse(text) == [1, 2]
    assert plain(text, numbers.schema) == [1, 2]


def test_answer_that_fits_is_an_object_of_the_type() -> None:
    assert OutputType.of(Trip).parse(f'{{"cities": [{PARIS}]}}') == Trip(
        [City(name="Paris", people=2)]
    )
    assert OutputType.of(Flight).parse(f'{{"start": {PARIS}, "day": "2026-07-14"}}') == {
        "start": City(name="Paris", people=2),
        "day": date(2026, 7, 14),
    }
    assert OutputType.of(Colour).parse('{"answer": "red"}') is Colour.RED
    assert OutputType.of(City | None).parse('{"answer": null}') is None


def test_refusal_lists_places_and_reasons() -> None:
    message = refusal(
        OutputType.of(Trip), '{"cities": [{"name": 1, "people": 2}, {"name": "Rome"}]}'
    )

    assert message == (
        "The answer does not fit its schema:\n"
        "- cities.0.name: Input should be a valid string\n"
        "- cities.1.people: Field required"
    )


def test_refusal_of_a_wrapped_answer_speaks_of_its_wrapper() -> None:
    numbers = OutputType.of(list[int])

    assert "- answer.0: Input should be a valid integer" in refusal(numbers, '["one"]')
    assert "- other: Extra inputs" in refusal(numbers, '{"answer": [], "other": 1}')


def test_refusal_is_bounded_and_pickles() -> None:
    message = refusal(OutputType.of(list[int]), json.dumps(["x" * 1000] * 1000))
    refused = InvalidAnswer(message)

    assert len(message) < 4000
    assert str(pickle.loads(pickle.dumps(refused))) == message


def test_correction_tells_what_was_wrong_and_what_is_wanted() -> None:
    city = OutputType.of(City)

    prompt = city.correction(InvalidAnswer("The answer is not JSON: expected value"))

    assert prompt.startswith("The answer is not JSON: expected value\n")
    assert json.loads(prompt.splitlines()[-1]) == city.schema


# By the schema alone


@pytest.mark.parametrize("type_", [City, list[City]], ids=str)
def test_schema_alone_reads_the_same_answers_as_plain_json(type_: Any) -> None:
    known = OutputType.of(type_)
    alone = OutputType.from_schema(known.name, known.schema)
    text = PARIS if type_ is City else f"[{PARIS}]"

    assert alone.digest == known.digest
    assert TypeAdapter(type_).validate_python(alone.parse(text)) == known.parse(text)
    assert "people" in refusal(alone, text.replace("2", "-2"))
    assert "not JSON" in refusal(alone, NONSENSE)


def test_schema_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="the schema of City is no JSON schema: 'objekt' is not"):
        OutputType.from_schema("City", {"type": "objekt"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_json_that_any_type_takes_is_read_as_it_is(value: Any) -> None:
    text = json.dumps({"answer": value})

    assert OutputType.of(Any).parse(text) == value
    assert plain(text, OutputType.of(Any).schema) == value


@given(st.text())
def test_whatever_a_model_writes_is_read_or_refused(text: str) -> None:
    try:
        value = plain(text)
    except InvalidAnswer:
        value = None
    json.dumps(value)


@given(
    st.lists(st.builds(City, name=st.text(), people=st.integers(0, 2**62)), max_size=3),
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
def test_what_a_type_writes_it_reads_back(cities: list[City], costs: dict[str, float]) -> None:
    trip = Trip(cities, costs)

    text = TypeAdapter(Trip).dump_json(trip).decode()

    assert OutputType.of(Trip).parse(f"Here: {text}.") == trip


# How a type travels


def test_name_schema_and_digest_are_read_without_unpickling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = OutputType.of(Numbers)
    packed = pack_output_type(numbers)
    monkeypatch.setattr(pickle, "loads", pytest.fail)
    monkeypatch.setattr("cloudpickle.loads", pytest.fail)

    known = read_packed(packed)

    assert (known.name, known.schema, known.digest) == ("Numbers", numbers.schema, numbers.digest)


def test_property_order_survives_the_way() -> None:
    class Late(BaseModel):
        reason: str
        answer: int
        also: int

    known = read_packed(pack_output_type(OutputType.of(Late)))

    assert list(known.schema["properties"]) == ["reason", "answer", "also"]


@pytest.mark.parametrize("type_", [*OBJECTS, *OTHERS], ids=str)
def test_unpacked_type_is_known_by_the_same_digest(type_: Any) -> None:
    output_type = OutputType.of(type_)

    unpacked = unpack_output_type(pack_output_type(output_type))

    assert (unpacked.name, unpacked.schema) == (output_type.name, output_type.schema)
    assert unpacked.digest == output_type.digest


def test_type_without_its_class_travels_as_its_schema() -> None:
    alone = OutputType.from_schema("City", OutputType.of(City).schema)

    unpacked = unpack_output_type(pack_output_type(alone))

    assert unpacked.parse(PARIS) == {"name": "Paris", "people": 2}


def test_output_type_pickles() -> None:
    again = pickle.loads(pickle.dumps(OutputType.of(list[City])))

    assert again.parse(f"[{PARIS}]") == [City(name="Paris", people=2)]


def test_type_that_cannot_be_pickled_says_why() -> None:
    lock = threading.Lock()

    class Locked(BaseModel):
        name: Annotated[str, BeforeValidator(lambda value: value if lock else "")]

    with pytest.raises(TypeError, match=r"output_type Locked must be .* cannot pickle '_thread"):
        pack_output_type(OutputType.of(Locked))


CLASSES = """
import dataclasses, enum
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

class Kind(enum.Enum):
    BIG = "big"

class City(BaseModel):
    name: str
    kind: Kind = Kind.BIG
    twin: City | None = None

    @field_validator("name")
    @classmethod
    def shout(cls, name: str) -> str:
        return name.upper()

class Land(BaseModel):
    regions: list[Region] = []

class Region(BaseModel):
    lands: list[Land] = []
    capital: City | None = None

@dataclasses.dataclass
class Trip:
    city: City
    next: Trip | None = None
    ends: list[Land] = dataclasses.field(default_factory=list)

class Ticket(TypedDict):
    trip: Trip
"""

CLIENT = """
import pickle, subprocess, sys, cloudpickle
from raypool.output_type import OutputType, pack_output_type

asked = [
    (City, '{"name": "Paris", "twin": {"name": "Rome"}}'),
    (list[City], '[{"name": "Paris"}]'),
    (Land, '{"regions": [{}]}'),
    (Region, '{"lands": [{"regions": [{}]}], "capital": {"name": "Bonn"}}'),
    (Trip, '{"city": {"name": "Paris"}, "next": {"city": {"name": "Rome"}}}'),
    (Ticket, '{"trip": {"city": {"name": "Paris"}}}'),
    (Trip | City, '{"answer": {"name": "Paris"}}'),
]
sent = [(pack_output_type(OutputType.of(type_)), text) for type_, text in asked]
worker = subprocess.run(
    [sys.executable, "-c", WORKER], input=cloudpickle.dumps(sent), capture_output=True, cwd="/"
)
assert worker.returncode == 0, worker.stderr.decode()
before = vars(City)["__pydantic_validator__"]
answers = map(pickle.loads, pickle.loads(worker.stdout))
city, cities, land, region, trip, ticket, either = answers

assert type(city) is City and type(city.twin) is City
assert city == City(name="PARIS", twin=City(name="ROME"))
assert city.kind is Kind.BIG
assert type(cities[0]) is City
assert type(land) is Land and land.model_dump() == {"regions": [{"lands": [], "capital": None}]}
assert type(region.lands[0].regions[0]) is Region and type(region.capital) is City
assert type(trip) is Trip and type(trip.next) is Trip and type(trip.city) is City
assert trip.ends == []
assert type(ticket["trip"]) is Trip
assert type(either) is City
assert vars(City)["__pydantic_validator__"] is before
"""

WORKER = """
import sys, cloudpickle
from raypool.model_pickling import dump_answer
from raypool.output_type import unpack_output_type

def answered(packed, text):
    answer = unpack_output_type(packed).parse(text)
    if hasattr(answer, "model_dump_json"):
        assert type(answer).model_validate_json(answer.model_dump_json()) == answer
    return dump_answer(answer)

received = cloudpickle.loads(sys.stdin.buffer.read())
sys.stdout.buffer.write(cloudpickle.dumps([answered(*one) for one in received]))
"""


@pytest.mark.parametrize(
    "classes",
    [CLASSES, "from elsewhere import *"],
    ids=["in the program", "in a module that workers cannot import"],
)
def test_answer_parsed_by_a_worker_is_of_the_clients_own_class(
    classes: str, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "elsewhere.py").write_text("from __future__ import annotations\n" + CLASSES)
    client = tmp_path / "client.py"
    client.write_text(
        "from __future__ import annotations\n"
        f"import sys; sys.path.append({str(hidden)!r}); WORKER = {WORKER!r}\n{classes}\n{CLIENT}"
    )

    ended = subprocess.run(
        [sys.executable, str(client)], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr


SENDER = """
import pickle, sys
from raypool.model_pickling import dump_answer
from raypool.output_type import OutputType, pack_output_type

for type_ in (Land, City):
    pack_output_type(OutputType.of(type_))
answers = [Land(regions=[Region(lands=[Land()])]), City(name='Bonn')]
sys.stdout.buffer.write(pickle.dumps([dump_answer(one) for one in answers]))
"""

STRANGER = """
import pickle, sys
for packed in pickle.loads(sys.stdin.buffer.read()):
    answer = pickle.loads(packed)
    print(answer.model_dump_json())
    assert type(answer).model_validate(answer.model_dump()) == answer
"""


def test_answer_can_be_had_where_its_class_is_unknown(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"from __future__ import annotations\n{CLASSES}\n{SENDER}")
    sent = subprocess.run([sys.executable, str(program)], capture_output=True, check=True)

    received = subprocess.run(
        [sys.executable, "-c", STRANGER], input=sent.stdout, capture_output=True, check=False
    )

    assert received.returncode == 0, received.stderr.decode()
    assert received.stdout.decode().splitlines() == [
        '{"regions":[{"lands":[{"regions":[]}],"capital":null}]}',
        '{"name":"BONN","kind":"big","twin":null}',
    ]
