"""Which Ray a pool finds, and what is said when it finds none."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

CONNECT = """
import sys
from raypool import PoolStartError
from raypool.connection import connect

try:
    connect(sys.argv[1])
except PoolStartError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{port}", "could not connect to Ray at '127.0.0.1:{port}'"),
        ("ray://127.0.0.1:{port}", "ray job submit --address"),
    ],
    ids=["nobody listens", "Ray Client"],
)
def test_address_that_cannot_be_used_is_refused_soon(address: str, words: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    started = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", CONNECT, address.format(port=port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    assert words.format(port=port) in said
    assert time.monotonic() - started < 30
