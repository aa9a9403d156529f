"""The figures of ledgers that are known."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from raypool.clock import FakeClock
from raypool.errors import LedgerError
from raypool.report import gather, gathering, lines
from raypool.report.figures import Content, ErrorCount, Figures, Moment
from raypool.report.latency import Latency
from raypool.setbacks import Setback
from raypool.sqlite_ledger import SqliteLedger
from raypool.usage import Usage
from tests.report.ledgers import START, asked, ended, failed, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def test_ledger_without_tasks_has_no_figures(path: Path) -> None:
    fill(path, [])

    assert gather(path, clock=FakeClock(start=5.0)) == Figures("crew", "run.db", 5_000)


def test_what_ended_is_told_by_moments(path: Path) -> None:
    fill(
        path,
        map(asked, range(1, 6)),
        [
            ended(1, usage=Usage(1, 2, 3, 4)),
            failed(2, completed_at=START + 1_500),
            ended(4, "cancelled", usage=Usage(), cost_usd=None),
        ],
    )

    figures = gather(path)

    assert figures.step_ms == 1_000
    assert figures.moments == (
        Moment(START + 1_000, 1, 1, 0, 18, 7, 0.5),
        Moment(START + 2_000),
        Moment(START + 3_000),
        Moment(START + 4_000, cancelled=1),
    )
    assert (figures.totals.completed, figures.totals.failed) == (1, 1)
    assert (figures.totals.cancelled, figures.totals.unfinished) == (1, 2)


def test_tokens_cost_and_latency_are_told_by_role_and_model(path: Path) -> None:
    fill(
        path,
        map(asked, range(1, 6)),
        [
            ended(1, duration_ms=10.0),
            ended(2, duration_ms=20.0, usage=Usage(1, 2, 3, 4)),
            ended(3, worker="crew-2", model="large", cost_usd=2.0),
            ended(4, worker="crew-2", model="large", cost_usd=None),
            failed(5, worker=None, usage=Usage(), cost_usd=None),
        ],
    )

    large, small, nobody = gather(path).groups

    assert (large.role, large.model, large.completed) == ("historian", "large", 2)
    assert (large.cost_usd, large.unpriced) == (2.0, 1)
    assert (small.role, small.model, small.cost_usd) == ("chemist", "small", 0.5)
    assert small.usage == Usage(11, 7, 3, 4)
    assert small.latency == Latency(2, 10.0, 20.0, 20.0, 20.0, 20.0)
    assert (nobody.role, nobody.model, nobody.failed) == (None, None, 1)
    assert nobody.latency == Latency()


def test_latency_is_of_what_completed_and_to_three_digits(path: Path) -> None:
    taken = [0.123456, 12.3456, 123.456, 1_234.56, 12_345.6, 123_456.7]
    fill(
        path,
        map(asked, range(1, 9)),
        [
            *(ended(n, duration_ms=took) for n, took in enumerate(taken, 1)),
            ended(7, duration_ms=None),
            failed(8, duration_ms=900_000.0),
        ],
    )

    figures = gather(path)

    assert figures.latency == Latency(6, 123.0, 123_000.0, 123_000.0, 123_000.0, 123_000.0)
    assert sum(bar.count for bar in figures.bars) == 6
    assert figures.slowest.count == 7


def test_figures_are_the_same_however_the_ledger_is_cut_in_pieces(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endings = [
        failed(n, f"Error{n % 3}") if n % 5 == 0 else ended(n, duration_ms=float(n * 37 % 101))
        for n in range(1, 101)
    ]
    fill(path, map(asked, range(1, 101)), endings)
    clock = FakeClock()
    whole = gather(path, clock=clock)
    told: list[tuple[int, int]] = []

    monkeypatch.setattr(gathering, "PIECE", 7)
    pieces = gather(path, clock=clock, on_progress=lambda done, total: told.append((done, total)))

    assert pieces == whole
    assert told[0] == (7, 100)
    assert told[-1] == (100, 100)


def test_slowest_and_failed_are_the_first_of_all_there_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PIECE", 3)
    monkeypatch.setattr(gathering, "MOST_LINES", 2)
    fill(
        path,
        map(asked, range(1, 9)),
        [
            *(ended(n, duration_ms=float(took)) for n, took in enumerate([5, 40, 9, 50, 1], 1)),
            *(failed(n, duration_ms=None) for n in (6, 7, 8)),
        ],
    )

    figures = gather(path)

    assert [line.id for line in figures.slowest.lines] == ["task-4", "task-2"]
    assert figures.slowest.count == 5
    assert [line.id for line in figures.failed.lines] == ["task-8", "task-7"]
    assert figures.failed.count == 3


def test_line_tells_all_of_a_task_but_its_texts(path: Path) -> None:
    fill(path, [asked(1, "a secret")], [failed(1, "OSError", "about a secret", attempts=4)])

    (line,) = gather(path).failed.lines

    assert (line.id, line.state, line.role, line.worker) == (
        "task-1",
        "failed",
        "chemist",
        "crew-1",
    )
    assert (line.attempts, line.completed_at, line.duration_ms) == (4, START + 1_000, 100.0)
    assert (line.usage, line.cost_usd, line.error) == (Usage(10, 5), 0.25, "OSError")
    assert line.content is None
    assert "secret" not in repr(gather(path))


def test_content_is_shown_when_asked_for_and_shortened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_CHARACTERS", 10)
    image = {"type": "image", "source": {}}
    said = [{"role": "user", "content": [image, {"type": "text", "text": "look"}]}]
    fill(
        path,
        [asked(1, "short"), asked(2, said), asked(3, [{"role": "user", "content": "list"}])],
        [ended(1, text="a" * 11), failed(2, message="broken"), failed(3)],
    )

    figures = gather(path, content=True)

    assert figures.has_content
    assert [line.content for line in figures.slowest.lines] == [
        Content("short", "aaaaaaaaaa … (11 characters)", ""),
        Content("[image]\nlo … (12 characters)", "", "broken"),
        Content("list", "", ""),
    ]


def test_errors_are_told_by_kind_and_type_the_most_frequent_first(path: Path) -> None:
    fill(
        path,
        map(asked, range(1, 4)),
        [failed(1, "OSError"), failed(2, "rate_limit_error"), failed(3, "OSError")],
    )

    assert gather(path).errors == (
        ErrorCount("BackendError", "OSError", 2),
        ErrorCount("BackendError", "rate_limit_error", 1),
    )


def test_setbacks_are_told_by_spans_no_shorter_than_they_were_counted_by(path: Path) -> None:
    setbacks = [
        Setback(START, "refused", "rate_limit_error", 3),
        Setback(START + 10_000, "retried", "OSError", 2),
    ]
    fill(path, [asked(1)], [ended(1, attempts=3)], setbacks)

    figures = gather(path)

    assert figures.setbacks == tuple(setbacks)
    assert (figures.step_ms, figures.setback_step_ms) == (1_000, 10_000)
    assert (figures.moments[0].since, figures.moments[-1].since) == (START, START + 10_000)


def test_setbacks_of_a_month_are_few_spans_even_when_nothing_ended(path: Path) -> None:
    month = 30 * 86_400_000
    fill(path, [asked(1)], (), [Setback(START + at, "refused", "e", 1) for at in (0, month)])

    figures = gather(path)

    assert len(figures.moments) <= 180
    assert figures.setback_step_ms == figures.step_ms == 21_600_000
    assert sum(one.count for one in figures.setbacks) == 2


def test_tasks_asked_anew_are_in_the_totals_alone(path: Path) -> None:
    fill(path, map(asked, range(1, 4)), [ended(1), failed(2), failed(3)])
    with closing(SqliteLedger(path)) as ledger:
        ledger.requeue_failed()
        ledger.record([ended(2)])

    figures = gather(path)

    assert figures.failed.count == 0
    assert figures.errors == ()
    assert figures.totals.cost_usd == 1.0
    assert sum(group.cost_usd for group in figures.groups) == 0.5


def test_ledger_that_a_pool_has_is_read_as_it_is(path: Path) -> None:
    fill(path, map(asked, range(1, 4)), [ended(1)])

    with closing(SqliteLedger(path)) as ledger:
        ledger.record([ended(2)])
        assert gather(path).totals.completed == 2
        ledger.record([ended(3)])
        assert gather(path).totals.completed == 3


def test_what_is_no_ledger_is_named(path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        gather(path)
    path.write_text("number,text\n" * 1_000)
    with pytest.raises(LedgerError, match="not a raypool ledger"):
        gather(path)
