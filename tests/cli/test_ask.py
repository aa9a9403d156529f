"""`raypool ask` against a pool in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raypool.cli import main
from tests.cli.ledger_pool import LedgerPool

Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs the command, whose model shouts and refuses "no"; the exit status and stdout."""
    stdout = tmp_path / "stdout"

    def start_pool(*_: object) -> LedgerPool:
        return LedgerPool(None, lambda text: RuntimeError("no") if text == "no" else text.upper())

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main.main(["ask", "--backend", "scripted", *arguments], prog_name="raypool")
        assert isinstance(ended.value.code, int)
        return ended.value.code, stdout.read_text()

    monkeypatch.setattr("raypool.cli.ask.start_pool", start_pool)
    monkeypatch.setattr(
        "raypool.cli.ask.take_stdout", lambda: os.open(stdout, os.O_WRONLY | os.O_CREAT)
    )
    return run


def test_one_question_gives_its_answer_alone(ask: Ask) -> None:
    assert ask("hello\nthere") == (0, "HELLO\nTHERE\n")


def test_several_questions_are_told_apart(ask: Ask) -> None:
    assert ask("one", "two") == (0, "> one\nONE\n\n> two\nTWO\n")


def test_question_that_fails_is_said_on_stderr_and_the_others_are_answered(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("no", "two", "three") == (1, "> two\nTWO\n\n> three\nTHREE\n")
    assert capsys.readouterr().err == "raypool: 'no': RuntimeError: no\n"


@pytest.mark.parametrize("question", ["", " \n", "\udcff"])
def test_question_that_nobody_could_answer_is_refused_before_anything_starts(
    ask: Ask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.delattr("raypool.cli.ask.start_pool")

    assert ask("fine", question)[0] == 2
    assert capsys.readouterr().err.startswith("raypool: the prompt ")
