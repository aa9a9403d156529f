"""What a function says of itself: its name, what it is for, and what it takes.

Errors name the function as a tool, since only tools are read so.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import docstring_parser
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from raypool.schemas import schema_of

VALID_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
STARS: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


@dataclass(frozen=True)
class Documentation:
    """What a docstring says.

    Attributes:
        description: all but its sections about arguments, what is returned and errors.
        arguments: by name, what it says of arguments.
    """

    description: str
    arguments: dict[str, str]


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, method or object inside partials and caches."""
    while not inspect.isroutine(function):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    return function


def definition_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The `def` that runs when it is called."""
    callee = inner(function)
    return callee if inspect.isroutine(callee) else type(callee).__call__


def owner_of(function: Callable[..., Any]) -> object:
    """The object whose method it is; `None` for a plain function."""
    callee = inner(function)
    return getattr(callee, "__self__", None) if inspect.isroutine(callee) else callee


def name_of(function: object) -> str:
    """The name by which a model calls it.

    Raises:
        TypeError: it is no function, or its name is none that the Messages API takes.
    """
    if not callable(function):
        raise TypeError(f"a tool must be a function, got {function!r}")
    if isinstance(function, type):
        raise TypeError(
            f"tool {function.__name__!r} is a class; write a function that makes and returns one"
        )
    callee = inner(function)
    named = (getattr(one, "__name__", "") for one in (function, callee, type(callee)))
    name = str(next(filter(None, named)))
    if name == "<lambda>":
        raise TypeError("a lambda has no name for the model to call; write the tool with def")
    if not VALID_NAME.fullmatch(name):
        raise TypeError(
            f"tool {name!r}: its name must match ^{VALID_NAME.pattern}$; give it another name"
        )
    return name


def documentation_of(function: Callable[..., Any]) -> Documentation:
    """What its docstring says, in Google, numpy or Sphinx style."""
    text = _docstring_of(definition_of(function), owner_of(function))
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return Documentation(text, {})
    arguments = {one.arg_name: one.description for one in parsed.params if one.description}
    return Documentation((parsed.description or "").strip(), arguments)


def _docstring_of(definition: Callable[..., Any], owner: object) -> str:
    if definition.__name__ != "__call__":
        return inspect.getdoc(definition) or ""
    return inspect.cleandoc(definition.__doc__ or type(owner).__doc__ or "")


def parameters_of(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What it takes, but for what a `functools.partial` has fixed.

    Raises:
        TypeError: something of its signature cannot be described to a model.
    """
    definition = definition_of(function)
    if inspect.isgeneratorfunction(definition) or inspect.isasyncgenfunction(definition):
        raise TypeError(f"tool {name!r} yields; return a list of everything instead")
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise TypeError(f"tool {name!r} has no signature; write a def that calls it") from error
    fixed = _fixed_arguments(function)
    parameters = [one for one in signature.parameters.values() if one.name not in fixed]
    for parameter in parameters:
        _check_parameter(name, parameter)
    return parameters


def _fixed_arguments(function: Callable[..., Any]) -> set[str]:
    fixed: set[str] = set()
    while isinstance(function, functools.partial):
        fixed |= function.keywords.keys()
        function = function.func
    return fixed


def _check_parameter(name: str, parameter: inspect.Parameter) -> None:
    if stars := STARS.get(parameter.kind):
        raise TypeError(
            f"tool {name!r}: a model cannot be told what {stars}{parameter.name} takes; "
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


def hint_of(name: str, function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The type of a parameter.

    Raises:
        TypeError: its hint names something unknown, or pydantic makes no JSON schema of it.
    """
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
    definition = inspect.unwrap(definition_of(function))
    hinted = types.SimpleNamespace(__annotations__={"hint": parameter.annotation})
    names = getattr(definition, "__globals__", {})
    return typing.get_type_hints(hinted, globalns=names, include_extras=True)["hint"]
