"""What lets the same command go on where it stopped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raypool.cli.problem import Problem
from raypool.ledger import Ledger
from raypool.postgres_place import without_password

SETTINGS_KEY = "raypool run"
_TEXTS = ("system", "template", "output_type")
"""What is known by its digest only."""
_OPTIONS = {"output_type": "--schema or --output-type"}


def ledger_beside(output: Path) -> Path:
    """Where the ledger of an output is unless another is named."""
    return output.with_name(f"{output.name}.ledger")


def keep_settings(ledger: Ledger, settings: Mapping[str, Any], start_over: str) -> None:
    """Keep what the answers of this run depend on.

    Raises:
        Problem: the ledger has tasks that were asked otherwise; says what changed, and
            `start_over`.
    """
    totals = ledger.totals()
    kept = ledger.meta(SETTINGS_KEY)
    if totals.last_number and kept is None:
        raise Problem(f"the ledger was not made by raypool run; {start_over}")
    if totals.last_number and kept is not None:
        changed = changes(msgspec.json.decode(kept), settings)
        if changed:
            raise Problem(f"these answers were asked for otherwise: {changed}; {start_over}")
    ledger.set_meta(SETTINGS_KEY, msgspec.json.encode(settings).decode())


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is different, in the words of the command line; empty when nothing is."""
    names = sorted(before.keys() | now.keys())
    return ", ".join(
        _change(name, before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
    )


def _change(name: str, before: object, now: object) -> str:
    option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
    if name in _TEXTS and before is not None and now is not None:
        return f"{option} is another one"
    if name in _TEXTS:
        return f"{option} was not given before" if before is None else f"{option} is missing"
    return f"{option} was {_shown(before)} and is now {_shown(now)}"


def _shown(value: object) -> str:
    return "not given" if value is None else str(value)


def resume_command(arguments: Sequence[str]) -> str:
    """The command line that finishes what is unfinished, and asks no failed row again.

    A password in it is masked.
    """
    kept = (word for word in arguments if word not in {"--retry-failed", "--restart"})
    return shlex.join(["raypool", *map(without_password, kept)])
