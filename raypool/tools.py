"""Tools: plain functions that a model may call, and what it is told of them."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import docstring_parser
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from raypool.schemas import problems_of, schema_of

VALID_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
# Fields of a model cannot be called `_x`, `copy` or `model_x`; parameters can.
FIELD_PREFIX = "parameter_"


class ToolError(Exception):
    """Raised when a tool cannot be called or sent on what it gave; its text is for the model."""


@dataclass(frozen=True)
class Call:
    """One call of a tool, ready to be made: `function(**kwargs)`.

    Attributes:
        function: the tool's function, as it was listed.
        kwargs: its arguments, of the types that its hints name.
        is_async: it is an `async def`. What any other function returns may be awaitable all
            the same, when a decorator hides an `async def`.
        owner: the object whose method it is; `None` for a plain function.
    """

    function: Callable[..., Any]
    kwargs: dict[str, Any]
    is_async: bool
    owner: object


@dataclass(frozen=True)
class Tool:
    """A function with what a model must know to call it.

    Attributes:
        name: the function's name.
        description: its docstring, without the sections about arguments and errors.
        input_schema: the JSON schema of its arguments.
        function: the function itself; calling the tool calls it.
        is_async: it is an `async def`.
        owner: the object whose method it is; `None` for a plain function.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    function: Callable[..., Any] = field(repr=False)
    is_async: bool
    owner: object = field(repr=False)
    _arguments: type[BaseModel] = field(repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """The tool that `function` is; a `Tool` is returned as it is.

        Arguments that a `functools.partial` has fixed are not offered to the model. Arguments
        are described by the docstring (Google, numpy or Sphinx style), or by an
        `Annotated[..., pydantic.Field(description=...)]`, which goes first.

        Raises:
            TypeError: the function cannot be a tool; names it and says what to write instead.
        """
        if isinstance(function, Tool):
            return function
        name = _name_of(function)
        arguments = _arguments_of(name, function)
        documentation = _documentation_of(function)
        return cls(
            name=name,
            description=documentation.description,
            input_schema=_input_schema(arguments, documentation.arguments),
            function=function,
            is_async=inspect.iscoroutinefunction(_definition_of(function)),
            owner=_owner_of(function),
            _arguments=arguments,
        )

    def bind(self, arguments: Mapping[str, Any]) -> Call:
        """The call with the arguments that a model gave.

        Raises:
            ToolError: they do not fit the schema; says which and why.
        """
        try:
            valid = self._arguments.model_validate(arguments)
        except ValidationError as error:
            raise ToolError(
                f"The input of tool {self.name!r} does not fit its schema:\n{problems_of(error)}"
            ) from error
        fields = type(valid).model_fields
        kwargs = {one.removeprefix(FIELD_PREFIX): getattr(valid, one) for one in fields}
        return Call(self.function, kwargs, self.is_async, self.owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def tool_schema(tool: Callable[..., Any]) -> dict[str, Any]:
    """What the Messages API is told of a tool: `name`, `description` if any, `input_schema`.

    That of a `Tool` is at hand; that of a function is made anew, in milliseconds.

    Raises:
        TypeError: as `Tool.of`.
    """
    one = Tool.of(tool)
    described = {"description": one.description} if one.description else {}
    return {"name": one.name, **described, "input_schema": one.input_schema}


class ToolBox:
    """An agent's tools, by name.

    Attributes:
        tools: each of them as a `Tool`, in order; a backend given these makes no schema anew.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]] = ()) -> None:
        """Make tools of functions.

        Raises:
            TypeError: one cannot be a tool, or two have the same name.
        """
        if callable(functions) or isinstance(functions, str | Mapping):
            raise TypeError(
                f"tools must be a list of functions, got {functions!r}; write tools=[...]"
            )
        self.tools = tuple(map(Tool.of, functions))
        self._by_name: dict[str, Tool] = {}
        for tool in self.tools:
            if tool.name in self._by_name:
                raise TypeError(
                    f"two tools are called {tool.name!r}; give one of the functions another name"
                )
            self._by_name[tool.name] = tool

    def __len__(self) -> int:
        return len(self.tools)

    def bind(self, name: str, arguments: Mapping[str, Any]) -> Call:
        """The call that a model asks for.

        Raises:
            ToolError: there is no such tool, or the arguments do not fit it.
        """
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "none"
            raise ToolError(f"There is no tool {name!r}. The tools are: {known}.")
        return self._by_name[name].bind(arguments)


def result_text(value: object) -> str:
    """What a tool returned, as the model reads it: a text as it is, anything else as JSON.

    `None` is an empty text.

    Raises:
        ToolError: JSON cannot hold it.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return _without_surrogates(str.__str__(value))
    try:
        return to_json(value, inf_nan_mode="strings").decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolError(
            f"The tool returned a {type(value).__name__}, which JSON cannot hold: {error}. "
            "A tool must return a text, a pydantic model or what JSON can hold."
        ) from error


def error_text(error: BaseException) -> str:
    """What the model reads when a tool has raised: the error's type and message."""
    if isinstance(error, ToolError):
        return _without_surrogates(str(error))
    name, message = type(error).__name__, str(error)
    return _without_surrogates(f"{name}: {message}" if message else name)


def _without_surrogates(text: str) -> str:
    """A half character, as in a file's undecodable name, travels in no JSON."""
    return text.encode(errors="backslashreplace").decode()


# What a function says of itself


@dataclass(frozen=True)
class _Documentation:
    description: str
    arguments: dict[str, str]


def _definition_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The `def` behind partials and objects with `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _owner_of(function: Callable[..., Any]) -> object:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__self__", None) if inspect.isroutine(function) else function


def _fixed_arguments(function: Callable[..., Any]) -> set[str]:
    fixed: set[str] = set()
    while isinstance(function, functools.partial):
        fixed |= function.keywords.keys()
        function = function.func
    return fixed


def _name_of(function: object) -> str:
    if not callable(function):
        raise TypeError(f"a tool must be a function, got {function!r}")
    if isinstance(function, type):
        raise TypeError(
            f"tool {function.__name__!r} is a class; write a function that makes and returns one"
        )
    name = getattr(function, "__name__", None) or _name_of_definition(function)
    if name == "<lambda>":
        raise TypeError("a lambda has no name for the model to call; write the tool with def")
    if not VALID_NAME.fullmatch(name):
        raise TypeError(
            f"tool {name!r}: its name must match ^{VALID_NAME.pattern}$; give it another name"
        )
    return str(name)


def _name_of_definition(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _documentation_of(function: Callable[..., Any]) -> _Documentation:
    text = _docstring_of(_definition_of(function), _owner_of(function))
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return _Documentation(text, {})
    arguments = {one.arg_name: one.description for one in parsed.params if one.description}
    return _Documentation(parsed.description or "", arguments)


def _docstring_of(definition: Callable[..., Any], owner: object) -> str:
    if definition.__name__ != "__call__":
        return inspect.getdoc(definition) or ""
    return inspect.cleandoc(definition.__doc__ or type(owner).__doc__ or "")


# Its signature


def _arguments_of(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """The model whose fields are the function's parameters."""
    fields: dict[str, Any] = {}
    for parameter in _parameters_of(name, function):
        hint = _hint_of(name, function, parameter)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[FIELD_PREFIX + parameter.name] = (hint, default)
    config = ConfigDict(extra="forbid", alias_generator=_without_prefix)
    return create_model("Arguments", __config__=config, **fields)


def _without_prefix(name: str) -> str:
    return name.removeprefix(FIELD_PREFIX)


def _parameters_of(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise TypeError(f"tool {name!r} has no signature; write a def that calls it") from error
    definition = _definition_of(function)
    if inspect.isgeneratorfunction(definition) or inspect.isasyncgenfunction(definition):
        raise TypeError(f"tool {name!r} yields; return a list of everything instead")
    fixed = _fixed_arguments(function)
    parameters = [one for one in signature.parameters.values() if one.name not in fixed]
    for parameter in parameters:
        _check_kind(name, parameter)
    return parameters


def _check_kind(name: str, parameter: inspect.Parameter) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise TypeError(
            f"tool {name!r}: a model cannot be told what {str(parameter)!r} takes; "
            "write one parameter for each argument, or one list"
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise TypeError(
            f"tool {name!r}: parameter {parameter.name!r} is positional-only, but tools are "
            "called by name; remove the '/' after it"
        )
    if parameter.annotation is parameter.empty:
        raise TypeError(
            f"tool {name!r}: parameter {parameter.name!r} has no type hint; "
            f"write {parameter.name}: str, or what it is"
        )


def _hint_of(name: str, function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    try:
        hint = _evaluated(function, parameter)
        schema_of(TypeAdapter(hint))
    except NameError as error:
        raise TypeError(
            f"tool {name!r}: the type hint of parameter {parameter.name!r} cannot be read: "
            f"{error}; import or define it at the top of the module, where the tool runs too"
        ) from error
    except (PydanticUserError, TypeError) as error:
        raise TypeError(
            f"tool {name!r}: parameter {parameter.name!r} is hinted {parameter.annotation!r}, "
            "which pydantic cannot make a JSON schema of; use str, int, float, bool, list, dict, "
            "Literal, a dataclass or a pydantic model"
        ) from error
    return hint


def _evaluated(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The hint, when it is written as a text too; what is returned may be hinted as one likes."""
    definition = inspect.unwrap(_definition_of(function))
    hinted = types.SimpleNamespace(__annotations__={"hint": parameter.annotation})
    names = getattr(definition, "__globals__", {})
    return typing.get_type_hints(hinted, globalns=names, include_extras=True)["hint"]


def _input_schema(arguments: type[BaseModel], descriptions: Mapping[str, str]) -> dict[str, Any]:
    schema = schema_of(TypeAdapter(arguments))
    del schema["title"]
    for name, described in schema["properties"].items():
        if name in descriptions:
            described.setdefault("description", descriptions[name])
    return schema
