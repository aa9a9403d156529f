"""The output file: whole lines, each row once, in agreement with what has ended."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.cli.lines import RESERVED, bad_row_line, result_line
from raypool.cli.output import Output, OutputFile, OutputLost
from raypool.cli.problem import Problem
from raypool.cli.records import Origin
from raypool.cli.rows import BadRow, request_digest
from raypool.cli.states import State
from raypool.cli.written import Written
from raypool.errors import Cause
from raypool.response import TaskResult
from raypool.usage import Usage


def answered(row_id: str, prompt: str = "p", /, **fields: Any) -> bytes:
    return result_line(
        TaskResult(
            id=row_id,
            worker="w-1",
            role=None,
            prompt=prompt,
            state="completed",
            text="answer",
            usage=Usage(1, 2, 3, 4),
            duration_ms=5.0,
            attempts=1,
            metadata=fields,
            model="m",
            stop_reason="end_turn",
            cost_usd=0.1,
        )
    )


def failed(row_id: str, prompt: str = "p", kind: str = "InternalServerError") -> bytes:
    return result_line(
        TaskResult(
            id=row_id,
            worker="w-1",
            role=None,
            prompt=prompt,
            state="failed",
            attempts=4,
            error=Cause(kind, "no"),
            metadata={},
        )
    )


ORIGIN = Origin("in.jsonl")


def states(written: Written, **asked: str) -> list[State]:
    """What became of rows by their ids, which ask these prompts."""
    return [written.state(row_id, request_digest(prompt)) for row_id, prompt in asked.items()]


def agreed(path: Path, *, drop_failed: bool = False) -> Written:
    output = OutputFile(path)
    try:
        return output.agree(drop_failed=drop_failed)
    finally:
        output.close()


class TestLines:
    def test_answered_row_has_what_the_contract_names_in_its_order(self) -> None:
        line = json.loads(answered("a", topic="x"))

        assert line == {
            "id": "a",
            "prompt": "p",
            "topic": "x",
            "text": "answer",
            "worker": "w-1",
            "model": "m",
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_read_tokens": 3,
                "cache_write_tokens": 4,
            },
            "cost_usd": 0.1,
            "duration_ms": 5.0,
            "attempts": 1,
        }
        assert list(line)[:4] == ["id", "prompt", "topic", "text"]

    def test_failed_row_has_an_error_and_no_text(self) -> None:
        line = json.loads(failed("a"))

        assert line["error"] == {"type": "InternalServerError", "message": "no"}
        assert line["attempts"] == 4
        assert "text" not in line

    def test_bad_row_names_its_line_and_keeps_what_it_has(self) -> None:
        line = json.loads(
            bad_row_line(BadRow(3, ORIGIN, 7, "the prompt is empty", "a", {"prompt": ""}))
        )

        assert line == {
            "id": "a",
            "prompt": "",
            "error": {"type": "BadRow", "message": "in.jsonl, line 7: the prompt is empty"},
        }

    def test_id_keeps_the_type_that_it_came_with(self) -> None:
        assert json.loads(answered("7", id=7))["id"] == 7
        assert json.loads(answered("a", id=None, custom_id="a"))["id"] == "a"

    def test_field_named_as_one_of_the_output_is_kept_under_another_name(self) -> None:
        line = json.loads(answered("a", text="mine", input_text="too", error=None))

        assert line["text"] == "answer"
        assert line["input_input_text"] == "mine"
        assert line["input_text"] == "too"
        assert line["input_error"] is None

    @given(
        fields=st.dictionaries(
            st.sampled_from([*RESERVED, *(f"input_{name}" for name in RESERVED), "other"]),
            st.integers(),
        )
    )
    def test_no_field_is_ever_lost(self, fields: dict[str, Any]) -> None:
        line = json.loads(answered("a", **fields))

        own = {"id", "prompt", *(name for name in RESERVED if name != "error")}
        carried = [line[name] for name in line if name not in own]
        assert sorted(carried) == sorted(fields.values())


class TestAgreement:
    def test_new_file_has_nothing(self, tmp_path: Path) -> None:
        assert len(agreed(tmp_path / "out.jsonl")) == 0

    def test_lines_of_an_earlier_run_are_known_by_id_and_request(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(answered("a", "p") + failed("b", "q") + answered("7", "r", id=7))

        written = agreed(path)

        assert states(written, a="p", b="q") == [State.ANSWERED, State.FAILED]
        assert written.state("7", request_digest("r")) is State.ANSWERED
        assert states(written, a="other", c="p") == [State.OTHER, State.NEW]

    def test_torn_last_line_is_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        whole = answered("a") + answered("b")
        path.write_bytes(whole + answered("c")[:-1])

        written = agreed(path)

        assert path.read_bytes() == whole
        assert states(written, a="p", b="p", c="p") == [State.ANSWERED, State.ANSWERED, State.NEW]

    def test_row_that_is_there_twice_stays_once(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(answered("a") + answered("b") + answered("a"))

        agreed(path)

        assert path.read_bytes() == answered("a") + answered("b")

    def test_bad_rows_go_since_the_input_may_have_been_mended(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        bad = bad_row_line(BadRow(1, ORIGIN, 2, "bad", "a", {"id": True}))
        path.write_bytes(bad + answered("a") + bad_row_line(BadRow(2, ORIGIN, 3, "bad")))

        written = agreed(path)

        assert path.read_bytes() == answered("a")
        assert len(written) == 1

    def test_failed_rows_go_when_they_are_to_be_asked_again(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(failed("a") + answered("b") + failed("c"))

        written = agreed(path, drop_failed=True)

        assert path.read_bytes() == answered("b")
        assert states(written, a="p", b="p", c="p") == [State.NEW, State.ANSWERED, State.NEW]

    def test_rewritten_file_keeps_its_mode_and_is_written_on(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(failed("a") + answered("b"))
        path.chmod(0o640)
        output = OutputFile(path)

        output.agree(drop_failed=True)
        output.write(answered("a"))
        output.close()

        assert path.read_bytes() == answered("b") + answered("a")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert list(tmp_path.iterdir()) == [path]

    def test_link_is_followed_and_stays_a_link(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real.jsonl", tmp_path / "out.jsonl"
        real.write_bytes(failed("a"))
        link.symlink_to(real)

        agreed(link, drop_failed=True)

        assert link.is_symlink()
        assert real.read_bytes() == b""

    @pytest.mark.parametrize("line", [b"hello\n", b"[]\n", b"\n", b'{"a": 1}\n', b'{"id": \xff}\n'])
    def test_file_with_foreign_lines_is_left_as_it_is(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "out.jsonl"
        before = answered("a") + line + answered("b") + b"torn"
        path.write_bytes(before)

        with pytest.raises(Problem, match=r"line 2 of .*out\.jsonl is not one that raypool wrote"):
            agreed(path, drop_failed=True)
        assert path.read_bytes() == before

    @given(cut=st.integers(min_value=0), rows=st.integers(min_value=1, max_value=5))
    def test_wherever_a_run_was_killed_whole_lines_stay(
        self, tmp_path_factory: pytest.TempPathFactory, cut: int, rows: int
    ) -> None:
        path = tmp_path_factory.mktemp("cut") / "out.jsonl"
        lines = [answered(str(row)) for row in range(rows)]
        data = b"".join(lines)
        path.write_bytes(data[: cut % (len(data) + 1)])
        whole = path.read_bytes().count(b"\n")

        written = agreed(path)

        assert path.read_bytes() == b"".join(lines[:whole])
        found = [written.state(str(row), request_digest("p")) for row in range(rows)]
        assert found == [State.ANSWERED] * whole + [State.NEW] * (rows - whole)


class TestFile:
    def test_second_run_is_refused_while_the_first_has_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        first = OutputFile(path)

        with pytest.raises(Problem, match=r"another raypool run is writing .*out\.jsonl"):
            OutputFile(path)
        first.close()
        OutputFile(path).close()

    def test_second_run_is_refused_after_the_first_has_rewritten_it(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(failed("a"))
        first = OutputFile(path)
        first.agree(drop_failed=True)

        with pytest.raises(Problem, match="another raypool run"):
            OutputFile(path)
        first.close()

    def test_file_that_cannot_be_written_is_said_with_the_reason(self, tmp_path: Path) -> None:
        with pytest.raises(Problem, match=r"cannot write .*missing/out\.jsonl: No such file"):
            OutputFile(tmp_path / "missing" / "out.jsonl")
        with pytest.raises(Problem, match="Is a directory"):
            OutputFile(tmp_path)

    def test_discard_leaves_a_file_as_it_was_found(self, tmp_path: Path) -> None:
        new, empty, full = (tmp_path / name for name in ("new", "empty", "full"))
        empty.touch()
        full.write_bytes(answered("a"))
        for path in (new, empty, full):
            output = OutputFile(path)
            output.write(answered("b"))
            output.discard()
            output.close()

        assert sorted(tmp_path.iterdir()) == [empty, full]
        assert empty.read_bytes() == b""
        assert full.read_bytes() == answered("a") + answered("b")


def test_pipe_that_nobody_reads_is_an_output_that_is_lost() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    output = Output(write_end, "stdout")

    with pytest.raises(OutputLost, match="nobody reads stdout any more"):
        output.write(b"x\n")
    output.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk_is_an_output_that_is_lost() -> None:
    output = Output(os.open("/dev/full", os.O_WRONLY), "out.jsonl")

    with pytest.raises(OutputLost, match=r"cannot write out\.jsonl: No space left"):
        output.write(b"x\n")
    output.close()


def test_line_larger_than_a_pipe_that_does_not_block_is_written_whole() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    line = b"x" * 300_000 + b"\n"
    pieces: list[bytes] = []
    with ThreadPoolExecutor(1) as reader, os.fdopen(read_end, "rb") as stream:
        reader.submit(lambda: pieces.append(stream.read()))
        output = Output(write_end, "stdout")

        output.write(line)
        output.close()

    assert pieces == [line]
