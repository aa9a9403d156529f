"""Texts that are not Unicode, made into ones that are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.unicode import is_unicode, unicode_text, unicode_value

any_text = st.text(st.characters(codec=None, categories=["Cs", "L", "N"]) | st.just("\ud83d"))


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "\N{GRINNING FACE}"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\udcff \N{SNOWMAN}\0", "\ufffd \N{SNOWMAN}\0"),
    ],
    ids=["lone", "pair", "pair the wrong way round", "beside others"],
)
def test_pairs_are_joined_and_lone_surrogates_replaced(text: str, repaired: str) -> None:
    assert unicode_text(text) == repaired


@given(st.text())
def test_unicode_comes_back_as_it_was(text: str) -> None:
    assert unicode_text(text) == text


@given(any_text)
def test_any_text_can_be_encoded_afterwards(text: str) -> None:
    assert unicode_text(text).encode().decode() == unicode_text(text)


def test_texts_are_repaired_wherever_they_are_in_a_value() -> None:
    value: Any = {"a\ud800": [1, None, True, 0.5, ("\ud800", {"b": "\udcff"})]}

    assert unicode_value(value) == {"a\ufffd": [1, None, True, 0.5, ["\ufffd", {"b": "\ufffd"}]]}


def test_only_a_text_that_can_be_written_down_is_unicode() -> None:
    assert is_unicode("Grüße, 🧪\x00")
    assert not any(map(is_unicode, ["\ud800", b"bytes", None, 7, {}]))
