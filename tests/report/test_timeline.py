"""What ended when: spans grow with what there is to show, and nothing is lost."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from raypool.report.figures import Moment
from raypool.report.timeline import MOST_KEPT, MOST_SHOWN, STEPS_MS, Timeline

YEAR_MS = 365 * 86_400_000


def moments_of(*seconds: float) -> tuple[int, list[Moment]]:
    timeline = Timeline()
    timeline.add(Moment(int(second * 1_000), completed=1) for second in seconds)
    moments = timeline.moments()
    return timeline.step_ms, moments


def test_each_span_is_a_multiple_of_the_one_before() -> None:
    assert all(longer % step == 0 for step, longer in itertools.pairwise(STEPS_MS))


def test_short_run_is_shown_by_the_second() -> None:
    step, moments = moments_of(10.2, 10.9, 13.0)

    assert step == 1_000
    assert [(one.since, one.completed) for one in moments] == [
        (10_000, 2),
        (11_000, 0),
        (12_000, 0),
        (13_000, 1),
    ]


def test_long_run_is_shown_by_longer_spans() -> None:
    assert moments_of(0, 3_600)[0] == 30_000
    assert moments_of(0, 86_400)[0] == 600_000
    assert moments_of(0, 30 * 86_400)[0] == 21_600_000


def test_nothing_ended_is_nothing_shown() -> None:
    assert Timeline().moments() == []


def test_all_that_is_told_of_a_moment_adds_up() -> None:
    timeline = Timeline()
    timeline.add([Moment(0, 1, 2, 3, 4, 5, 0.5), Moment(900, 10, 20, 30, 40, 50, 0.25)])

    assert timeline.moments() == [Moment(0, 11, 22, 33, 44, 55, 0.75)]


@given(st.lists(st.integers(0, 3 * YEAR_MS), min_size=1, max_size=300))
def test_few_adjoining_spans_hold_everything(times: list[int]) -> None:
    timeline = Timeline()
    for time in times:
        timeline.add([Moment(time // timeline.step_ms * timeline.step_ms, completed=1)])

    moments = timeline.moments()

    assert len(moments) <= MOST_SHOWN
    assert sum(one.completed for one in moments) == len(times)
    assert {b.since - a.since for a, b in itertools.pairwise(moments)} <= {timeline.step_ms}
    assert moments[0].completed
    assert moments[-1].completed


def test_endings_of_a_whole_day_second_by_second_are_kept_in_few_spans() -> None:
    timeline = Timeline()
    for second in range(86_400):
        timeline.add([Moment(second * 1_000 // timeline.step_ms * timeline.step_ms, completed=1)])

    assert timeline.step_ms * MOST_KEPT >= 86_400_000
    assert sum(one.completed for one in timeline.moments()) == 86_400
