"""The model server of a node: who may talk to it, and how long it lives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import ray

from raypool.backends.model_file import ModelFile, find_model
from raypool.backends.model_server import LEASE_SECONDS, ServerAddress, ServerSettings
from raypool.backends.server_lease import ServerLease
from raypool.errors import PoolStartError

pytestmark = pytest.mark.usefixtures("local_ray")

END_SECONDS = 5.0


class Holder:
    """A process that leases the server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._lease = ServerLease(settings)

    def process(self) -> int:
        return os.getpid()

    def server_process(self) -> int:
        return process_of(self._lease)


@pytest.fixture(scope="module")
def holder(local_ray: None) -> Any:
    return start_holder(settings(256))


@pytest.fixture(scope="module")
def lease(local_ray: None) -> Iterator[ServerLease]:
    lease = ServerLease(settings(256))
    yield lease
    lease.release()


def start_holder(settings: ServerSettings) -> Any:
    start: Any = ray.remote(num_cpus=0)(Holder)
    return start.remote(settings)


def settings(context_tokens: int) -> ServerSettings:
    return ServerSettings(find_model(None), slots=1, context_tokens=context_tokens)


def process_of(lease: ServerLease) -> int:
    lease.address()
    pid: int = ray.get(lease._server.__ray_call__.remote(lambda _: os.getpid()))
    return pid


def sockets_of(pid: int) -> list[tuple[object, ...]]:
    connections = psutil.Process(pid).net_connections()
    return [socket.laddr for socket in connections if socket.status == psutil.CONN_LISTEN]


def post(address: ServerAddress, key: str) -> httpx2.Response:
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-api-key": key, "Origin": "http://elsewhere.example"}
    return httpx2.post(f"{address.url}/v1/messages", json=body, headers=headers, timeout=60)


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def test_it_listens_on_the_loopback_interface_beside_what_ray_opens(
    lease: ServerLease, holder: Any
) -> None:
    of_server = sockets_of(process_of(lease))
    of_ray = sockets_of(ray.get(holder.process.remote()))

    assert ("127.0.0.1", int(lease.address().url.rpartition(":")[2])) in of_server
    assert len(of_server) == len(of_ray) + 1


def test_a_wrong_key_is_refused(lease: ServerLease) -> None:
    assert post(lease.address(), key="wrong").status_code == 401


def test_a_foreign_page_may_not_read_answers(lease: ServerLease) -> None:
    answer = post(lease.address(), key=lease.address().key)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://127.0.0.1"
    assert answer.headers.get("access-control-allow-credentials", "false") == "false"


def test_a_repr_hides_the_key(lease: ServerLease) -> None:
    assert lease.address().key not in repr(lease.address())


def test_other_settings_get_another_server(lease: ServerLease) -> None:
    other = ServerLease(settings(128))

    assert process_of(other) != process_of(lease)
    other.release()


def test_it_ends_with_its_last_user() -> None:
    first, second = ServerLease(settings(128)), ServerLease(settings(128))
    pid = process_of(first)
    assert process_of(second) == pid

    first.release()
    assert process_of(second) == pid

    second.release()
    assert wait_until(lambda: has_ended(pid), END_SECONDS)


def test_a_user_that_is_killed_frees_it() -> None:
    user = start_holder(settings(128))
    pid = ray.get(user.server_process.remote())

    ray.kill(user)

    assert wait_until(lambda: has_ended(pid), LEASE_SECONDS + END_SECONDS)


def test_a_file_with_another_digest_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(b"other")
    lease = ServerLease(ServerSettings(ModelFile(str(file), "00"), 1, 128))

    with pytest.raises(PoolStartError, match="sha256 must be 00"):
        lease.address()
