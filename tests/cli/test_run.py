"""`raypool run` against a pool in this process: what is asked, written, said and returned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypool.cli.interrupt import SIGNALS
from raypool.errors import PoolStartError
from tests.cli.desk import Desk
from tests.cli.ledger_pool import LedgerPool
from tests.postgres_server import ENCODED_PASSWORD, PostgresServer

PROGRAM = """
import atexit, os, signal, sys
from raypool.cli import main

number = int(sys.argv[1])
atexit.register(print, "it went on", file=sys.stderr)
atexit.register(os.kill, os.getpid(), number)
main(["--version"])
"""
"""The command, and a signal while Python ends."""

ECHO = ("--backend", "scripted", "--quiet")


class TestRows:
    def test_every_row_has_one_line_with_its_fields_and_its_answer(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x", "topic": 1}, {"prompt": "y"})

        status = desk.run(*ECHO)

        first, second = desk.lines()
        assert status == 0
        assert (first["id"], first["topic"], first["text"]) == ("a", 1, "X")
        assert second["text"] == "Y"

    def test_text_lines_are_prompts(self, desk: Desk) -> None:
        desk.write("what is this?", "", '{"prompt": "x"}', name="in.txt")

        assert desk.run(*ECHO, name="in.txt") == 0
        assert [line["prompt"] for line in desk.lines()] == ["what is this?", '{"prompt": "x"}']

    def test_bad_row_is_one_error_line_and_the_others_go_on(self, desk: Desk) -> None:
        desk.write({"prompt": "x"}, "nonsense", {"id": "b", "q": 1}, {"prompt": "y"})

        assert desk.run(*ECHO) == 1
        assert len(desk.lines()) == 4
        bad = [line for line in desk.lines() if "error" in line]
        assert [line["error"]["type"] for line in bad] == ["BadRow", "BadRow"]
        assert bad[0]["error"]["message"].startswith("in.jsonl, line 2: not valid JSON")
        assert bad[1]["id"] == "b"
        assert desk.asked == ["x", "y"]
        assert "2 rows failed" in desk.stderr
        assert "line 2: not valid JSON" in desk.stderr

    def test_failed_row_is_one_error_line_and_the_others_go_on(self, desk: Desk) -> None:
        desk.reply = lambda prompt: RuntimeError("no") if prompt == "x" else prompt
        desk.write({"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"})

        assert desk.run(*ECHO) == 1
        assert desk.lines()[0]["error"] == {"type": "RuntimeError", "message": "no"}
        assert "1 × RuntimeError, first id 'a': no" in desk.stderr

    def test_input_without_rows_needs_no_pool(self, desk: Desk) -> None:
        desk.write()

        assert desk.run(*ECHO) == 0
        assert desk.pools == []
        assert desk.lines() == []


class TestResume:
    def test_same_command_again_asks_nothing_and_changes_nothing(self, desk: Desk) -> None:
        desk.write({"prompt": "x"}, {"prompt": "x"}, {"prompt": "y"})
        desk.run(*ECHO)
        before = desk.lines()

        assert desk.run(*ECHO) == 0
        assert desk.lines() == before
        assert len(desk.pools) == 1

    def test_run_that_stopped_is_finished_and_nothing_is_asked_twice(self, desk: Desk) -> None:
        desk.write(*({"prompt": str(row)} for row in range(9)))
        desk.stop_after = 4

        assert desk.run(*ECHO) == 1
        assert "to finish the rest: raypool" in desk.stderr
        desk.stop_after = 1_000_000
        assert desk.run(*ECHO) == 0
        assert sorted(desk.asked) == [str(row) for row in range(9)]
        assert len(desk.texts()) == 9

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
    )
    @given(stops=st.lists(st.integers(0, 6), max_size=4), cut=st.integers(0, 2000))
    def test_wherever_runs_end_all_rows_are_answered_once(
        self, desk: Desk, stops: list[int], cut: int
    ) -> None:
        output = f"out-{len(list(desk.path.iterdir()))}.jsonl"
        desk.pools.clear()
        desk.write(*({"prompt": str(row % 8)} for row in range(10)))
        for stop in stops:
            desk.stop_after = stop
            desk.run(*ECHO, output=output)
            data = (desk.path / output).read_bytes()
            (desk.path / output).write_bytes(data[: max(0, len(data) - cut)])
        desk.stop_after = 1_000_000

        assert desk.run(*ECHO, output=output) == 0
        assert len({line["id"] for line in desk.lines(output)}) == 10
        assert len(desk.lines(output)) == 10
        assert len(desk.asked) == 10

    def test_output_that_was_lost_is_made_again_from_the_ledger(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"})
        desk.run(*ECHO)
        before = desk.lines()
        (desk.path / "out.jsonl").unlink()

        assert desk.run(*ECHO) == 0
        assert desk.lines() == before
        assert desk.asked == ["x"]

    def test_rows_that_were_added_are_asked_and_mended_rows_too(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"}, {"id": "b", "prompt": ""})
        assert desk.run(*ECHO) == 1
        desk.write({"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}, {"prompt": "z"})

        assert desk.run(*ECHO) == 0
        assert desk.asked == ["x", "y", "z"]
        assert len(desk.lines()) == 3

    def test_row_whose_prompt_was_changed_under_its_id_is_said(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"})
        desk.run(*ECHO)
        desk.write({"id": "a", "prompt": "other"})

        assert desk.run(*ECHO) == 1
        assert "line 1: the id 'a' was asked something else before" in desk.stderr
        assert desk.asked == ["x"]

    def test_failed_rows_stay_failed_until_they_are_to_be_retried(self, desk: Desk) -> None:
        desk.reply = lambda prompt: RuntimeError("no") if prompt == "x" else prompt
        desk.write({"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"})
        assert desk.run(*ECHO) == 1
        desk.reply = str.upper

        assert desk.run(*ECHO) == 1
        assert desk.asked == ["x", "y"]
        assert desk.run(*ECHO, "--retry-failed") == 0
        assert desk.asked == ["x", "y", "x"]
        assert desk.texts() == {"a": "X", "b": "y"}

    def test_retry_that_was_cut_off_can_be_finished(self, desk: Desk) -> None:
        desk.reply = lambda _: RuntimeError("no")
        desk.write({"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"})
        desk.run(*ECHO)
        desk.reply, desk.stop_after = str.upper, 1
        assert desk.run(*ECHO, "--retry-failed") == 1
        assert "--retry-failed" not in desk.stderr
        desk.stop_after = 1_000_000

        assert desk.run(*ECHO) == 0
        assert desk.texts() == {"a": "X", "b": "Y"}


class TestPostgres:
    def test_interrupted_run_goes_on_and_shows_no_password(
        self, desk: Desk, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = postgres.new_url()
        command = [*ECHO, "--ledger", url]
        monkeypatch.setattr(sys, "argv", ["raypool", "run", *command])
        desk.write(*({"id": name, "prompt": name} for name in "abc"))
        desk.stop_after = 1
        assert desk.run(*command) == 1
        said = desk.stderr
        desk.stop_after = 1_000_000

        assert desk.run(*command) == 0

        assert desk.texts() == {"a": "A", "b": "B", "c": "C"}
        assert desk.asked == ["a", "b", "c"]
        assert "to finish the rest: raypool run" in said
        assert ENCODED_PASSWORD not in said

    def test_output_of_another_ledger_is_refused(
        self, desk: Desk, postgres: PostgresServer
    ) -> None:
        desk.write({"id": "a", "prompt": "x"})
        assert desk.run(*ECHO, "--ledger", postgres.new_url()) == 0

        assert desk.run(*ECHO, "--ledger", postgres.new_url()) == 2
        assert "out.jsonl exists, but its ledger postgresql://raypool:***@" in desk.stderr


class TestRefusals:
    def refused(self, desk: Desk, *options: str, **names: str) -> str:
        assert desk.run("--backend", "scripted", *options, **names) == 2
        assert desk.pools == []
        assert "Traceback" not in desk.stderr
        return desk.stderr

    def test_missing_input_is_said(self, desk: Desk) -> None:
        assert self.refused(desk) == "raypool: cannot read in.jsonl: No such file or directory\n"
        assert not (desk.path / "out.jsonl").exists()

    @pytest.mark.parametrize("name", ["in.json", "in.jsonl.gz"])
    def test_input_of_another_kind_is_not_taken_for_text(self, desk: Desk, name: str) -> None:
        desk.write("a,b", name=name)

        assert "--format" in self.refused(desk, name=name)

    def test_output_in_a_missing_directory_is_said(self, desk: Desk) -> None:
        desk.write({"prompt": "x"})

        assert "cannot write no/out.jsonl: No such file" in self.refused(
            desk, output="no/out.jsonl"
        )

    def test_output_that_is_the_input_is_refused(self, desk: Desk) -> None:
        desk.write({"prompt": "x"})

        self.refused(desk, output="in.jsonl")
        assert desk.lines("in.jsonl") == [{"prompt": "x"}]

    def test_output_without_its_ledger_is_refused_and_left_alone(self, desk: Desk) -> None:
        desk.write({"prompt": "x"})
        (desk.path / "out.jsonl").write_text("precious")

        said = self.refused(desk)

        assert "out.jsonl exists, but its ledger out.jsonl.ledger does not" in said
        assert "choose another output (-o), or --restart" in said
        assert (desk.path / "out.jsonl").read_text() == "precious"
        assert not (desk.path / "out.jsonl.ledger").exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--system", "Be brief."), "--system was not given before"),
            (("--max-tokens", "5"), "--max-tokens was 1024 and is now 5"),
            (("--role", "poet"), "--role was not given and is now poet"),
        ],
    )
    def test_other_settings_are_refused_with_what_changed(
        self, desk: Desk, options: tuple[str, ...], said: str
    ) -> None:
        desk.write({"prompt": "x"})
        desk.run(*ECHO)
        desk.pools.clear()

        complaint = self.refused(desk, *options)

        assert said in complaint
        assert "or --restart, which keeps the old files and starts over" in complaint
        assert "brief" not in complaint

    def test_file_that_is_no_ledger_is_refused(self, desk: Desk) -> None:
        desk.write({"prompt": "x"})
        (desk.path / "notes.txt").write_text("precious")

        assert "not a raypool ledger" in self.refused(desk, "--ledger", "notes.txt")
        assert (desk.path / "notes.txt").read_text() == "precious"
        assert not (desk.path / "out.jsonl").exists()

    @pytest.mark.parametrize(
        "options",
        [
            ("--role", "poet", "--system", "Rhyme."),
            ("--base-url", "http://localhost"),
            ("--model", "x"),
            ("--size", "0"),
            ("--system", "  "),
            ("--system", "@missing.txt"),
            ("--role", "\udcff"),
        ],
        ids=" ".join,
    )
    def test_options_that_cannot_be_meant_are_refused(
        self, desk: Desk, options: tuple[str, ...]
    ) -> None:
        desk.write({"prompt": "x"})

        assert options[0] in self.refused(desk, *options)

    def test_pool_that_cannot_start_leaves_nothing_behind(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise PoolStartError("set ANTHROPIC_API_KEY")

        monkeypatch.setattr("raypool.cli.job.start_pool", fail)
        desk.write("bad", {"prompt": "x"})

        assert "raypool: set ANTHROPIC_API_KEY\n" in self.refused(desk)
        assert sorted(path.name for path in desk.path.iterdir()) == [".stdout", "in.jsonl"]


def start_pool(*_: object, ledger: str | None, **__: object) -> LedgerPool:
    return LedgerPool(ledger)


def start_no_pool(*_: object, **__: object) -> LedgerPool:
    raise PoolStartError("there is no room")


def be_told_to_end(*_: object, **__: object) -> LedgerPool:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the signal has interrupted nothing")


def meet_a_defect(*_: object, **__: object) -> LedgerPool:
    raise ZeroDivisionError


class TestSignals:
    @pytest.mark.parametrize(
        ("start", "status"),
        [(start_pool, 0), (start_no_pool, 2), (be_told_to_end, 130)],
        ids=["answered", "refused", "interrupted"],
    )
    def test_handlers_are_afterwards_those_from_before(
        self,
        desk: Desk,
        monkeypatch: pytest.MonkeyPatch,
        start: Callable[..., LedgerPool],
        status: int,
    ) -> None:
        monkeypatch.setattr("raypool.cli.job.start_pool", start)
        desk.write({"prompt": "x"})
        before = {number: signal.getsignal(number) for number in SIGNALS}

        ended = desk.run(*ECHO)

        assert ended == status
        assert {number: signal.getsignal(number) for number in SIGNALS} == before

    def test_handlers_are_those_from_before_also_after_a_defect(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("raypool.cli.job.start_pool", meet_a_defect)
        desk.write({"prompt": "x"})
        before = {number: signal.getsignal(number) for number in SIGNALS}

        with pytest.raises(ZeroDivisionError):
            desk.run(*ECHO)

        assert {number: signal.getsignal(number) for number in SIGNALS} == before

    @pytest.mark.parametrize("number", SIGNALS)
    def test_program_that_has_ended_lets_a_signal_cut_its_cleaning_up_short(
        self, number: signal.Signals
    ) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(int(number))], check=False, capture_output=True
        )

        assert (ended.returncode, ended.stderr) == (130, b"")


class TestStdout:
    def test_results_go_to_stdout_alone(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"})

        assert desk.run("--backend", "scripted", output="-") == 0
        assert json.loads(desk.stdout)["text"] == "X"
        assert "nothing to resume from" in desk.stderr

    def test_named_ledger_gives_all_results_again_without_asking(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"})
        desk.run(*ECHO, "--ledger", "x.ledger", output="-")
        first = desk.stdout

        assert desk.run(*ECHO, "--ledger", "x.ledger", output="-") == 0
        assert desk.stdout == first
        assert desk.asked == ["x"]
        assert desk.run(*ECHO, "--ledger", "x.ledger", "--role", "poet", output="-") == 2
        assert "choose another --ledger, or --restart, which keeps the old files" in desk.stderr

    def test_device_is_written_without_a_ledger(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"})

        assert desk.run(*ECHO, output=os.devnull) == 0
        assert not Path(f"{os.devnull}.ledger").exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
    def test_full_disk_stops_the_run_and_says_so(self, desk: Desk) -> None:
        desk.write({"prompt": "x"}, {"prompt": "y"}, "bad")

        assert desk.run(*ECHO, output="/dev/full") == 1
        assert "raypool: cannot write /dev/full: No space left on device\n" in desk.stderr
        assert desk.asked == ["x"]


class TestSaid:
    def test_summary_has_rows_tokens_cost_time_and_the_output(self, desk: Desk) -> None:
        desk.write({"prompt": "x"}, {"prompt": "y"})

        desk.run("--backend", "scripted")

        assert "raypool: 2 answered, 0 failed, in 0." in desk.stderr
        assert "tokens: 4 in, 6 out; cost: $1.00" in desk.stderr
        assert "results: out.jsonl" in desk.stderr

    def test_quiet_run_that_goes_well_says_nothing(self, desk: Desk) -> None:
        desk.write({"prompt": "x"})

        desk.run(*ECHO)

        assert desk.stderr == ""
