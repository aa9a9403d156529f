"""Tools: what a model is told of a function, and what it may call it with."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from raypool.tools import Call, Tool, ToolBox, ToolError, error_text, result_text, tool_schema

if TYPE_CHECKING:
    from collections import Counter


class City(BaseModel):
    """A city."""

    name: str
    people: int = 0


class Unit(enum.Enum):
    CELSIUS = "C"
    KELVIN = "K"


@dataclasses.dataclass
class Station:
    """Answers for one city, and can be listed as a tool itself."""

    city: str

    def __call__(self, day: date) -> str:
        return f"{self.city} on {day:%d %B}"

    def temperature(self, unit: Unit = Unit.CELSIUS) -> Counter[str]:
        """Measures the temperature."""
        raise NotImplementedError


def weather(city: str, days: int = 1, *, unit: Literal["C", "K"] = "C") -> str:
    """Tells the weather.

    It may be wrong.

    Args:
        city: where, as a local
            would call it
        days: how many days ahead

    Returns:
        A sentence.

    Raises:
        OSError: there is no station.
    """
    return f"{city}: {days} {unit}"


async def wait() -> None: ...


def schema_error(function: Any) -> str:
    with pytest.raises(TypeError) as caught:
        Tool.of(function)
    return str(caught.value)


def input_error(function: Callable[..., Any], arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        Tool.of(function).bind(arguments)
    return str(caught.value)


# What a model is told


def test_schema_has_what_signature_and_docstring_say() -> None:
    assert tool_schema(weather) == {
        "name": "weather",
        "description": "Tells the weather.\n\nIt may be wrong.",
        "input_schema": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string",
                    "description": "where, as a local\nwould call it",
                },
                "days": {
                    "type": "integer",
                    "default": 1,
                    "description": "how many days ahead",
                },
                "unit": {"type": "string", "enum": ["C", "K"], "default": "C"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }


def numpy_style(city: str) -> None:
    """Looks it up.

    Parameters
    ----------
    city : str
        which city
    """


def sphinx_style(city: str) -> None:
    """Looks it up.

    :param city: which city
    """


@pytest.mark.parametrize("function", [numpy_style, sphinx_style])
def test_docstrings_of_other_styles_are_read_too(function: Callable[..., Any]) -> None:
    schema = tool_schema(function)

    assert schema["description"] == "Looks it up."
    assert schema["input_schema"]["properties"]["city"]["description"] == "which city"


def malformed(city: str) -> None:
    """Looks it up.

    :param
    """


def test_docstring_of_no_known_style_is_the_description_as_it_stands() -> None:
    assert tool_schema(malformed)["description"] == "Looks it up.\n\n:param"


def annotated(city: Annotated[str, Field(description="a capital", min_length=2)]) -> None:
    """Looks it up.

    Args:
        city: any city
    """


def test_description_in_the_hint_goes_before_the_docstrings() -> None:
    city = tool_schema(annotated)["input_schema"]["properties"]["city"]

    assert city == {"type": "string", "description": "a capital", "minLength": 2}


def test_function_without_a_docstring_has_no_description() -> None:
    assert "description" not in tool_schema(wait)
    assert Tool.of(wait).description == ""


def visit(city: City, others: list[City] | None = None) -> None: ...


def test_objects_in_arguments_are_closed_too() -> None:
    assert tool_schema(visit)["input_schema"]["$defs"]["City"] == {
        "type": "object",
        "title": "City",
        "description": "A city.",
        "properties": {"name": {"type": "string"}, "people": {"type": "integer", "default": 0}},
        "required": ["name"],
        "additionalProperties": False,
    }


def endless(limit: float = float("inf"), marker: Any = object()) -> tuple[float, Any]:  # noqa: B008
    return limit, marker


def test_defaults_that_json_cannot_hold_are_left_out_of_the_schema_alone() -> None:
    properties = tool_schema(endless)["input_schema"]["properties"]
    call = Tool.of(endless).bind({})

    assert properties == {"limit": {"type": "number"}, "marker": {}}
    assert call.function(**call.kwargs) == endless()


def test_a_tool_is_made_once_and_can_be_called_as_its_function() -> None:
    tool = Tool.of(weather)

    assert Tool.of(tool) is tool
    assert tool_schema(tool)["input_schema"] is tool.input_schema
    assert tool("Paris", days=2) == "Paris: 2 C"


# What may be a tool


def test_methods_know_whose_they_are() -> None:
    station = Station("Paris")

    call = Tool.of(station.temperature).bind({"unit": "K"})

    assert call.owner is station
    assert call.kwargs == {"unit": Unit.KELVIN}
    assert Tool.of(weather).owner is None


def test_object_with_a_call_is_named_and_described_by_its_class() -> None:
    station = Station("Paris")

    tool = Tool.of(station)
    call = tool.bind({"day": "2026-07-14"})

    assert (tool.name, tool.owner) == ("Station", station)
    assert tool.description == "Answers for one city, and can be listed as a tool itself."
    assert call.function(**call.kwargs) == "Paris on 14 July"


def test_what_a_partial_has_fixed_is_not_the_models_to_choose() -> None:
    tool = Tool.of(functools.partial(functools.partial(weather, "Paris"), unit="K"))
    call = tool.bind({"days": 3})

    assert tool.name == "weather"
    assert list(tool.input_schema["properties"]) == ["days"]
    assert call.function(**call.kwargs) == "Paris: 3 K"
    assert "unit: Extra inputs" in input_error(tool, {"unit": "C"})


@functools.cache
def cached(city: str) -> str:
    """Looks once."""
    return city


@functools.wraps(weather)
def logged(*args: Any, **kwargs: Any) -> str:
    return weather(*args, **kwargs)


def test_wrapped_functions_are_read_from_what_they_wrap() -> None:
    assert (Tool.of(cached).description, Tool.of(cached).owner) == ("Looks once.", None)
    assert tool_schema(logged) == tool_schema(weather)


async def fetch(url: str) -> str:
    return url


class Fetcher:
    async def __call__(self, url: str) -> str:
        return url


@pytest.mark.parametrize(
    "function", [fetch, functools.partial(fetch), Fetcher(), Fetcher().__call__], ids=str
)
def test_async_functions_are_known_as_such(function: Callable[..., Any]) -> None:
    call = Tool.of(function).bind({} if isinstance(function, str) else {"url": "a"})

    assert call.is_async
    assert not Tool.of(weather).is_async


def private(_city: str, copy: str, model_name: str, schema: str) -> str:
    return _city + copy + model_name + schema


def test_parameters_may_have_any_name() -> None:
    names = ["_city", "copy", "model_name", "schema"]
    call = Tool.of(private).bind(dict(zip(names, "abcd", strict=True)))

    assert list(Tool.of(private).input_schema["properties"]) == names
    assert call.function(**call.kwargs) == "abcd"


def field_as_default(city: str = Field("Paris", description="where")) -> str:
    return city


def test_default_may_be_a_pydantic_field() -> None:
    tool = Tool.of(field_as_default)

    assert tool.input_schema["properties"]["city"]["description"] == "where"
    assert tool.bind({}).kwargs == {"city": "Paris"}


def unhinted(city) -> None: ...  # type: ignore[no-untyped-def]
def many(*cities: str) -> None: ...
def options(**named: str) -> None: ...
def by_place(city: str, /) -> None: ...
def unknown(counts: Counter[str]) -> None: ...
def callback(then: Callable[[], None]) -> None: ...
def opaque(box: ToolBox) -> None: ...
def größe(city: str) -> None: ...  # noqa: PLC2401
def lines() -> Iterator[str]:
    yield ""


async def later_lines() -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (unhinted, ["'unhinted'", "'city'", "no type hint", "write city: str"]),
        (many, ["'many'", "*cities", "one list"]),
        (options, ["'options'", "**named", "one parameter for each"]),
        (by_place, ["'by_place'", "'city'", "positional-only", "remove the '/'"]),
        (unknown, ["'unknown'", "'counts'", "'Counter' is not defined", "top of the module"]),
        (callback, ["'callback'", "'then'", "JSON schema", "use str"]),
        (opaque, ["'opaque'", "'box'", "JSON schema", "a pydantic model"]),
        (größe, ["'größe'", "[a-zA-Z0-9_-]{1,128}", "another name"]),
        (lines, ["'lines'", "yields", "return a list"]),
        (later_lines, ["'later_lines'", "yields", "return a list"]),
        (lambda: 3, ["lambda", "def"]),
        (City, ["'City'", "class", "write a function"]),
        (print, ["'print'", "*args"]),
        ("weather", ["must be a function", "'weather'"]),
        (None, ["must be a function", "None"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_unsupported_signature_says_what_to_write_instead(function: Any, parts: list[str]) -> None:
    message = schema_error(function)

    assert [part for part in parts if part not in message] == []


PROGRAM = """
from __future__ import annotations
import sys
from typing import Annotated, Literal
from pydantic import BaseModel, Field
from raypool import Agent, AgentStart, SessionOptions
from raypool.payload import pack

