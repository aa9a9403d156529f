"""What rows ask: columns, templates in which nothing is evaluated, functions, batch requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.cli.batch_form import RunTerms
from raypool.cli.mapper import Mapper, imported
from raypool.cli.problem import Problem
from raypool.cli.question import Asked, ColumnPrompt, OwnPrompt
from raypool.cli.template import Template, with_escapes
from raypool.errors import InvalidTask

FUNCTIONS = """
import click

def ask(row):
    if row["n"] == 0:
        return None
    row["n"] += 1
    return [{"role": "user", "content": f"What is 1 / {1 / (row['n'] - 3)}?"}]

def wrong(row):
    return row

number = 5
"""


class TestTemplate:
    def test_columns_are_filled_in(self) -> None:
        template = Template("{title}: {n} {tags} {{as is}}")

        asked = template.of({"title": "{n}", "n": 1.5, "tags": ["a", True]})

        assert asked.prompt == '{n}: 1.5 ["a",true] {as is}'

    def test_dots_lead_into_objects_unless_a_column_has_them(self) -> None:
        template = Template("{author.name} {a.b}")

        asked = template.of({"author": {"name": "Ada"}, "a.b": "x", "a": {"b": "y"}})

        assert asked.prompt == "Ada x"

    @pytest.mark.parametrize("row", [{}, {"a": {}}, {"a": "text"}, {"a": None}])
    def test_what_is_missing_is_named(self, row: dict[str, Any]) -> None:
        with pytest.raises(InvalidTask, match=r"no column 'a\.b'"):
            Template("{a.b}").of(row)

    def test_null_is_named(self) -> None:
        with pytest.raises(InvalidTask, match="column 'a' is null"):
            Template("{a}").of({"a": None})

    @pytest.mark.parametrize(
        "text", ["{}", "{a!r}", "{a:>9}", "{a[0]}", "{a", "a}", "{ }", "no column", "{a:{b}}"]
    )
    def test_anything_else_in_braces_is_refused(self, text: str) -> None:
        with pytest.raises(click.UsageError, match="--template"):
            Template(text)

    def test_attributes_are_no_fields(self) -> None:
        with pytest.raises(InvalidTask, match="no column"):
            Template("{a.__class__}").of({"a": "text"})

    def test_table_without_the_column_is_refused(self) -> None:
        with pytest.raises(Problem, match=r"in\.csv has no column 'titel'; it has 'title', 'b'"):
            Template("{titel}").check_columns("in.csv", ["title", "b"])
        Template("{b.c}").check_columns("in.csv", ["title", "b"])

    @given(st.text())
    def test_texts_go_in_as_they_are(self, text: str) -> None:
        assert Template("<{a}>").of({"a": text}).prompt == f"<{text}>"

    def test_escapes_of_the_command_line(self) -> None:
        assert with_escapes(r"a\nb\tc\\n\d") == "a\nb\tc\\n\\d"


class TestColumn:
    def test_column_is_asked_and_the_row_stays_whole(self) -> None:
        assert ColumnPrompt("q").of({"q": "x", "n": 1}) == Asked("x", {"q": "x", "n": 1})

    def test_missing_column_is_named(self) -> None:
        with pytest.raises(InvalidTask, match="no column 'q'; it has 'r'"):
            ColumnPrompt("q").of({"r": 1})
        with pytest.raises(Problem, match=r"in\.csv has no column 'q'; it has 'r'"):
            ColumnPrompt("q").check_columns("in.csv", ["r"])

    def test_other_kinds_are_named(self) -> None:
        with pytest.raises(InvalidTask, match="'q' must be a text, got a number"):
            ColumnPrompt("q").of({"q": 1})

    def test_table_without_prompts_is_refused_with_what_to_type(self) -> None:
        with pytest.raises(Problem, match=r"no column 'prompt', it has 'a'; .*--prompt-column"):
            OwnPrompt(RunTerms()).check_columns("in.csv", ["a"])


class TestMapper:
    @pytest.fixture(autouse=True)
    def functions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mapper_of_test.py").write_text(FUNCTIONS)
        monkeypatch.syspath_prepend(str(tmp_path))

    def test_function_makes_the_prompt_and_cannot_change_the_row(self) -> None:
        asked = Mapper("mapper_of_test:ask").of({"n": 3})

        assert asked == Asked([{"role": "user", "content": "What is 1 / 1.0?"}], {"n": 3})

    def test_none_leaves_the_row_out(self) -> None:
        assert Mapper("mapper_of_test:ask").of({"n": 0}) is None

    def test_what_it_raises_is_the_reason(self) -> None:
        with pytest.raises(InvalidTask, match="ask: ZeroDivisionError: "):
            Mapper("mapper_of_test:ask").of({"n": 2})
        with pytest.raises(InvalidTask, match="ask: KeyError: 'n'"):
            Mapper("mapper_of_test:ask").of({})

    def test_what_it_must_give_is_said(self) -> None:
        with pytest.raises(InvalidTask, match="must give a text, messages or None, got dict"):
            Mapper("mapper_of_test:wrong").of({})

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mapper_of_test", "must be package.module:name"),
            ("mapper_of_test:missing", "cannot import mapper_of_test:missing: AttributeError"),
            ("no_such_module:f", "ModuleNotFoundError"),
            ("mapper_of_test:number", "is no function"),
        ],
    )
    def test_name_of_no_function_is_refused(self, name: str, said: str) -> None:
        with pytest.raises(click.UsageError, match=said):
            Mapper(name)

    def test_name_may_lead_into_a_class(self) -> None:
        assert imported("pathlib:Path.cwd", "--mapper")() == Path.cwd()


def openai(**body: Any) -> dict[str, Any]:
    body.setdefault("messages", [{"role": "user", "content": "hi"}])
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}


def anthropic(**params: Any) -> dict[str, Any]:
    params.setdefault("messages", [{"role": "user", "content": "hi"}])
    return {"custom_id": "a", "params": params}


class TestBatchForm:
    terms = RunTerms(model="m", system="Be brief.", max_tokens=100)

    def asked(self, row: dict[str, Any]) -> Asked:
        return OwnPrompt(self.terms).of(row)

    @pytest.mark.parametrize(
        "row",
        [
            openai(),
            openai(model="m", max_completion_tokens=100, stream=False, n=1, user="u", stop=None),
            openai(
                messages=[
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "hi"},
                ]
            ),
            anthropic(model="m", max_tokens=100, system="Be brief."),
            anthropic(system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]),
        ],
    )
    def test_request_that_asks_as_the_run_does_is_asked(self, row: dict[str, Any]) -> None:
        messages = [{"role": "user", "content": "hi"}]

        assert self.asked(row) == Asked(messages, {"custom_id": "a"})

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (openai(model="gpt"), "'body.model' is 'gpt', and this run's is 'm'; --model sets it"),
            (anthropic(max_tokens=5), "'params.max_tokens' is 5, .* is 100; --max-tokens sets it"),
            (anthropic(system="Rhyme."), "the system prompt in 'params' is not that of the run"),
            (openai(temperature=0), "'body.temperature' has no counterpart here"),
            (openai(stream=True), "'body.stream' has no counterpart here"),
            (openai() | {"url": "/v1/embeddings"}, "'url' must be that of a chat"),
            ({"custom_id": "a", "params": []}, "'params' must be an object, got an array"),
            (openai(messages="hi"), r"'body.messages' must be a list of messages, got a text"),
            (anthropic(system=5), "a system prompt must be a text, got a number"),
        ],
    )
    def test_request_that_asks_otherwise_is_refused_with_the_reason(
        self, row: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(InvalidTask, match=said):
            self.asked(row)

    def test_run_without_a_model_of_its_own_takes_any(self) -> None:
        OwnPrompt(RunTerms(max_tokens=1024)).of(openai(model="gpt"))

    def test_prompt_goes_before_a_field_of_that_name(self) -> None:
        assert self.asked({"prompt": "hi", "body": "text"}).fields == {"body": "text"}
