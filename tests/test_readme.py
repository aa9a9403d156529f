"""Every snippet of README runs as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raypool.testing import Answer, Call, MessagesServer
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
SET_UP = "pip install uv && uv run --extra local "


VALUES = {"string": "a text", "integer": 7}


def answer(call: Call) -> str | Answer:
    """Calls a tool where there is one, and then says what it gave; fits a schema if it must."""
    last = call.body["messages"][-1]["content"]
    if isinstance(last, list) and last[-1]["type"] == "tool_result":
        return f"The tool says {call.prompt}."
    if tools := call.body.get("tools"):
        return Answer(tool_use=[(tools[0]["name"], filled(tools[0]["input_schema"]))])
    if output := call.body.get("output_config"):
        return json.dumps(filled(output["format"]["schema"]))
    return "an answer"


def filled(schema: dict[str, Any]) -> dict[str, Any]:
    """An object that fits a schema of texts and whole numbers."""
    return {name: VALUES[one["type"]] for name, one in schema["properties"].items()}


@pytest.mark.parametrize("snippet", PYTHON, ids=range(len(PYTHON)))
@pytest.mark.timeout(240)
def test_python_snippet_runs(
    snippet: str,
    local_ray: None,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with MessagesServer(reply=answer) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("DATABASE_URL", postgres.new_url())
        names: dict[str, Any] = {"__name__": "__main__"}

        exec(snippet.replace("http://127.0.0.1:8000", server.url), names)

    printed = capsys.readouterr().out
    assert printed.strip()
    assert "None" not in printed


@pytest.mark.timeout(240)
def test_first_command_answers_the_trivia_questions(tmp_path: Path) -> None:
    command = next(line for line in SHELL if line.startswith(SET_UP + "raypool run"))

    lines = run(command.removeprefix(SET_UP), tmp_path)

    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    asked = (ROOT / "examples" / "trivia.jsonl").read_text().splitlines()
    assert {answer["id"] for answer in answers} == {json.loads(line)["id"] for line in asked}
    assert "Paris" in next(answer["text"] for answer in answers if answer["id"] == "france")
    assert lines == ""

    run(next(line for line in SHELL if line.startswith("raypool report")), tmp_path)

    page = (tmp_path / "report.html").read_text()
    assert page.count('<span class="tag is-completed">') == len(asked)


@pytest.mark.timeout(240)
def test_questions_on_the_command_line_are_answered(tmp_path: Path) -> None:
    command = next(line for line in SHELL if line.startswith("raypool ask"))

    assert "Paris" in run(command, tmp_path)


def test_dry_run_says_what_the_command_would_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = next(line for line in SHELL if line.endswith("--dry-run"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("title,body\nCats,Cats are small.\n")

    said = run(command, tmp_path, stream="stderr")

    assert "would ask 1 row\n" in said
    assert "Summarise: Cats\n    Cats are small.\n" in said
    assert [path.name for path in tmp_path.glob("summaries*")] == []


def test_test_command_is_the_one_that_runs_this() -> None:
    assert SET_UP + "--extra test pytest" in SHELL


def run(command: str, directory: Path, *, stream: str = "stdout") -> str:
    """What a `raypool` command prints to a stream, run beside a copy of the examples."""
    if not (directory / "examples").exists():
        (directory / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(
        shlex.split(command),
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    printed: str = getattr(ended, stream)
    return printed