class City(BaseModel):
    name: str

async def visit(city: City, by: Literal["car", "foot"] = "car") -> list[City]: ...

class Guide(Agent):
    def init_agent(self, start: AgentStart) -> SessionOptions:
        return SessionOptions(tools=[visit, self.measure])

    def measure(self, days: Annotated[int, Field(ge=1)]) -> None: ...

sys.stdout.buffer.write(pack(Guide, {}, None, print))
"""

WORKER = """
import sys, cloudpickle
from raypool.tools import ToolBox

agent = cloudpickle.load(sys.stdin.buffer)[0]()
box = ToolBox(agent.init_agent(None).tools)
print(box.bind("visit", {"city": {"name": "Rome"}}).kwargs)
print(box.bind("measure", {"days": 2}).kwargs)
"""


def test_hints_of_a_program_are_known_to_its_workers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    sent = subprocess.run([sys.executable, str(program)], capture_output=True, check=True)

    worker = subprocess.run(
        [sys.executable, "-c", WORKER], input=sent.stdout, capture_output=True, check=False
    )

    assert worker.returncode == 0, worker.stderr.decode()
    assert worker.stdout.decode().splitlines() == [
        "{'city': City(name='Rome'), 'by': 'car'}",
        "{'days': 2}",
    ]


# What a model may call


def test_arguments_become_what_the_hints_name() -> None:
    call = Tool.of(visit).bind({"city": {"name": "Paris"}, "others": [{"name": "Rome"}]})

    assert call.kwargs == {"city": City(name="Paris"), "others": [City(name="Rome")]}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "- city: Field required"),
        ({"city": 3}, "- city: Input should be a valid string"),
        ({"city": "Paris", "days": 1.5}, "- days: Input should be a valid integer"),
        ({"city": "Paris", "unit": "F"}, "- unit: Input should be 'C' or 'K'"),
        ({"city": "Paris", "parameter_days": 1}, "- parameter_days: Extra inputs"),
        (["Paris"], "- Input should be a valid dictionary"),
    ],
    ids=str,
)
def test_wrong_input_is_told_by_place_and_reason(arguments: Any, problem: str) -> None:
    message = input_error(weather, arguments)

    assert message.startswith("The input of tool 'weather' does not fit its schema:\n")
    assert problem in message


def test_wrong_input_is_not_repeated_to_the_model() -> None:
    assert "hunter2" not in input_error(weather, {"city": "Paris", "days": "hunter2"})


def cities(names: list[str]) -> None: ...


def test_problems_are_bounded() -> None:
    message = input_error(cities, {"names": [*range(1000)], "x" * 1000: 1})

    assert len(message) < 2000
    assert message.endswith("\n- …")


def test_box_finds_a_tool_by_its_name() -> None:
    box = ToolBox([weather, wait])

    assert len(box) == 2
    assert [tool.name for tool in box.tools] == ["weather", "wait"]
    assert box.bind("wait", {}).is_async


@pytest.mark.parametrize(("functions", "known"), [([weather, wait], "weather, wait"), ([], "none")])
def test_unknown_tool_is_told_with_the_known_ones(
    functions: list[Callable[..., Any]], known: str
) -> None:
    with pytest.raises(ToolError, match=rf"no tool 'whether'. The tools are: {known}\."):
        ToolBox(functions).bind("whether", {})


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="two tools are called 'weather'"):
        ToolBox([weather, functools.partial(weather, "Paris")])


@pytest.mark.parametrize("functions", [weather, "weather", {"weather": weather}], ids=type)
def test_tools_must_be_listed(functions: Any) -> None:
    with pytest.raises(TypeError, match=r"tools must be a list of functions.*write tools=\[...\]"):
        ToolBox(functions)


def many_kinds(  # noqa: PLR0917 - of each kind one
    flag: bool,
    count: int,
    share: float,
    text: str,
    maybe: int | None,
    words: list[str],
    table: dict[str, int],
) -> None: ...


@given(
    st.fixed_dictionaries(
        {
            "flag": st.booleans(),
            "count": st.integers(),
            "share": st.floats(allow_nan=False),
            "text": st.text(),
            "maybe": st.none() | st.integers(),
            "words": st.lists(st.text()),
            "table": st.dictionaries(st.text(), st.integers()),
        }
    )
)
def test_arguments_of_plain_types_arrive_as_they_were_given(arguments: dict[str, Any]) -> None:
    assert MANY_KINDS.bind(arguments).kwargs == arguments


MANY_KINDS = Tool.of(many_kinds)

any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*inspect.signature(many_kinds).parameters]), any_json))
def test_whatever_a_model_sends_is_bound_or_told(arguments: dict[str, Any]) -> None:
    call = bound_or_told(MANY_KINDS, arguments)

    if isinstance(call, str):
        assert call.startswith("The input of tool 'many_kinds'")
    else:
        inspect.signature(many_kinds).bind(**call.kwargs)


def bound_or_told(tool: Tool, arguments: dict[str, Any]) -> Call | str:
    try:
        return tool.bind(arguments)
    except ToolError as error:
        return str(error)


# What a tool gave


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("as it is", "as it is"),
        ("", ""),
        (3, "3"),
        (True, "true"),
        (float("nan"), '"NaN"'),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (City(name="Köln"), '{"name":"Köln","people":0}'),
        (Station("Rome"), '{"city":"Rome"}'),
        ([Unit.KELVIN], '["K"]'),
        (date(2026, 7, 14), '"2026-07-14"'),
        ("half \ud83d character", "half \ufffd character"),
    ],
    ids=repr,
)
def test_result_is_text_or_json(value: object, text: str) -> None:
    assert result_text(value) == text


class LabelledAs(str, enum.Enum):  # noqa: UP042 - the case at hand
    COLD = "cold"


def test_result_of_a_type_derived_from_str_is_its_plain_text() -> None:
    text = result_text(LabelledAs.COLD)

    assert (text, type(text)) == ("cold", str)


def endless_list() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


@pytest.mark.parametrize(
    "value", [object(), endless_list(), b"\xff", {"a": [weather]}, ["\ud83d"]], ids=lambda _: ""
)
def test_result_that_json_cannot_hold_is_told(value: object) -> None:
    with pytest.raises(ToolError, match=f"returned a {type(value).__name__}, which JSON cannot"):
        result_text(value)


@given(any_json.filter(lambda value: value is not None and not isinstance(value, str)))
def test_json_reads_back_what_a_tool_gave(value: object) -> None:
    assert json.loads(result_text(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("Atlantis"), "KeyError: 'Atlantis'"),
        (ValueError(), "ValueError"),
        (OSError("\udcff is no file"), "OSError: \ufffd is no file"),
        (ToolError("There is no tool 'x'."), "There is no tool 'x'."),
    ],
    ids=repr,
)
def test_error_is_its_type_and_message(error: Exception, text: str) -> None:
    assert error_text(error) == text
