"""An agent's state as JSON, and back."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from raypool.schemas import problems_of

NOTHING = "null"


def snapshot_json(snapshot: object) -> str:
    """The JSON that keeps what `Agent.snapshot` returned.

    Raises:
        TypeError: JSON cannot hold it; says what to return instead.
    """
    if isinstance(snapshot, BaseModel):
        return snapshot.model_dump_json()
    try:
        _check_keys(snapshot)
        return json.dumps(snapshot, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            "snapshot must return what JSON can hold (dicts with text keys, lists, texts, numbers, "
            f"booleans, None) or a pydantic model, got {type(snapshot).__name__}: {error}"
        ) from None


def _check_keys(value: object) -> None:
    """JSON would make texts of other keys, and give them back as such."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key is no text but of type {type(key).__name__}")
            _check_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item)


def restored(restore: Callable[[Any], Any], snapshot: str) -> Any:
    """What to give `restore`: the pydantic model that it asks for, else what JSON made of it.

    Raises:
        ValueError: the snapshot is not of that model any more; says where, not what it holds.
        TypeError: the annotation names what cannot be found.
    """
    wanted = _annotation(restore)
    if isinstance(wanted, type) and issubclass(wanted, BaseModel) and snapshot != NOTHING:
        try:
            return wanted.model_validate_json(snapshot)
        except ValidationError as error:
            raise ValueError(
                f"the snapshot is no {wanted.__name__} any more: {problems_of(error)}; give new "
                "fields a default, or start on another ledger"
            ) from None
    return json.loads(snapshot)


def _annotation(restore: Callable[[Any], Any]) -> Any:
    parameter = next(iter(inspect.signature(restore).parameters), "")
    try:
        return typing.get_type_hints(restore).get(parameter)
    except NameError as error:
        raise TypeError(
            f"the annotation of restore's parameter {parameter!r} cannot be read: {error}; "
            "import or define the model at the top of the module"
        ) from error
