"""One Ray for all tests, and pools that end with the test that started them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import settings
from ray._private import ray_constants

from raypool import Pool
from raypool.backends import ScriptedBackend
from tests.postgres_server import PostgresServer

StartPool = Callable[..., Pool]

# How long an example takes says how busy the machine is.
settings.register_profile("no deadline", settings(), deadline=None)
settings.load_profile("no deadline")

# Under `uv run`, Ray would make the environment anew for every worker of every test.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"


def pytest_configure() -> None:
    """A shell has what it runs in the background ignore Ctrl-C, and tests' programs inherit that.

    Not at import: workers import this module, on threads that may set no handler.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of this run make their temporary files; Ray's own need short paths."""
    directory = tmp_path_factory.mktemp("files")
    os.environ["TMPDIR"] = str(directory)
    os.environ["RAY_TMPDIR"] = "/tmp"
    tempfile.tempdir = None
    return directory


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run's own; it runs, whatever a test has done to it."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def local_ray(temporary_files: Path) -> Iterator[None]:
    """A Ray of this run's own, whatever else runs on the machine."""
    os.environ.pop("RAY_ADDRESS", None)
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def start_pool(local_ray: None) -> Iterator[StartPool]:
    """Starts pools as `Pool.start` does, with a scripted backend unless told otherwise."""
    pools: list[Pool] = []

    def start(size: int | None = None, **options: Any) -> Pool:
        options.setdefault("backend", ScriptedBackend())
        pool = Pool.start(size, **options)
        pools.append(pool)
        return pool

    yield start
    for pool in pools:
        pool.stop()


@pytest.fixture(scope="session")
def echo_pool(local_ray: None) -> Iterator[Pool]:
    """Three workers that echo, shared by tests that leave it as it was."""
    with Pool.start(3, role="trivia expert", backend=ScriptedBackend()) as pool:
        yield pool
