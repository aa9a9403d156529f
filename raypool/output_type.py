"""Output types: what an answer must be, and how it is read from the answer's text."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from raypool.agent import SessionOptions
from raypool.json_text import JsonText, json_in
from raypool.model_pickling import dump_model, load_model
from raypool.schemas import listed, problems_of, schema_of

WRAPPED = "The answer is the value of `answer`."
"""What the schema of a type that is no object says of itself: providers take objects only."""

Holder: TypeAlias = type[BaseModel]
"""A model whose only field, `answer`, has the output type."""


class InvalidAnswer(ValueError):
    """Raised when an answer is not what it must be; its text tells the model what is wrong."""


class OutputType:
    """What an answer must be; made by `OutputType.of` or `OutputType.from_schema`.

    Attributes:
        name: the type, as one reads it: `City`, `list[City]`.
        schema: its JSON schema, whose top is an object: a type that is none, as `list[City]`,
            is wrapped in one whose only property is `answer`.
        digest: what it is known by: SHA-256 of name and schema, in hexadecimal.
        holder: a model whose field `answer` has the type; `None` when only its schema is at hand.
    """

    def __init__(self, name: str, schema: dict[str, Any], holder: Holder | None = None) -> None:
        self.name = name
        self.schema = schema
        self.digest = digest_of(name, schema)
        self.holder = holder
        self._read = (
            _reader_by_schema(name, schema) if holder is None else _reader_by_type(holder, schema)
        )

    @staticmethod
    def of(value: Any) -> OutputType:
        """The output type that a pydantic model, or any type that pydantic validates, is.

        An `OutputType` is returned as it is; that of a type is made once.

        Raises:
            TypeError: it is no such type; says what to write instead.
        """
        if isinstance(value, OutputType):
            return value
        _check_is_type(value)
        try:
            hash(value)
        except TypeError:
            return _made_of(value)
        return _made_once(value, repr(value))

    @staticmethod
    def from_schema(name: str, schema: dict[str, Any]) -> OutputType:
        """An output type of which only the schema is at hand: what it parses is plain JSON.

        Raises:
            TypeError: it is no JSON schema.
        """
        return OutputType(name, schema)

    def parse(self, text: str) -> Any:
        """What an answer holds. JSON may stand alone, in the only fence, or amid prose.

        Raises:
            InvalidAnswer: there is no JSON in it, or it does not fit.
        """
        found = _found_in(text)
        is_held = is_wrapped(self.schema) and _has_answer(found.value)
        return self._read(found.text if is_held else f'{{"answer": {found.text}}}')

    def correction(self, error: InvalidAnswer) -> str:
        """The prompt that asks again after an answer that did not fit."""
        schema = json.dumps(self.schema, ensure_ascii=False)
        return (
            f"{error}\n\nAnswer again, with nothing but JSON that fits this JSON schema:\n{schema}"
        )

    def __repr__(self) -> str:
        return f"OutputType({self.name})"

    def __reduce__(self) -> tuple[Callable[[bytes], OutputType], tuple[bytes]]:
        return unpack_output_type, (pack_output_type(self),)


def output_schema(options: SessionOptions) -> dict[str, Any] | None:
    """The JSON schema that every answer of a session must fit; `None` when text will do.

    Raises:
        TypeError: as `OutputType.of`.
    """
    if options.output_type is None:
        return None
    return OutputType.of(options.output_type).schema


def plain(text: str, schema: Mapping[str, Any] | None = None) -> Any:
    """The JSON value in an answer's text, unchecked; with its type's `schema`, unwrapped too.

    Raises:
        InvalidAnswer: there is no JSON in it.
    """
    value = _found_in(text).value
    is_held = schema is not None and is_wrapped(schema) and _has_answer(value)
    return value["answer"] if is_held else value


def is_wrapped(schema: Mapping[str, Any]) -> bool:
    """Whether the schema of an output type is that of an object around the answer."""
    return schema.get("description") == WRAPPED


def digest_of(name: str, schema: Mapping[str, Any]) -> str:
    """What an output type is known by, wherever its class is not at hand."""
    text = json.dumps([name, schema], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# How an output type travels


class PackedOutputType(msgspec.Struct, frozen=True, array_like=True):
    """An output type as it travels: only workers unpickle it.

    Attributes:
        name: the type, as one reads it.
        schema_json: its JSON schema, its properties in the order in which a model answers.
        pickled: its holder; `None` when only its schema was at hand.
    """

    name: str
    schema_json: str
    pickled: bytes | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema."""
        schema: dict[str, Any] = json.loads(self.schema_json)
        return schema

    @property
    def digest(self) -> str:
        """What the output type is known by."""
        return digest_of(self.name, self.schema)


_decode_packed = msgspec.msgpack.Decoder(PackedOutputType).decode


@functools.lru_cache(maxsize=256)
def pack_output_type(output_type: OutputType) -> bytes:
    """An output type as a worker can read it, its class as code where workers cannot import it.

    What a worker has parsed and pickled is, where the class came from, of that class.

    Raises:
        TypeError: the type cannot be pickled; says why.
    """
    name, holder = output_type.name, output_type.holder
    pickled = None if holder is None else _pickled(name, holder)
    return msgspec.msgpack.encode(PackedOutputType(name, json.dumps(output_type.schema), pickled))


