"""`raypool run` as a Ray job: what `ray job stop` leaves, and the same job again."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from raypool.testing import MessagesServer
from tests.programs import await_that

ROWS = 12
STOP_WAIT = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}
PORTS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Cluster:
    """A Ray of this test's own, to which jobs can be submitted."""

    def __init__(self, place: Path) -> None:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._place = place
        self._address = f"http://127.0.0.1:{ports['--dashboard-port']}"
        self._environment = {
            **{name: os.environ[name] for name in os.environ if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": "/tmp",
        }
        given = [f"{name}={port}" for name, port in ports.items()]
        with (place / "head").open("wb") as said:
            self._head = subprocess.Popen(
                self._ray("start", "--head", "--block", "--num-cpus=4", *given),
                env=self._environment,
                stdout=said,
                stderr=said,
            )
        await_that(lambda: b"Ray runtime started" in (place / "head").read_bytes())

    def job(self, verb: str, *arguments: str) -> str:
        """What a `ray job` command prints."""
        done = subprocess.run(
            self._ray("job", verb, "--address", self._address, *arguments),
            env=self._environment,
            cwd=self._place,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        self._head.terminate()
        self._head.wait(timeout=60)

    def _ray(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("ray")), *arguments]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def entrypoint(place: Path, server: MessagesServer) -> str:
    """The command; the shell hears the signal too, and tells how the command ended."""
    command = "from raypool.cli import main; main(prog_name='raypool')"
    names = [str(place / "in.jsonl"), "-o", str(place / "out.jsonl")]
    words = [sys.executable, "-c", command, "run", *names]
    words += ["--base-url", server.url, "--size", "1", "--model", "any"]
    script = f"trap : TERM; {shlex.join(words)}; echo $? > {shlex.quote(str(place / 'status'))}"
    return shlex.join(["bash", "-c", script])


def lines(place: Path) -> list[dict[str, Any]]:
    path = place / "out.jsonl"
    data = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


@pytest.mark.timeout(300)
def test_stopped_job_finishes_what_runs_and_the_same_job_again_does_the_rest(
    tmp_path: Path, cluster: Cluster
) -> None:
    rows = [{"id": number, "prompt": f"question {number}"} for number in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    is_over = threading.Event()
    with MessagesServer(latency=lambda _: 0.1 if is_over.is_set() else 1.5) as server:
        submit = ("--runtime-env-json", json.dumps(STOP_WAIT), "--")
        words = shlex.split(entrypoint(tmp_path, server))
        cluster.job("submit", "--no-wait", "--submission-id", "first", *submit, *words)
        await_that(lambda: len(lines(tmp_path)) >= 2)

        cluster.job("stop", "first")

        assert (tmp_path / "status").read_text() == "130\n"
        assert "to finish the rest: raypool run" in cluster.job("logs", "first")
        assert len(lines(tmp_path)) == len(server.calls) < ROWS

        is_over.set()
        cluster.job("submit", *submit, *words)

        assert (tmp_path / "status").read_text() == "0\n"
        answers = {line["id"]: line["text"] for line in lines(tmp_path)}
        assert answers == {row["id"]: row["prompt"] for row in rows}
        assert len(lines(tmp_path)) == len(server.calls) == ROWS
