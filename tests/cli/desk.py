"""`raypool run` in this process, against a pool in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from raypool.cli import main
from tests.cli.ledger_pool import LedgerPool, Reply


class Desk:
    """A directory to run the command in, and what the pool there answers."""

    def __init__(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.reply: Reply = str.upper
        self.stop_after = 1_000_000
        self.at_once = 1
        self.pools: list[LedgerPool] = []
        self._capfd = capfd
        self.stdout = b""
        self.stderr = ""

    @property
    def asked(self) -> list[str]:
        """Every prompt that was ever answered."""
        return [prompt for pool in self.pools for prompt in pool.asked]

    def start_pool(self, *_: object, ledger: str | None, **__: object) -> LedgerPool:
        self.pools.append(LedgerPool(ledger, self.reply, self.stop_after))
        self.pools[-1].at_once = self.at_once
        return self.pools[-1]

    def write(self, *rows: object, name: str = "in.jsonl") -> None:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.path / name).write_text("".join(f"{line}\n" for line in lines))

    def run(self, *options: str, output: str = "out.jsonl", name: str = "in.jsonl") -> int:
        """The exit status of the command."""
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main(["run", name, "-o", output, *options], prog_name="raypool")
        self.stdout = (self.path / ".stdout").read_bytes()
        self.stderr = self._capfd.readouterr().err
        code = ended.value.code
        assert isinstance(code, int)
        return code

    def lines(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def failed_rows(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """The rows in the file of failed rows; none when there is no such file."""
        path = self.path / f"{name}.failed.jsonl"
        return self.lines(path.name) if path.exists() else []

    def texts(self) -> dict[str, str]:
        return {line["id"]: line.get("text", "error") for line in self.lines()}

    def take_stdout(self) -> int:
        return os.open(self.path / ".stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
