"""`raypool run` with tables, templates, several inputs, failed rows, samples and types."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from raypool.cli.rows import RowReader
from tests.cli.desk import Desk

ECHO = ("--backend", "scripted", "--quiet")
TYPES = """
from pydantic import BaseModel

class City(BaseModel):
    name: str

def ask(row):
    return None if row["id"] == "b" else row["q"]
"""


def refuse_odd(prompt: str) -> str | Exception:
    return RuntimeError("odd") if prompt[-1] in "13579" else prompt.upper()


class TestInputs:
    def test_csv_and_parquet_rows_are_asked_by_a_template(self, desk: Desk) -> None:
        desk.write("id,title", "a,Cats", name="one.csv")
        parquet.write_table(arrow.table({"title": ["Dogs"], "n": [2]}), desk.path / "two.parquet")

        status = desk.run("two.parquet", *ECHO, "--template", r"On {title}:\nwhat?", name="one.csv")

        assert status == 0
        assert desk.asked == ["On Cats:\nwhat?", "On Dogs:\nwhat?"]
        first, second = desk.lines()
        assert (first["id"], first["title"], first["prompt"]) == ("a", "Cats", "On Cats:\nwhat?")
        assert (second["title"], second["n"], second["text"]) == ("Dogs", 2, "ON DOGS:\nWHAT?")

    def test_ids_are_unique_among_all_inputs(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"}, {"prompt": "y"}, name="1.jsonl")
        desk.write("", {"prompt": "y"}, {"id": "a", "prompt": "z"}, name="2.jsonl")

        assert desk.run(*ECHO, name="*.jsonl", output="out") == 1
        assert desk.asked == ["x", "y", "y"]
        assert len({line["id"] for line in desk.lines("out")}) == 3
        message = desk.failed_rows("out")[0]["error"]["message"]
        assert message == "2.jsonl, line 3: the id 'a' is that of line 1 of 1.jsonl"

    def test_row_of_which_a_column_is_missing_is_said_and_the_others_go_on(
        self, desk: Desk
    ) -> None:
        desk.write({"t": "x"}, {"u": "y"})

        assert desk.run(*ECHO, "--template", "{t}!") == 1
        assert desk.asked == ["x!"]
        assert "in.jsonl, line 2: no column 't'; it has 'u'" in desk.stderr

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ((), "in.csv has no column 'prompt', it has 'id', 'q'; name the column"),
            (("--prompt-column", "p"), "in.csv has no column 'p'; it has 'id', 'q'"),
            (("--template", "{p}"), "--template: in.csv has no column 'p'"),
            (("--template", "{q!r}"), "{q!r} is no column"),
            (("--template", "{q}", "--mapper", "a:b"), "--template and --mapper contradict"),
            (("--mapper", "nowhere:f"), "ModuleNotFoundError"),
            (("--schema", "missing.json"), "--schema: cannot read missing.json: No such file"),
            (("--output-type", "pathlib:Path.cwd"), "--output-type: output_type must be"),
            (("--limit", "0"), "--limit"),
            (("--rpm", "0"), "--rpm"),
            (("--restart", "--retry-failed"), "contradict each other"),
        ],
        ids=" ".join,
    )
    def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
        self, desk: Desk, options: tuple[str, ...], said: str
    ) -> None:
        desk.write("id,q", "a,x", name="in.csv")

        assert desk.run(*ECHO, *options, name="in.csv") == 2
        assert said in " ".join(desk.stderr.split())
        assert "Traceback" not in desk.stderr
        assert sorted(path.name for path in desk.path.iterdir()) == [".stdout", "in.csv"]

    def test_rows_that_the_mapper_leaves_out_have_no_line(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(desk.path))
        (desk.path / "types_of_test.py").write_text(TYPES)
        desk.write({"id": "a", "q": "x"}, {"id": "b", "q": "y"})

        assert desk.run("--backend", "scripted", "--mapper", "types_of_test:ask") == 0
        assert desk.texts() == {"a": "X"}
        assert "1 row left out by the mapper" in desk.stderr

    def test_answers_that_must_have_a_type_are_parsed(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(desk.path))
        (desk.path / "types_of_test.py").write_text(TYPES)
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        (desk.path / "city.json").write_text(json.dumps(schema))
        desk.write({"id": "a", "prompt": "x"})
        desk.reply = lambda _: '{"name": "Kyoto"}'

        assert desk.run(*ECHO, "--output-type", "types_of_test:City") == 0
        assert desk.lines()[0]["parsed"] == {"name": "Kyoto"}
        assert desk.run(*ECHO, "--schema", "city.json", output="other.jsonl") == 0
        assert desk.lines("other.jsonl")[0]["parsed"] == {"name": "Kyoto"}
        assert desk.run(*ECHO) == 2
        assert "--schema or --output-type is missing" in desk.stderr


class TestFailedRows:
    def test_failed_rows_are_an_input_for_the_same_command(self, desk: Desk) -> None:
        desk.reply = refuse_odd
        desk.write({"n": 1, "text": "mine", "prompt": "p"}, {"n": 2}, "nonsense")
        template = ("--template", "{n}")

        assert desk.run(*ECHO, *template) == 1
        failed, bad = desk.failed_rows()
        assert failed["error"] == {"type": "RuntimeError", "message": "odd"}
        assert (failed["n"], failed["text"], failed["prompt"]) == (1, "mine", "p")
        assert "worker" not in failed
        assert bad["error"]["type"] == "BadRow"

        desk.reply = str.upper
        (desk.path / "out.jsonl.failed.jsonl").write_text(f"{json.dumps(failed)}\n")
        assert desk.run(*ECHO, *template, name="out.jsonl.failed.jsonl", output="more") == 0
        (line,) = desk.lines("more")
        assert (line["id"], line["text"], line["input_text"]) == (failed["id"], "1", "mine")

    def test_file_that_cannot_be_written_ends_the_run_and_repeats_nothing_later(
        self, desk: Desk, small_chunks: None
    ) -> None:
        failed_rows = desk.path / "out.jsonl.failed.jsonl"

        def spoil(prompt: str) -> str | Exception:
            failed_rows.mkdir(exist_ok=True)
            return refuse_odd(prompt)

        desk.reply = spoil
        desk.write(*({"prompt": str(row)} for row in range(9)))
        assert desk.run(*ECHO) == 1
        assert "Is a directory" in desk.stderr
        failed_rows.rmdir()
        desk.reply = refuse_odd

        assert desk.run(*ECHO) == 1
        assert len(desk.lines()) == len(desk.asked) == 9
        assert len(desk.failed_rows()) == 4

    def test_file_follows_what_becomes_of_the_rows(self, desk: Desk) -> None:
        desk.reply = refuse_odd
        desk.write(
            {"id": "a", "prompt": "1"}, {"id": "b", "prompt": ""}, {"id": "c", "prompt": "3"}
        )
        desk.run(*ECHO)

        assert sorted(row["id"] for row in desk.failed_rows()) == ["a", "b", "c"]
        desk.reply = lambda prompt: RuntimeError("still") if prompt == "3" else prompt
        desk.run(*ECHO, "--retry-failed")
        assert sorted(row["id"] for row in desk.failed_rows()) == ["b", "c"]
        desk.write(
            {"id": "a", "prompt": "1"}, {"id": "b", "prompt": "2"}, {"id": "c", "prompt": "3"}
        )
        desk.reply = str.upper
        assert desk.run(*ECHO, "--retry-failed") == 0
        assert not (desk.path / "out.jsonl.failed.jsonl").exists()


class TestRestart:
    def test_what_was_there_is_kept_under_another_name(self, desk: Desk) -> None:
        desk.write({"id": "a", "prompt": "x"})
        desk.run(*ECHO)
        before = (desk.path / "out.jsonl").read_bytes()

        assert desk.run(*ECHO, "--system", "Be brief.") == 2
        assert "--system was not given before; choose another output (-o), or --restart" in (
            desk.stderr
        )
        assert desk.run("--backend", "scripted", "--system", "Be brief.", "--restart") == 0
        assert desk.asked == ["x", "x"]
        assert "starting over; kept: out.jsonl.ledger.1, out.jsonl.1" in desk.stderr
        assert (desk.path / "out.jsonl.1").read_bytes() == before
        assert desk.run(*ECHO, "--system", "Be brief.", "--restart") == 0
        assert (desk.path / "out.jsonl.2").exists()
        assert (desk.path / "out.jsonl.ledger.2").exists()

    @pytest.mark.parametrize(
        ("first", "second", "said"),
        [
            (["--template", "{a}"], ["--template", "{a}!"], "--template is another one"),
            (["--template", "{a}"], ["--prompt-column", "a"], "--prompt-column was not given"),
        ],
    )
    def test_other_prompts_are_refused_with_what_changed(
        self, desk: Desk, first: list[str], second: list[str], said: str
    ) -> None:
        desk.write({"a": "x"})
        desk.run(*ECHO, *first)

        assert desk.run(*ECHO, *second) == 2
        assert said in desk.stderr


class TestBeforePaying:
    def test_dry_run_says_what_would_be_asked_and_touches_nothing(self, desk: Desk) -> None:
        rows: list[Any] = [{"n": n} for n in range(120)]
        desk.write(*rows, "nonsense")
        options = ("--backend", "anthropic", "--base-url", "http://127.0.0.1:9", "--dry-run")

        status = desk.run(*options, "--template", "Count to {n}", "--rpm", "60")

        assert status == 0
        assert "would ask 120 rows" in desk.stderr
        assert "1 row cannot be asked" in desk.stderr
        assert "in.jsonl, line 121: not valid JSON" in desk.stderr
        assert "Count to 2" in desk.stderr
        assert "Count to 3" not in desk.stderr
        assert "time: 2 min 0 s or more" in desk.stderr
        assert "or so, at most $" in desk.stderr
        assert sorted(path.name for path in desk.path.iterdir()) == [".stdout", "in.jsonl"]

    def test_dry_run_speaks_json_too(self, desk: Desk) -> None:
        desk.write({"prompt": "x"})

        desk.run("--backend", "scripted", "--dry-run", "--json")

        said = json.loads(desk.stderr)
        assert (said["event"], said["rows"], said["prompts"]) == ("dry-run", 1, ["x"])

    def test_limit_is_for_a_first_look_and_the_rest_follows(self, desk: Desk) -> None:
        desk.write(*({"prompt": str(row)} for row in range(9)))

        assert desk.run(*ECHO, "--limit", "2") == 0
        assert desk.asked == ["0", "1"]
        assert desk.run(*ECHO) == 0
        assert sorted(desk.asked) == [str(row) for row in range(9)]

    def test_sample_is_the_same_until_the_seed_is_another(self, desk: Desk) -> None:
        desk.write(*({"prompt": str(row)} for row in range(50)))

        assert desk.run(*ECHO, "--sample", "5") == 0
        first = list(desk.asked)
        assert desk.run(*ECHO, "--sample", "5") == 0
        assert desk.asked == first
        assert first == sorted(first, key=int)
        assert desk.run(*ECHO, "--sample", "5", "--seed", "7") == 0
        assert desk.asked != first
        assert desk.run(*ECHO) == 0
        assert sorted(desk.asked, key=int) == [str(row) for row in range(50)]


class TestJson:
    def test_everything_is_said_in_json_lines(self, desk: Desk) -> None:
        desk.reply = refuse_odd
        desk.write({"prompt": "0"}, {"prompt": "1"})

        assert desk.run("--backend", "scripted", "--json") == 1
        said = [json.loads(line) for line in desk.stderr.splitlines()]
        assert [one["event"] for one in said] == ["phase", "phase", "summary"]
        summary = said[-1]
        assert (summary["answered"], summary["failed"], summary["exit_status"]) == (1, 1, 1)
        assert summary["reasons"] == {"RuntimeError": 1}
        assert summary["failed_rows"] == "out.jsonl.failed.jsonl"

    def test_run_that_ends_early_says_how_to_go_on(self, desk: Desk) -> None:
        desk.write({"prompt": "0"}, {"prompt": "1"})
        desk.stop_after = 1

        assert desk.run("--backend", "scripted", "--json") == 1
        summary = json.loads(desk.stderr.splitlines()[-1])
        assert summary["trouble"] == "stopped"
        assert summary["resume"].startswith("to finish the rest: raypool")

    def test_refusal_is_json_too(self, desk: Desk) -> None:
        assert desk.run("--backend", "scripted", "--json") == 2
        said = json.loads(desk.stderr)
        assert said["event"] == "trouble"
        assert said["message"].startswith("cannot read in.jsonl")


class TestParquetOutput:
    def test_lines_become_rows_once_all_are_there(self, desk: Desk) -> None:
        desk.reply = refuse_odd
        desk.write({"id": 1, "prompt": "0", "x": 1}, {"id": 2, "prompt": "1", "x": "a", "y": {}})

        assert desk.run(*ECHO, output="out.parquet") == 1
        rows = parquet.read_table(desk.path / "out.parquet").to_pylist()
        assert [(row["id"], row["text"], row["x"]) for row in rows] == [
            (1, "0", "1"),
            (2, None, "a"),
        ]
        assert rows[1]["error"] == {"type": "RuntimeError", "message": "odd"}
        assert rows[1]["y"] == "{}"
        desk.reply = str.upper
        assert desk.run(*ECHO, "--retry-failed", output="out.parquet") == 0
        assert parquet.read_table(desk.path / "out.parquet")["text"].to_pylist() == ["0", "1"]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypool.cli.states.CHUNK", 4)
    monkeypatch.setattr("raypool.cli.results.CHUNK", 4)
    monkeypatch.setattr("raypool.cli.results.SECONDS_BETWEEN_CHECKPOINTS", 0.0)


class TestCheckpoints:
    def test_rows_that_are_done_are_not_read_again(
        self, desk: Desk, small_chunks: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.write(*({"prompt": str(row)} for row in range(40)))
        desk.stop_after = 30
        desk.run(*ECHO)
        read: list[int] = []
        reader = "raypool.cli.rows.RowReader._made"
        made = RowReader._made

        def note(self: Any, number: int, *rest: Any) -> Any:
            read.append(number)
            return made(self, number, *rest)

        monkeypatch.setattr(reader, note)
        desk.stop_after = 1_000

        assert desk.run("--backend", "scripted") == 0
        assert read == list(range(28, 40))
        assert "40 answered, 0 failed (30 of them by an earlier run)" in desk.stderr
        assert len(desk.asked) == 40

    @pytest.mark.parametrize(
        "data", [b"", b"garbage" * 1_000, None], ids=["empty", "text", "folder"]
    )
    def test_index_that_is_none_costs_only_time(
        self, desk: Desk, small_chunks: None, data: bytes | None
    ) -> None:
        desk.write(*({"prompt": str(row)} for row in range(12)))
        desk.stop_after = 5
        desk.run(*ECHO)
        index = desk.path / "out.jsonl.index"
        index.unlink()
        if data is None:
            index.mkdir()
        else:
            index.write_bytes(data)
        desk.stop_after = 1_000

        assert desk.run(*ECHO) == 0
        assert desk.run(*ECHO) == 0
        assert len(desk.lines()) == len(desk.asked) == 12

    def test_other_inputs_are_read_from_the_start(self, desk: Desk, small_chunks: None) -> None:
        desk.write(*({"prompt": str(row)} for row in range(12)))
        desk.run(*ECHO)
        desk.write({"prompt": "new"}, *({"prompt": str(row)} for row in range(12)))

        assert desk.run(*ECHO) == 0
        assert desk.asked[-1] == "new"
        assert len(desk.lines()) == len(desk.asked) == 13

    def test_several_tables_go_on_where_they_were(self, desk: Desk, small_chunks: None) -> None:
        for part in "abc":
            cells = (f'"{part}\n{row}"' for row in range(7))
            desk.write("prompt", *cells, name=f"{part}.csv")
        for stop in range(0, 21, 3):
            desk.at_once, desk.stop_after = stop % 5 + 1, 3
            desk.run(*ECHO, name="*.csv")
        desk.stop_after = 1_000

        assert desk.run(*ECHO, name="*.csv") == 0
        assert len(desk.lines()) == len(desk.asked) == len(set(desk.asked)) == 21

    def test_row_that_ended_early_is_known_when_the_reading_comes_to_it(
        self, desk: Desk, small_chunks: None
    ) -> None:
        desk.write(*({"prompt": str(row)} for row in range(4)))
        desk.at_once, desk.stop_after = 4, 1
        desk.run(*ECHO)
        desk.at_once, desk.stop_after = 1, 1_000

        assert desk.run(*ECHO) == 0
        assert len(desk.lines()) == len(desk.asked) == 4

    def test_lines_whose_rows_were_not_read_again_are_not_forgotten(
        self, desk: Desk, small_chunks: None
    ) -> None:
        desk.write(*({"prompt": str(row)} for row in range(12)))
        desk.at_once, desk.stop_after = 12, 10
        desk.run(*ECHO)
        (desk.path / "out.jsonl.index").unlink()
        desk.at_once, desk.stop_after = 1, 0
        desk.run(*ECHO)
        desk.stop_after = 1_000

        assert desk.run(*ECHO) == 0
        assert len(desk.lines()) == len(desk.asked) == 12

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
    )
    @given(
        stops=st.lists(
            st.tuples(st.integers(0, 12), st.sampled_from(["kill", "cut", "lose", "end"])),
            max_size=4,
        ),
        rows=st.lists(st.sampled_from(["0", "1", "2", "bad"]), min_size=1, max_size=24),
        data=st.data(),
    )
    def test_wherever_runs_are_killed_each_row_has_one_line_and_one_answer(
        self,
        desk: Desk,
        small_chunks: None,
        stops: list[tuple[int, str]],
        rows: list[str],
        data: st.DataObject,
    ) -> None:
        number = len(list(desk.path.iterdir()))
        output, name = f"out-{number}.jsonl", f"in-{number}.jsonl"
        index, lines = desk.path / f"{output}.index", desk.path / output
        desk.pools.clear()
        desk.reply = refuse_odd
        desk.write(*("{" if row == "bad" else {"prompt": row} for row in rows), name=name)
        for stop, how in stops:
            desk.at_once = data.draw(st.sampled_from([1, 7]), "at once")
            kept = index.read_bytes() if index.exists() else None
            desk.stop_after = stop
            desk.run(*ECHO, output=output, name=name)
            if how == "kill" and kept is not None:
                index.write_bytes(kept)
            elif how == "lose":
                index.unlink(missing_ok=True)
            elif how == "cut":
                size = lines.stat().st_size
                with lines.open("ab") as file:
                    file.truncate(data.draw(st.integers(0, size)))
        desk.stop_after = 1_000_000

        desk.run(*ECHO, output=output, name=name)

        good = [row for row in rows if row != "bad"]
        assert sorted(desk.asked) == sorted(good)
        written = desk.lines(output)
        assert sorted(line.get("prompt", "bad") for line in written) == sorted(rows)
        failed = [line["error"] for line in written if "error" in line]
        assert [row["error"] for row in desk.failed_rows(output)] == failed


class TestOwnFiles:
    def test_pattern_leaves_out_what_the_run_has_written(self, desk: Desk) -> None:
        desk.reply = refuse_odd
        desk.write({"prompt": "0"}, {"prompt": "1"})

        desk.run(*ECHO, name="*.jsonl")
        assert desk.run(*ECHO, name="*.jsonl") == 1
        assert desk.asked == ["0", "1"]

    def test_failed_rows_of_the_same_output_are_no_input(self, desk: Desk) -> None:
        desk.reply = refuse_odd
        desk.write({"prompt": "1"})
        desk.run(*ECHO)

        assert desk.run(*ECHO, name="out.jsonl.failed.jsonl") == 2
        assert "is written by this run" in desk.stderr
        assert len(desk.failed_rows()) == 1

    def test_limit_holds_also_after_more_was_done(self, desk: Desk, small_chunks: None) -> None:
        desk.write(*({"prompt": str(row)} for row in range(12)))
        desk.run(*ECHO, "--limit", "9")

        assert desk.run(*ECHO, "--limit", "2") == 0
        assert len(desk.asked) == 9
        assert desk.run(*ECHO, "--sample", "3") == 0
        assert desk.run(*ECHO) == 0
        assert len(desk.asked) == len(desk.lines()) == 12
