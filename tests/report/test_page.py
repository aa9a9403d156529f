"""The page as text: nothing from outside, nothing of others' that a browser would obey."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from raypool.ledger import Totals
from raypool.report import gather, render
from raypool.report.charts import charts
from raypool.report.figures import Figures, Moment
from raypool.report.words import duration, percent
from tests.report.ledgers import START, asked, ended, fill, hostile

LOADING = ("src", "href", "srcset", "data", "action", "poster", "background")


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        scripts: what is in its `script` elements, by type.
        elements: every start tag, with its attributes.
        text: what a reader sees.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.scripts: list[tuple[str | None, str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._open[-1:] != ["style"]:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def attribute(self, tag: str, key: str, value: str, wanted: str) -> str:
        """An attribute of the element that has this one."""
        (found,) = [
            one[wanted] for name, one in self.elements if name == tag and one.get(key) == value
        ]
        assert found is not None
        return found


def page_of(path: Path, *, content: bool = False) -> Page:
    return Page(render(gather(path, content=content)))


def test_texts_of_others_make_no_element(tmp_path: Path) -> None:
    page = page_of(hostile(tmp_path / "run.db"), content=True)

    tags = {tag for tag, _ in page.elements}
    assert "img" not in tags
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    assert [kind for kind, _ in page.scripts] == ["application/json", None, None]
    for what in ("id", "role", "model", "type", "setback", "prompt", "answer", "message"):
        assert f"<script>alert('{what}')</script>" in page.text


def test_texts_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    page = page_of(hostile(tmp_path / "run.db"))

    for what in ("prompt", "answer", "message"):
        assert f"alert('{what}')" not in page.text
    assert "--content" in page.text


def test_page_names_nothing_that_a_browser_would_load(tmp_path: Path) -> None:
    page = page_of(hostile(tmp_path / "run.db"))

    loaded = [given[name] for _, given in page.elements for name in LOADING if name in given]
    assert loaded == ["#tasks"]
    assert "link" not in {tag for tag, _ in page.elements}
    assert b"url(" not in render(gather(tmp_path / "run.db"))


def test_policy_allows_the_scripts_of_the_page_alone(tmp_path: Path) -> None:
    page = page_of(hostile(tmp_path / "run.db"))

    policy = page.attribute("meta", "http-equiv", "Content-Security-Policy", "content")

    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for kind, script in page.scripts
        if kind is None
    ]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"'sha256-(.*?)'", policy) == digests


def test_numbers_of_the_charts_are_json_in_the_page(tmp_path: Path) -> None:
    fill(tmp_path / "run.db", [asked(1)], [ended(1)])
    figures = gather(tmp_path / "run.db")

    page = Page(render(figures))

    assert json.loads(page.scripts[0][1]) == json.loads(json.dumps(charts(figures)))


def test_page_about_nothing_says_so() -> None:
    page = Page(render(Figures("", "run.db", START)))

    assert "A pool without a name" in page.text
    assert "holds no task yet" in page.text
    assert "Nothing has ended yet." in page.text
    assert page.scripts[0][1].strip() == "{}"


def test_surrogates_do_not_keep_a_page_from_being_written() -> None:
    assert "crew" in Page(render(Figures("crew \udcff", "run.db", START))).text


@pytest.mark.parametrize(
    ("per_moment", "step_ms", "unit", "shown"),
    [(3, 1_000, "second", 3.0), (3, 60_000, "minute", 3.0), (2, 600_000, "hour", 12.0)],
)
def test_throughput_is_told_in_a_unit_that_one_can_picture(
    per_moment: int, step_ms: int, unit: str, shown: float
) -> None:
    moments = (Moment(0, completed=per_moment), Moment(step_ms), Moment(2 * step_ms, per_moment))
    figures = Figures("crew", "run.db", 0, Totals(), step_ms, moments)

    chart: dict[str, Any] = charts(figures)["throughput"]

    assert chart["unit"] == f"tasks per {unit}"
    assert chart["columns"]["completed"] == [shown, 0.0, shown]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.42, "0.42 ms"),
        (812, "812 ms"),
        (999.7, "1 s"),
        (4_330, "4.33 s"),
        (99_960, "1 min 40 s"),
        (3_600_000, "1 h 0 min"),
        (180_000_000, "2 d 2 h"),
    ],
)
def test_durations_are_told_as_people_say_them(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (1, 0, "–"),
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 3, "33.3 %"),
        (9_999_999, 10_000_000, "over 99.9 %"),
        (1, 10_000_000, "under 0.1 %"),
    ],
)
def test_percentages_hide_no_exception(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text
