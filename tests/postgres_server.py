"""A PostgreSQL server of a test run's own, from the programs that Debian ships."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

USER = "raypool"
PASSWORD = "s3cret@of/the:test"
ENCODED_PASSWORD = "s3cret%40of%2Fthe%3Atest"
START_SECONDS = 60.0
ORDINARY_USERS = ("postgres", "nobody")

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "shared_buffers": "64MB",
}


class PostgresServer:
    """A server on loopback, not safe from a power cut unless its settings say so.

    Attributes:
        directory: where its data, log and socket are.
        port: where it listens.
        process: it, while it runs.
    """

    def __init__(self, settings: Mapping[str, str] = {}) -> None:
        self._settings = {**_SETTINGS, **settings}
        self._programs = find_programs()
        self._as_user = _ordinary_user()
        self.directory = Path(tempfile.mkdtemp(prefix="raypool-postgres-", dir="/tmp"))
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._schemas = count(1)
        try:
            self._make()
            self.start()
        except BaseException:
            self.remove()
            raise

    @property
    def url(self) -> str:
        """The database's URL, for an administrator."""
        return f"postgresql://{USER}:{ENCODED_PASSWORD}@127.0.0.1:{self.port}/postgres"

    def new_url(self) -> str:
        """The URL of a ledger that nobody has."""
        return f"{self.url}?schema=run_{next(self._schemas)}"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of an administrator."""
        return psycopg.connect(self.url, autocommit=True)

    def start(self) -> None:
        """Start it; returns when it can be connected to."""
        command = [f"{self._programs}/postgres", "-D", f"{self._data}", "-p", f"{self.port}"]
        for name, value in {**self._settings, "unix_socket_directories": self.directory}.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **self._as_user
            )
        self.process = process
        ready = [f"{self._programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", f"{self.port}"]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(ready, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text())
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT is PostgreSQL's `fast`, SIGQUIT its `immediate`."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(START_SECONDS)

    def restart(self) -> None:
        """Stop it as a crash would, and start it."""
        self.stop(signal.SIGQUIT)
        self.start()

    def remove(self) -> None:
        """Stop it, and leave nothing behind."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _make(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        if self._as_user:
            for path in (self.directory, password):
                os.chown(path, self._as_user["user"], self._as_user["group"])
        command = [f"{self._programs}/initdb", "-D", f"{self._data}", "-U", USER]
        command += [f"--pwfile={password}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"]
        command += ["--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user)
        if made.returncode:
            raise RuntimeError(made.stderr)


def find_programs() -> Path:
    """Where the server's programs are: those of the newest version that Debian has installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parent.parent.name),
    )
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise RuntimeError("the tests need a PostgreSQL server: `apt-get install postgresql`")
    return found[-1].parent if found else Path(on_path or "").resolve().parent


def _ordinary_user() -> dict[str, Any]:
    """How to start what root may not run."""
    if os.geteuid() != 0:
        return {}
    for name in ORDINARY_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError(f"PostgreSQL refuses root, and there is no user {ORDINARY_USERS}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
