"""Tools: plain functions that a model may call, and what it is told of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import to_json

from raypool.schemas import problems_of, schema_of
from raypool.signatures import (
    definition_of,
    documentation_of,
    hint_of,
    name_of,
    owner_of,
    parameters_of,
)
from raypool.unicode import unicode_text

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
        name = name_of(function)
        arguments = _arguments_of(name, function)
        documentation = documentation_of(function)
        return cls(
            name=name,
            description=documentation.description,
            input_schema=_input_schema(arguments, documentation.arguments),
            function=function,
            is_async=inspect.iscoroutinefunction(definition_of(function)),
            owner=owner_of(function),
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

    def __contains__(self, name: str) -> bool:
        """Whether there is a tool of that name."""
        return name in self._by_name

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
        return unicode_text(str.__str__(value))
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
        return unicode_text(str(error))
    name, message = type(error).__name__, str(error)
    return unicode_text(f"{name}: {message}" if message else name)


def _arguments_of(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """The model whose fields are the function's parameters."""
    fields: dict[str, Any] = {}
    for parameter in parameters_of(name, function):
        hint = hint_of(name, function, parameter)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[FIELD_PREFIX + parameter.name] = (hint, default)
    config = ConfigDict(extra="forbid", alias_generator=_without_prefix)
    return create_model("Arguments", __config__=config, **fields)


def _without_prefix(name: str) -> str:
    return name.removeprefix(FIELD_PREFIX)


def _input_schema(arguments: type[BaseModel], descriptions: Mapping[str, str]) -> dict[str, Any]:
    schema = schema_of(TypeAdapter(arguments))
    del schema["title"]
    for name, described in schema["properties"].items():
        if name in descriptions:
            described.setdefault("description", descriptions[name])
    return schema