def read_packed(packed: bytes) -> PackedOutputType:
    """What is known of a packed output type without unpickling anything."""
    return _decode_packed(packed)


def unpack_output_type(packed: bytes) -> OutputType:
    """The output type that was packed. It unpickles the class: for workers, not dispatchers."""
    known = read_packed(packed)
    holder = None if known.pickled is None else load_model(known.pickled)
    return OutputType(known.name, known.schema, holder)


def _pickled(name: str, holder: Holder) -> bytes:
    # The holder carries its validator; of the type alone one would be made anew in the worker,
    # where the module that its annotations name may be another or missing.
    try:
        return dump_model(holder)
    except Exception as error:
        raise TypeError(
            f"output_type {name} must be something that can be pickled, to be sent to the "
            f"workers: {type(error).__name__}: {error}"
        ) from error


# How it is made of a type


@functools.lru_cache(maxsize=256)
def _made_once(type_: Any, _as_written: str) -> OutputType:
    # `Literal["a", "b"]` equals `Literal["b", "a"]`, and their schemas differ.
    return _made_of(type_)


def _made_of(type_: Any) -> OutputType:
    try:
        schema = _object_at_the_top(schema_of(TypeAdapter(type_)))
        holder = create_model(
            "Answer", __config__=ConfigDict(extra="forbid"), __doc__=WRAPPED, answer=(type_, ...)
        )
        if schema.get("type") != "object":
            schema = schema_of(TypeAdapter(holder))
        return OutputType(_name_of(type_), schema, holder)
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        raise _not_a_type(type_, str(error).partition("\n")[0].partition(". ")[0]) from error


def _object_at_the_top(schema: dict[str, Any]) -> dict[str, Any]:
    """A type that refers to itself has a reference at the top, which not all providers take."""
    definitions = schema.get("$defs", {})
    target = definitions.get(schema.get("$ref", "").removeprefix("#/$defs/"))
    return schema if target is None else {**target, "$defs": definitions}


def _check_is_type(value: object) -> None:
    is_object = isinstance(value, BaseModel | TypeAdapter) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )
    if is_object:
        raise _not_a_type(value, f"that is a {type(value).__name__} object, not its class")
    if isinstance(value, Mapping):
        raise _not_a_type(value, "for a JSON schema write OutputType.from_schema(name, schema)")
    if value is None or isinstance(value, str) or inspect.isroutine(value):
        raise _not_a_type(value, "that is no type")


def _not_a_type(value: object, why: str) -> TypeError:
    return TypeError(
        "output_type must be a pydantic model, or another type that pydantic validates and JSON "
        f"can hold, such as a dataclass or list[City]; got {value!r}: {why}"
    )


def _name_of(type_: Any) -> str:
    """The type as one reads it; the same in every process, unlike some types' `repr`."""
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if type_ in (None, types.NoneType):
        return "None"
    if origin is None:
        return str(getattr(type_, "__name__", type_))
    if origin is typing.Annotated:
        return _name_of(arguments[0])
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    names = ["..." if one is ... else _name_of(one) for one in arguments]
    if origin in (typing.Union, types.UnionType):
        return " | ".join(names)
    return f"{_name_of(origin)}[{', '.join(names)}]"


# How an answer is read


def _found_in(text: str) -> JsonText:
    try:
        return json_in(text)
    except ValueError as error:
        raise InvalidAnswer(f"The answer is not JSON: {error}") from error


def _has_answer(value: object) -> bool:
    return isinstance(value, dict) and "answer" in value


def _reader_by_type(holder: Holder, schema: dict[str, Any]) -> Callable[[str], Any]:
    """Reads `{"answer": …}` as the type."""
    unknown_to_model = 0 if is_wrapped(schema) else 1

    def read(held: str) -> Any:
        try:
            return vars(holder.model_validate_json(held))["answer"]
        except ValidationError as error:
            raise _misfit(problems_of(error, below=unknown_to_model)) from error

    return read


def _reader_by_schema(name: str, schema: dict[str, Any]) -> Callable[[str], Any]:
    """Reads `{"answer": …}` as plain JSON that fits the schema."""
    import jsonschema  # noqa: PLC0415 - takes a fifth of a second
    import referencing  # noqa: PLC0415

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise TypeError(f"the schema of {name} is no JSON schema: {error.message}") from error
    # With a registry of its own it fetches nothing that a `$ref` names.
    validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())

    def read(held: str) -> Any:
        value = from_json(held)
        checked = value if is_wrapped(schema) else value["answer"]
        errors = [(one.absolute_path, one.message) for one in validator.iter_errors(checked)]
        if errors:
            raise _misfit(listed(errors))
        return value["answer"]

    return read


def _misfit(problems: str) -> InvalidAnswer:
    return InvalidAnswer(f"The answer does not fit its schema:\n{problems}")
