"""Where rows come from: files, streams, and a thread that reads ahead."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raypool.cli.ahead import READ_AHEAD, Ahead
from raypool.cli.inputs import Input, open_inputs
from raypool.cli.problem import Problem
from raypool.cli.records import Format


def open_one(name: str, row_format: Format | None = None) -> Input:
    (found,) = open_inputs([name], row_format)
    return found


class TestInputs:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("a.jsonl", "jsonl"),
            ("a.NDJSON", "jsonl"),
            ("a.csv", "csv"),
            ("a.tsv", "tsv"),
            ("a.txt", "text"),
            ("a", "text"),
        ],
    )
    def test_name_of_a_file_tells_what_its_records_are(
        self, tmp_path: Path, name: str, expected: Format
    ) -> None:
        path = tmp_path / name
        path.write_bytes(b"12345")

        found = open_one(str(path))

        assert (found.format, found.size) == (expected, 5)

    def test_format_that_is_given_goes_before_the_name(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.touch()

        assert open_one(str(path), "text").format == "text"

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b'{"prompt": "x"}', "jsonl"),
            (b"\xef\xbb\xbf\n {", "jsonl"),
            (b"hi {", "text"),
            (b"", "text"),
        ],
    )
    def test_first_character_of_a_stream_tells_what_its_lines_are(
        self, monkeypatch: pytest.MonkeyPatch, data: bytes, expected: Format
    ) -> None:
        read_end, write_end = os.pipe()
        os.write(write_end, data)
        os.close(write_end)
        monkeypatch.setattr("raypool.cli.inputs.STDIN", read_end)

        found = open_one("-")

        assert (found.format, found.size, found.origin.name) == (expected, None, "stdin")
        list(found.open().records())  # stays open: a thread may wait in it
        assert os.read(read_end, 1) == b""
        os.close(read_end)

    def test_pipe_is_opened_once(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=("one\ntwo\n",))
        writer.start()

        with closing(open_one(str(pipe)).open()) as reader:
            records = list(reader.records())

        writer.join()
        assert [record.fields["prompt"] for record in records] == ["one", "two"]

    def test_directory_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(Problem, match="Is a directory"):
            open_one(str(tmp_path))

    def test_pattern_is_every_file_that_fits_in_order_and_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("b.jsonl", "a.jsonl", "c.txt", "[1].txt"):
            (tmp_path / name).touch()

        found = open_inputs(["*.jsonl", "a.jsonl", "[1].txt"], None)

        assert [one.path for one in found] == ["a.jsonl", "b.jsonl", "[1].txt"]

    def test_pattern_that_fits_nothing_is_said(self) -> None:
        with pytest.raises(Problem, match=r"no file is named nothing/\*\.jsonl"):
            open_inputs(["nothing/*.jsonl"], None)

    def test_stdin_is_read_alone_and_has_no_parquet(self) -> None:
        with pytest.raises(Problem, match="read alone"):
            open_inputs(["-", "a.jsonl"], None)
        with pytest.raises(Problem, match="cannot be read from a stream"):
            open_inputs(["-"], "parquet")


class TestAhead:
    def test_everything_comes_in_order(self) -> None:
        numbers = range(3 * READ_AHEAD)

        assert list(Ahead(numbers)) == list(numbers)

    def test_stop_ends_it_while_the_source_is_waiting(self) -> None:
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as stream, os.fdopen(write_end, "wb", 0) as source:
            ahead = Ahead(stream)
            lines = iter(ahead)
            source.write(b"one\n")

            assert next(lines) == b"one\n"
            ahead.stop()
            assert list(lines) == []
            source.write(b"two\n")

    def test_error_of_the_source_is_raised_where_it_is_read(self) -> None:
        def broken() -> Iterator[int]:
            yield 1
            raise OSError("the disk is gone")

        items = iter(Ahead(broken()))

        assert next(items) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(items)
