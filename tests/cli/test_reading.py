"""Where rows come from: files, streams, and a thread that reads ahead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypool.cli.ahead import READ_AHEAD, Ahead
from raypool.cli.problem import Problem
from raypool.cli.rows import Format
from raypool.cli.source import open_source


class TestSource:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.txt", "text"), ("a", "text")],
    )
    def test_name_of_a_file_tells_what_its_lines_are(
        self, tmp_path: Path, name: str, expected: Format
    ) -> None:
        path = tmp_path / name
        path.write_bytes(b"12345")

        source = open_source(str(path), None)
        source.close()

        assert (source.format, source.size) == (expected, 5)

    def test_format_that_is_given_goes_before_the_name(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.touch()

        source = open_source(str(path), "text")
        source.close()

        assert source.format == "text"

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
        monkeypatch.setattr("raypool.cli.source.STDIN", read_end)

        source = open_source("-", None)

        assert (source.format, source.size) == (expected, None)
        with source.stream as stream:
            assert stream.read() == data

    def test_directory_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(Problem, match="Is a directory"):
            open_source(str(tmp_path), None)


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
