"""Imports point one way; read from the source, so that no import needs to run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import raypool

PACKAGE = Path(raypool.__file__).parent

LAYERS = [
    # Words
    "errors clock usage status stream watchdog window barrier text_stream provider_limits",
    "postgres_place postgres_schema",
    "config loads interruption janitor",
    "temporary",
    "sqlite_schema sqlite_statements autoscaling naming unicode threads amounts setbacks",
    "quantiles task events prices file_hold telemetry schemas json_text pieces",
    "response signatures",
    "agent",
    # What users extend or hold, and where tasks are kept
    "payload tools",
    "model_pickling",
    "output_type",
    "records",
    "lane",
    "backends callbacks future ledger session_options",
    "messages group_commit tally ledger_rows postgres_connection",
    "sqlite_rows",
    # Decisions
    "postgres_rows postgres_hold",
    "postgres_session postgres_sessions",
    "desk outbox retries sealing sqlite_file sqlite_sessions verdicts limits halting snapshots",
    "votes conversations recipes terms mapping task_record mailbox sqlite_ledger kept_types",
    "shelf_watchers",
    "shelf",
    "shelves",
    "postgres_writes",
    "postgres_ledger",
    "ledgers",
    "accounts routing reported answers",
    "capacity line races",
    "chain sessions roster backlog fingerprints",
    "outcomes",
    "asking",
    "attempts",
    "chain_run",
    "turns",
    "host",
    "endings rivals ready copies hedging",
    "dealing placing",
    "places",
    "sending settling",
    "scheduler",
    "recorder hedger setback_log",
    "intake",
    # Actors, and what speaks to them
    "names connection membership",
    "worker client governor",
    "link waiting governor_link",
    "sender crew listening",
    "replacing joining leaving rejoining in_flight",
    "scaling",
    "overview unshelving watching",
    "assembly",
    "stopping",
    "dispatcher",
    "starting",
    # The handle
    "handle",
    "reading",
    "submitting",
    "racing",
    "pool",
    "raypool",
    # Entrances
    "report",
    "cli testing",
]
"""A module may import from the layers above its own; in a folder, also from its siblings."""

LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names.split()}
FIRST_LAYER_WITH_RAY = LAYER_OF["names"]

IMPORT_RAY = {
    "backends.local_session",
    "backends.model_server",
    "backends.server_lease",
    "client",
    "connection",
    "crew",
    "governor",
    "governor_link",
    "link",
    "names",
    "starting",
    "stopping",
    "worker",
}


class Import(NamedTuple):
    """One import in the source.

    Attributes:
        module: what is imported, without `raypool.` for ours.
        is_ours: it is part of raypool.
        runs_at_once: it runs as the module is imported, not later in a function.
    """

    module: str
    is_ours: bool
    runs_at_once: bool


def modules() -> dict[str, Path]:
    """Every module's file, by its name without `raypool.`; that of the package is `raypool`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix("__init__").removesuffix(".")
        found[name or "raypool"] = path
    return found


MODULES = modules()


def imports_of(name: str) -> list[Import]:
    """What a module imports; what only a type checker imports is left out."""
    return list(_imports(ast.parse(MODULES[name].read_text()), runs_at_once=True))


def _imports(tree: ast.AST, *, runs_at_once: bool) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (_named(alias.name, runs_at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (
                _named(_submodule(node.module or "", alias.name), runs_at_once)
                for alias in node.names
            )
        else:
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(node, runs_at_once=runs_at_once and not is_function)


def _submodule(module: str, name: str) -> str:
    whole = f"{module}.{name}"
    return whole if whole.removeprefix("raypool.") in MODULES else module


def _named(module: str, runs_at_once: bool) -> Import:
    is_ours = module.partition(".")[0] == "raypool"
    return Import(module.removeprefix("raypool."), is_ours, runs_at_once)


IMPORTS = {name: imports_of(name) for name in MODULES}


def top(name: str) -> str:
    return name.partition(".")[0]


def imports_at_once(name: str) -> set[str]:
    return {one.module for one in IMPORTS[name] if one.is_ours and one.runs_at_once}


def reachable(name: str) -> set[str]:
    """The modules of ours that importing `name` imports, itself included."""
    found: set[str] = set()
    open_ends = {name}
    while open_ends:
        found |= open_ends
        open_ends = {one for end in open_ends for one in imports_at_once(end)} - found
    return found


def importers_of(library: str) -> set[str]:
    return {
        name
        for name, imports in IMPORTS.items()
        if any(not one.is_ours and top(one.module) == library for one in imports)
    }


def test_every_module_has_its_layer() -> None:
    assert {top(name) for name in MODULES} == set(LAYER_OF)


@pytest.mark.parametrize("name", MODULES)
def test_imports_come_from_the_layers_above(name: str) -> None:
    wrong = [
        one.module
        for one in IMPORTS[name]
        if one.is_ours
        and top(one.module) != top(name)
        and LAYER_OF[top(one.module)] >= LAYER_OF[top(name)]
    ]

    assert wrong == []


def test_no_import_leads_back_to_where_it_came_from() -> None:
    cycles = {name for name in MODULES for one in imports_at_once(name) if name in reachable(one)}

    assert cycles == set()


def test_ray_is_imported_only_where_it_is_needed() -> None:
    assert importers_of("ray") == IMPORT_RAY


def test_no_decision_reaches_ray() -> None:
    deciding = {name for name in MODULES if LAYER_OF[top(name)] < FIRST_LAYER_WITH_RAY}

    with_ray = {name for name in deciding if reachable(name) & IMPORT_RAY}

    assert with_ray == {name for name in deciding if name in IMPORT_RAY}


def test_package_itself_reaches_no_ray_until_a_pool_is_used() -> None:
    assert reachable("raypool") & IMPORT_RAY == set()


def test_vendors_are_known_to_the_backends_alone() -> None:
    vendors = importers_of("anthropic") | importers_of("xllamacpp")

    assert vendors
    assert {top(name) for name in vendors} == {"backends"}


def test_errors_import_nothing_of_ours() -> None:
    assert not any(one.is_ours for one in IMPORTS["errors"])
