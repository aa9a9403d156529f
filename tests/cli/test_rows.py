"""Reading rows: every line that is not blank is one row, whatever its bytes are."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.cli import records
from raypool.cli.lines import bad_row_line
from raypool.cli.records import Format, Origin
from raypool.cli.rows import BadRow, Row
from raypool.task import Task, check_task
from tests.cli.reader import read_rows, reader_of

STDIN = Origin("stdin")


def read(data: bytes | str, row_format: Format = "jsonl") -> list[Row | BadRow]:
    return read_rows(data.encode() if isinstance(data, str) else data, row_format)


def read_one(data: bytes | str) -> Row | BadRow:
    (row,) = read(data)
    return row


def reason_of(data: bytes | str) -> str:
    row = read_one(data)
    assert isinstance(row, BadRow)
    return row.reason


def ids(data: str) -> list[str | None]:
    return [row.id for row in read(data)]


class TestGoodRows:
    def test_prompt_is_asked_and_other_fields_are_carried(self) -> None:
        row = read_one('{"prompt": "hi", "topic": "x", "n": 1}')

        assert isinstance(row, Row)
        assert (row.line, row.prompt, row.fields) == (1, "hi", {"topic": "x", "n": 1})

    def test_messages_are_asked_as_they_are(self) -> None:
        messages = [{"role": "user", "content": "hi"}]

        row = read_one(json.dumps({"messages": messages}))

        assert isinstance(row, Row)
        assert row.prompt == messages

    def test_null_is_as_good_as_absent(self) -> None:
        row = read_one('{"id": null, "custom_id": "a", "prompt": "hi", "messages": null}')

        assert isinstance(row, Row)
        assert (row.id, row.prompt) == ("a", "hi")

    def test_text_lines_keep_their_blanks_and_lose_their_ends(self) -> None:
        found = read(b"\xef\xbb\xbf one \r\n\r\n   \n\ttwo", "text")

        assert [(row.line, row.prompt) for row in found if isinstance(row, Row)] == [
            (1, " one "),
            (4, "\ttwo"),
        ]

    def test_line_separators_of_unicode_do_not_end_a_line(self) -> None:
        row = read_one('{"prompt": "one\u2028two\x85three"}')

        assert isinstance(row, Row)
        assert row.prompt == "one\u2028two\x85three"

    def test_ten_megabytes_are_a_prompt(self) -> None:
        row = read_one(json.dumps({"prompt": "x" * 10_000_000}))

        assert isinstance(row, Row)


class TestIds:
    def test_id_goes_before_custom_id_and_numbers_become_texts(self) -> None:
        assert ids(
            '{"id": "a", "custom_id": "b", "prompt": "p"}\n'
            '{"custom_id": "c", "prompt": "p"}\n'
            '{"id": 7, "prompt": "p"}'
        ) == ["a", "c", "7"]

    def test_rows_without_id_are_told_apart_by_occurrence(self) -> None:
        first, second, other = ids('{"prompt":"p"}\n{"prompt":"p"}\n{"prompt":"q"}')

        assert first
        assert second
        assert first.removesuffix("-1") == second.removesuffix("-2")
        assert other
        assert other.endswith("-1")
        assert other != first

    def test_hashed_ids_do_not_depend_on_the_order_of_keys(self) -> None:
        first, second = read(
            '{"messages":[{"role":"user","content":"p"}]}\n'
            '{"messages":[{"content":"p","role":"user"}]}'
        )

        assert isinstance(first, Row)
        assert isinstance(second, Row)
        assert first.digest == second.digest

    def test_hashed_id_that_is_taken_makes_room(self) -> None:
        (taken,) = ids('{"prompt": "p"}')

        found = ids(f'{{"id": "{taken}", "prompt": "q"}}\n{{"prompt": "p"}}\n{{"prompt": "p"}}')

        assert len(set(found)) == 3

    def test_second_row_with_an_id_is_bad_and_names_the_first(self) -> None:
        good, bad = read('{"id": "a", "prompt": "p"}\n{"id": "a", "prompt": "q"}')

        assert isinstance(good, Row)
        assert bad == BadRow(
            1, STDIN, 2, "the id 'a' is that of line 1", "a", {"id": "a", "prompt": "q"}
        )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "x"', "not valid JSON"),
        ("hello", "not valid JSON"),
        ('["prompt"]', "must be a JSON object, got an array"),
        ("null", "must be a JSON object, got null"),
        ("{}", "must have a 'prompt' or 'messages', got no fields"),
        ('{"q": 1, "r": 2}', "must have a 'prompt' or 'messages', got 'q', 'r'"),
        ('{"prompt": "a", "messages": []}', "must have a 'prompt' or 'messages', got both"),
        ('{"prompt": 5}', "'prompt' must be a text, got a number"),
        ('{"prompt": ["a"]}', "'prompt' must be a text, got an array"),
        ('{"messages": "a"}', "'messages' must be a list of messages, got a text"),
        ('{"prompt": ""}', "the prompt is empty"),
        ('{"prompt": " \\n"}', "the prompt is empty"),
        ('{"messages": []}', "the prompt is empty"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "role must be 'user'"),
        ('{"id": true, "prompt": "p"}', "'id' must be a text or a whole number, got true"),
        ('{"id": 1.5, "prompt": "p"}', "'id' must be a text or a whole number, got a number"),
        ('{"id": "", "prompt": "p"}', "'id' must be a text or a whole number, got an empty"),
        ('{"prompt": "p", "n": NaN}', "not valid JSON"),
        ('{"prompt": "p", "n": 1e999}', "out of range"),
        (r'{"prompt": "\ud800"}', "must be half of a pair"),
        (b'{"prompt": "\xff"}', "not valid UTF-8 (byte 0xff in column 13)"),
        ('{"prompt": "p", "deep": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100"),
        ("[" * 100_000, "nested more than 100"),
    ],
)
def test_bad_row_says_what_is_wrong(line: bytes | str, reason: str) -> None:
    assert reason in reason_of(line)


def test_bad_row_keeps_its_id_and_fields() -> None:
    row = read_one('{"id": "a", "prompt": "", "topic": "x"}')

    fields = {"id": "a", "prompt": "", "topic": "x"}
    assert row == BadRow(0, STDIN, 1, "the prompt is empty", "a", fields)


def test_bad_row_does_not_take_an_id_away_from_a_good_one() -> None:
    bad, good = read('{"id": "a", "q": 1}\n{"id": "a", "prompt": "p"}')

    assert isinstance(bad, BadRow)
    assert isinstance(good, Row)


def test_line_that_is_too_long_is_skipped_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 20)

    found = read(b'{"prompt": "12345678901234567890 and more than that"}\n{"prompt": "x"}\n')

    assert [row.line for row in found] == [1, 2]
    assert isinstance(found[0], BadRow)
    assert "longer than 20 bytes" in found[0].reason
    assert isinstance(found[1], Row)


def test_reader_knows_how_far_it_is() -> None:
    data = b'{"prompt": "a"}\n\nbad\n'
    reader = reader_of(data)

    list(reader)

    assert (reader.rows, reader.bytes, reader.at_end) == (2, len(data), True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
known_fields = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "custom_id": json_values,
        "prompt": json_values,
        "messages": json_values | st.just([{"role": "user", "content": "x"}]),
        "text": json_values,
    },
)
json_lines = (known_fields | json_values).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)
any_lines = st.lists(st.binary(max_size=40) | json_lines, max_size=8).map(b"\n".join)


@given(data=any_lines, row_format=st.sampled_from(["jsonl", "text"]))
def test_any_bytes_give_one_row_for_each_line_that_is_not_blank(
    data: bytes, row_format: Format
) -> None:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = [number for number, line in enumerate(lines, 1) if line and not line.isspace()]

    found = read(data, row_format)

    assert [row.line for row in found] == expected


@given(data=any_lines)
def test_good_rows_are_tasks_with_ids_of_their_own(data: bytes) -> None:
    good = [row for row in read(data) if isinstance(row, Row)]

    for row in good:
        check_task(Task(row.prompt, id=row.id, metadata=row.fields))
    assert len({row.id for row in good}) == len(good)


@given(data=any_lines)
def test_bad_rows_can_be_written_and_name_their_line(data: bytes) -> None:
    for row in read(data):
        if isinstance(row, BadRow):
            written = msgspec.json.decode(bad_row_line(row))
            assert written["error"]["message"].startswith(f"stdin, line {row.line}: ")


@given(data=any_lines)
def test_rows_are_the_same_when_read_again(data: bytes) -> None:
    assert read(data) == read(data)
