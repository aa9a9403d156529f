"""Which Ray a pool runs on."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import ray
from ray._private import ray_constants

from raypool.errors import PoolStartError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
KNOCK_SECONDS = 5.0
SUBMIT_LINE = "ray job submit --address http://HEAD:8265 --working-dir . -- python your_program.py"


def connect(address: str | None) -> None:
    """Make sure that this process is connected to Ray.

    `None` means the Ray that this process uses already, else `RAY_ADDRESS`, else a new
    local one. A local Ray ends with the process.

    Raises:
        PoolStartError: the cluster cannot be reached, or the address is one of Ray Client.
    """
    if _is_ray_client(address) or _uses_ray_client():
        raise _no_ray_client()
    if ray.is_initialized():
        _check_same(address)
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if _is_ray_client(address):
        raise _no_ray_client()
    if address == "local":
        _start_local()
    else:
        _join(address)


def _check_same(address: str | None) -> None:
    here = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", "local", here):
        raise PoolStartError(
            f"this process uses the Ray at {here!r} already, and cannot use the one at "
            f"{address!r}; leave address out, or call ray.shutdown() first"
        )


def _start_local() -> None:
    # Under `uv run`, Ray would make the program's environment anew for every worker.
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    try:
        ray.init(address="local", include_dashboard=False, **QUIET)
    except Exception as error:  # Ray raises a bare one when a busy machine starts it too slowly
        raise PoolStartError(
            f"could not start a Ray on this machine: {error}; on a busy machine, try again"
        ) from error


def _join(address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, **QUIET)
    except (OSError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise PoolStartError(_unreachable(address, error)) from error


def _knock(address: str) -> None:
    """Ray itself tries an address where nobody listens for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _uses_ray_client() -> bool:
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]


def _is_ray_client(address: str | None) -> bool:
    return address is not None and address.startswith("ray://")


def _no_ray_client() -> PoolStartError:
    return PoolStartError(
        "raypool does not run over Ray Client (ray://): its futures must outlive a network "
        f"break. Run the program on the cluster instead: {SUBMIT_LINE}"
    )


def _unreachable(address: str, error: BaseException) -> str:
    hint = "is a Ray head running there?"
    if os.environ.get("RAY_AUTH_MODE") != "token":
        hint += " If it uses token authentication, set RAY_AUTH_MODE=token and its token"
    return f"could not connect to Ray at {address!r}: {error}; {hint}"
