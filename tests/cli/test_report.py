"""`raypool report`, as a process."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from raypool.sqlite_file import SCHEMA_VERSION
from raypool.sqlite_ledger import SqliteLedger
from tests.report.ledgers import asked, ended, failed, fill

COMMAND = (sys.executable, "-c", "from raypool.cli import main; main(prog_name='raypool')")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    tasks = [asked(1, "a secret"), asked(2, "a secret"), asked(3)]
    return fill(tmp_path / "run.db", tasks, [ended(1, text="an answer"), failed(2)])


def report(directory: Path, arguments: str) -> tuple[int, bytes, str]:
    """The exit status, stdout and stderr of `raypool report` in that directory."""
    ran = subprocess.run(
        [*COMMAND, "report", *shlex.split(arguments)],
        cwd=directory,
        capture_output=True,
        timeout=100,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr.decode()


def test_page_is_written_where_it_was_asked_for(ledger: Path, tmp_path: Path) -> None:
    status, stdout, stderr = report(tmp_path, "run.db -o report.html")

    assert (status, stdout) == (0, b"")
    assert stderr == "raypool: report.html tells of 3 tasks\n"
    page = (tmp_path / "report.html").read_bytes()
    assert page.startswith(b"<!doctype html>")
    assert page.rstrip().endswith(b"</html>")
    assert b"secret" not in page
    assert [one.name for one in tmp_path.iterdir() if "html" in one.name] == ["report.html"]


def test_content_is_shown_on_request_also_on_stdout_beside_a_pool(
    ledger: Path, tmp_path: Path
) -> None:
    with closing(SqliteLedger(ledger)):
        status, stdout, stderr = report(tmp_path, "run.db -o - --content")

    assert (status, stderr) == (0, "")
    assert b"a secret" in stdout
    assert b"an answer" in stdout


def test_report_takes_the_place_of_an_older_one_and_of_nothing_else(
    ledger: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("")
    assert report(tmp_path, "run.db -o report.html")[0] == 0
    assert report(tmp_path, "run.db -o report.html")[0] == 0

    status, _, stderr = report(tmp_path, "run.db -o run.db")

    assert status == 2
    assert stderr == (
        "raypool: run.db is not a report and stays as it is; choose another output (-o)\n"
    )
    assert ledger.read_bytes().startswith(b"SQLite format 3")


def newer(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "run.db")) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nowhere.db -o r.html", "there is no ledger"),
        ("answers.jsonl -o r.html", "(perhaps answers.jsonl.ledger)"),
        (". -o r.html", "not a raypool ledger"),
        ("run.db -o nowhere/r.html", "cannot write nowhere/r.html: No such file or directory"),
        ("run.db -o .", "cannot write .: Is a directory"),
        ("postgresql://me:secret@db/run -o r.html", "give the path of one"),
        ("run.db", "Missing option '-o'"),
        ("newer/run.db -o r.html", "made by a newer raypool"),
    ],
)
def test_what_cannot_be_done_is_told_in_words(
    ledger: Path, tmp_path: Path, arguments: str, said: str
) -> None:
    (tmp_path / "answers.jsonl").write_text('{"id": 1}\n' * 100)
    (tmp_path / "answers.jsonl.ledger").touch()
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "run.db").write_bytes(ledger.read_bytes())
    newer(tmp_path / "newer")

    status, stdout, stderr = report(tmp_path, arguments)

    assert (status, stdout) == (2, b"")
    assert said in stderr
    assert "Traceback" not in stderr
    assert "secret" not in stderr
    assert not (tmp_path / "r.html").exists()
