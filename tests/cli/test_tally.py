"""What a run has done so far: counted, drawn in one line, and summed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypool.cli.batch_form import RunTerms
from raypool.cli.figures import count, dollars, duration, short
from raypool.cli.inputs import Input
from raypool.cli.picture import Picture, Total, expected_rows
from raypool.cli.question import OwnPrompt
from raypool.cli.rows import RowReader
from raypool.cli.summary import summary
from raypool.cli.tally import Tally
from raypool.clock import FakeClock
from raypool.errors import Cause
from raypool.response import TaskResult
from raypool.usage import Usage


def result(**changes: Any) -> TaskResult:
    fields: dict[str, Any] = {
        "id": "a",
        "worker": "w-1",
        "role": None,
        "prompt": "p",
        "state": "completed",
        "usage": Usage(10, 20),
        "stop_reason": "end_turn",
        "cost_usd": 0.5,
    }
    return TaskResult(**(fields | changes))


def failure(message: str, kind: str = "APIError") -> TaskResult:
    return result(state="failed", usage=Usage(), cost_usd=None, error=Cause(kind, message))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tally(clock: FakeClock) -> Tally:
    return Tally(clock)


class TestFigures:
    @pytest.mark.parametrize(
        ("number", "said"),
        [(0, "0"), (999, "999"), (1_000, "1k"), (57_912, "57.9k"), (4_560_000, "4.56M")],
    )
    def test_short_has_three_digits(self, number: int, said: str) -> None:
        assert short(number) == said

    @pytest.mark.parametrize(
        ("amount", "said"),
        [
            (0, "$0.00"),
            (0.000001, "under $0.0001"),
            (0.00421, "$0.0042"),
            (0.314, "$0.31"),
            (1234.5, "$1,234.50"),
        ],
    )
    def test_small_amounts_keep_two_digits_that_count(self, amount: float, said: str) -> None:
        assert dollars(amount) == said

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [
            (0.44, "0.4 s"),
            (42.4, "42 s"),
            (59.6, "1 min 0 s"),
            (200, "3 min 20 s"),
            (18_450, "5 h 7 min"),
        ],
    )
    def test_duration_has_two_units_at_most(self, seconds: float, said: str) -> None:
        assert duration(seconds) == said

    def test_one_thing_has_no_plural(self) -> None:
        assert (count(1, "row"), count(1_240, "row")) == ("1 row", "1,240 rows")


class TestPicture:
    def test_line_has_rows_failures_pace_tokens_cost_and_time_left(
        self, tally: Tally, clock: FakeClock
    ) -> None:
        picture = Picture(tally, lambda: Total(100))
        tally.begin_pace()
        for _ in range(19):
            tally.add(result())
        tally.add(failure("no"))
        clock.advance(10)

        assert str(picture) == ("20/100 rows, 1 failed · 2 rows/s · 570 tokens · $9.50 · 40 s left")

    def test_line_says_the_phase_and_leaves_out_what_nobody_knows(self, tally: Tally) -> None:
        picture = Picture(tally, lambda: None)
        picture.phase = "starting 4 workers"

        assert str(picture) == "starting 4 workers · 0 rows"

    def test_unknown_prices_are_never_counted_as_nothing(
        self, tally: Tally, clock: FakeClock
    ) -> None:
        picture = Picture(tally, lambda: None)
        tally.begin_pace()
        tally.add(result(cost_usd=None))
        clock.advance(10)

        assert "$" not in str(picture)
        tally.add(result())
        assert "$0.50 + unknown prices" in str(picture)

    def test_pace_is_that_of_the_last_half_minute(self, tally: Tally, clock: FakeClock) -> None:
        tally.begin_pace()
        for second in range(120):
            for _ in range(10 if second < 60 else 2):
                tally.add(result())
            clock.advance(1)
            tally.rows_per_second()

        assert tally.rows_per_second() == pytest.approx(2.0)

    def test_rows_of_an_earlier_run_are_no_pace(self, tally: Tally, clock: FakeClock) -> None:
        tally.begin_pace()
        tally.add_earlier(failed=False)
        clock.advance(10)

        assert (tally.done, tally.rows_per_second()) == (1, 0.0)

    def test_rows_are_estimated_until_the_input_has_been_read(self, tmp_path: Path) -> None:
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"prompt": "x"}\n' * 5_000)
        reader = RowReader([Input(str(path), "jsonl")], OwnPrompt(RunTerms()))
        total = expected_rows(reader)
        rows = iter(reader)

        assert total() is None
        for _ in range(1_000):
            next(rows)
        assert str(total()) == "~5,000"
        list(rows)
        assert str(total()) == "5,000"


class TestSummary:
    def test_everything_is_counted_in_every_run(self, tally: Tally, clock: FakeClock) -> None:
        tally.add(result())
        tally.add(result(stop_reason="max_tokens"))
        tally.add(failure("no\nmore"))
        tally.add_bad_row("in.jsonl, line 7: the prompt is empty")
        tally.add_earlier(failed=False)
        tally.add_earlier(failed=True)
        clock.advance(12)

        assert summary(tally, "out.jsonl") == [
            "raypool: 3 answered, 3 failed (2 of them by an earlier run), in 12 s",
            "  1 × APIError, first id 'a': no …",
            "  1 × BadRow, first in.jsonl, line 7: the prompt is empty",
            "  1 answer cut short by max_tokens; --max-tokens N allows longer ones "
            "(with another output)",
            "  tokens: 20 in, 40 out; cost: $1.00",
            "  --retry-failed asks the failed rows again",
            "  results: out.jsonl",
        ]

    def test_price_that_is_not_known_is_said(self, tally: Tally) -> None:
        tally.add(result(cost_usd=None))
        assert "cost: unknown (no price for this model)" in summary(tally, "x")[1]

        tally.add(result())
        assert "cost: $0.50 and 1 answer of unknown price" in summary(tally, "x")[1]

    def test_turns_that_a_crash_cut_short_are_told(self) -> None:
        tally = Tally()
        assert not any("billed" in line for line in summary(tally, "x"))

        tally.maybe_billed = 3

        assert (
            "  3 turns that a crash cut short may have been billed beside that; asked again"
        ) in summary(tally, "x")

    def test_bad_rows_alone_are_not_to_be_retried_but_mended(self, tally: Tally) -> None:
        tally.add_bad_row("in.jsonl, line 7: the prompt is empty")

        assert not any("--retry-failed" in line for line in summary(tally, "x"))

    def test_cached_input_is_input(self, tally: Tally) -> None:
        tally.add(result(usage=Usage(1, 2, 3, 4)))

        assert "tokens: 8 in, 2 out" in summary(tally, "x")[1]
