"""One event: how it reads, what it may hold, and how it travels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.clock import FakeClock
from raypool.telemetry import TelemetryEvent, decode_events, encode_events
from raypool.telemetry.event import MAX_TEXT_LENGTH, new_event

any_text = st.text(st.characters(exclude_categories=()), max_size=2 * MAX_TEXT_LENGTH)
anything = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | any_text


class Secretive:
    """A value of a kind that no event holds."""

    def __str__(self) -> str:
        return "a short name"


def test_event_reads_as_one_line() -> None:
    event = TelemetryEvent(
        "prompt.stop",
        1_700_000_000_123,
        "crew",
        worker="crew-1",
        task="a",
        fields={"turn": 1, "model": "m\nm"},
    )

    assert repr(event) == (
        r"<22:13:20.123 prompt.stop pool='crew' worker='crew-1' task='a' turn=1 model='m\nm'>"
    )


def test_event_is_of_the_moment_at_which_it_is_made() -> None:
    event = new_event(FakeClock(1_700_000_000.1234), "resumed", {}, pool="crew", worker="crew-1")

    assert event == TelemetryEvent("resumed", 1_700_000_000_123, "crew", "crew-1")


def test_what_is_not_known_is_left_out() -> None:
    event = new_event(FakeClock(), "halted", {"reason": None}, pool="crew")

    assert event.fields == {}


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ("x" * 10_000, "x" * MAX_TEXT_LENGTH),
        ("a\ud800b", "a?b"),
        (Secretive(), "a short name"),
        (True, True),
        (0.5, 0.5),
    ],
    ids=["long", "lone surrogate", "other kind", "flag", "fraction"],
)
def test_field_is_a_number_or_a_short_text(value: Any, held: Any) -> None:
    event = new_event(FakeClock(), "halted", {"reason": value}, pool="crew")

    assert event.fields == {"reason": held}


@given(st.lists(anything, max_size=5))
def test_whatever_is_told_can_be_sent(values: list[Any]) -> None:
    events = [new_event(FakeClock(), "halted", {"reason": value}, pool="crew") for value in values]

    assert [repr(one) for one in decode_events(encode_events(events))] == list(map(repr, events))
