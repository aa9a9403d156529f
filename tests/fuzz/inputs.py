"""Odd inputs: near-misses of what is right, and what nobody expects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("RAYPOOL_FUZZ_TIMES", "1"))
"""How many times as many inputs as in CI are made; more than one are new ones in each run."""

BATCH = 25

Value = TypeVar("Value")

NASTY = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\ud800",
    "\udfff tail",
    "\ufeff",
    "\u2028\u2029\u0085",
    "\x1b[31m",
    "NaN",
    "1e999",
    "../../etc/passwd",
    "'; drop table tasks; --",
    "%s {} {0!r}",
    "x" * 600,
    "é" * 300,
    "🧪",
    "\u202egnp",
]

texts = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=()), max_size=12)
numbers = (
    st.sampled_from([0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**400])
    | st.integers()
    | st.floats()
    | st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 1e308])
)
scalars = st.none() | st.booleans() | numbers | texts
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
python_values = (
    json_values
    | st.binary(max_size=8)
    | st.sampled_from([object(), int, len, ..., {1, 2}, {1: 2}, (1, 2), 1j, ValueError("no")])
)

blocks = st.fixed_dictionaries(
    {}, optional={"type": texts | st.sampled_from(["text", "image"]), "text": scalars}
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system"]) | scalars,
        "content": scalars | st.lists(blocks | scalars, max_size=2),
    },
)
prompts = texts | st.lists(messages | scalars, max_size=3) | python_values

rows = st.dictionaries(
    st.sampled_from(["prompt", "messages", "id", "custom_id", "metadata", "text", "error"]) | texts,
    json_values | st.lists(messages, max_size=2),
    max_size=4,
) | st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=12) | scalars},
    optional={"id": st.integers(0, 99) | texts, "topic": json_values, "usage": scalars},
)


def travels(value: object) -> bool:
    """Whether a value can be sent and comes back as it is; NaN and infinity do not."""
    try:
        return repr(msgspec.json.decode(msgspec.json.encode(value))) == repr(value) and bool(
            msgspec.msgpack.encode(value)
        )
    except (ValueError, OverflowError, RecursionError):
        return False


def _as_line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _torn(line: bytes, place: int, piece: bytes) -> bytes:
    at = place % (len(line) + 1)
    return line[:at] + piece + line[at + len(piece) :]


whole_lines = (rows | json_values).map(_as_line)
torn_lines = st.builds(
    _torn, whole_lines, st.integers(0, 200), st.sampled_from([b"", b"\xff", b'"', b"}", b"\\ud800"])
)
deep_lines = st.integers(50, 3000).map(
    lambda depth: b'{"prompt": "hi", "x": ' + b"[" * depth + b"]" * depth + b"}"
)
lines = (
    whole_lines
    | torn_lines
    | st.binary(max_size=40)
    | st.sampled_from([b"", b"\t", b"\xef\xbb\xbf"])
)
lines = lines.map(lambda line: line.replace(b"\n", b" "))


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Settings for a test that is given batches: the same ones in each run of CI."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


def gathered(values: st.SearchStrategy[Value], count: int) -> list[Value]:
    """So many values and a few more, for what is to have all of them at once."""
    found: list[Value] = []

    @fuzz(-(-count // BATCH) * 2)
    @given(batch=st.lists(values, min_size=BATCH, max_size=BATCH))
    def gather(batch: list[Value]) -> None:
        if len(found) < count * TIMES:
            found.extend(batch)

    gather()
    return found
