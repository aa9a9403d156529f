"""Pydantic models as code, for processes that cannot import them.

Pydantic's validators and serializers are built as they are unpickled, from schemas that a
class and the classes inside it share. Where classes refer to each other, one is built before
its schema is whole. So they are left out, and built once everything else is there.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from typing import Any

import cloudpickle
import cloudpickle.cloudpickle as tracked
from pydantic import BaseModel
from pydantic_core import SchemaSerializer, SchemaValidator

from raypool.payload import travelling_as_code

BUILT = ("__pydantic_validator__", "__pydantic_serializer__")


class _Unbuilt:
    """A validator or serializer that is still to be built.

    Attributes:
        recipe: its class, and what it is made of; known last, when all of it is whole.
    """

    recipe: tuple[Any, tuple[Any, ...]]

    def __setstate__(self, recipe: tuple[Any, tuple[Any, ...]]) -> None:
        self.recipe = recipe

    def build(self) -> object:
        kind, parts = self.recipe
        return kind(*parts)


class _ModelPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Leaves out what some classes have built."""

    def __init__(self, file: io.BytesIO, classes: Iterable[type]) -> None:
        super().__init__(file)
        self._left_out = {
            id(vars(one)[name]) for one in classes for name in BUILT if name in vars(one)
        }

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, SchemaValidator | SchemaSerializer) and id(obj) in self._left_out:
            return _Unbuilt, (), obj.__reduce__()
        return super().reducer_override(obj)


def dump_model(model: type) -> bytes:
    """Pickle a model, or a class inside one, with what workers cannot import as code.

    Raises:
        Exception: whatever pickling raises.
    """
    file = io.BytesIO()
    classes = _classes_inside(model)
    _complete(classes)
    with travelling_as_code():
        _ModelPickler(file, classes).dump((model, classes))
    return file.getvalue()


def load_model(pickled: bytes) -> Any:
    """The model that was pickled; a class that came from this process is its own again."""
    model, classes = cloudpickle.loads(pickled)
    for one in classes:
        for name in BUILT:
            if isinstance(unbuilt := vars(one).get(name), _Unbuilt):
                setattr(one, name, unbuilt.build())
    return model


def dump_answer(answer: object) -> bytes:
    """Pickle an object whose classes came as code, for `pickle.loads`.

    Where a class came from it is that very class, untouched; elsewhere a copy.

    Raises:
        Exception: whatever pickling raises.
    """
    file = io.BytesIO()
    _AnswerPickler(file).dump(answer)
    return file.getvalue()


class _AnswerPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends back what cloudpickle knows a class by; its own way would set all of it anew."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj in tracked._DYNAMIC_CLASS_TRACKER_BY_CLASS:
            return _known_class, (tracked._get_or_create_tracker_id(obj), _as_code(obj))
        return super().reducer_override(obj)


@functools.lru_cache(maxsize=256)
def _as_code(one: type) -> bytes:
    return dump_model(one)


def _known_class(tracker_id: str, code: bytes) -> type:
    known: type | None = tracked._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    return load_model(code) if known is None else known


def _complete(classes: Iterable[type]) -> None:
    """A class that names a later one is completed when it is first used: here, if not before."""
    for one in classes:
        if issubclass(one, BaseModel) and one is not BaseModel:
            one.model_rebuild(raise_errors=False)


def _classes_inside(model: type) -> list[type]:
    """The model, the classes that its schema names, and what they are derived from."""
    found: dict[type, None] = dict.fromkeys(model.__mro__)
    open_ends: list[Any] = [vars(model).get("__pydantic_core_schema__")]
    while open_ends:
        end = open_ends.pop()
        if isinstance(end, dict):
            open_ends += end.values()
            if isinstance(one := end.get("cls"), type):
                found |= dict.fromkeys(one.__mro__)
        elif isinstance(end, list | tuple):
            open_ends += end
    return list(found)
