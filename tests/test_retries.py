"""Retries: again after how long, or no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.config import RetryPolicy
from raypool.events import Verdict
from raypool.messages import Failure
from raypool.retries import REFUSED_LIMIT_SECONDS, Retries, Tries

POLICY = RetryPolicy(max_attempts=4, initial_seconds=0.5, max_seconds=8.0)


def failure(verdict: Verdict, retry_after: float | None = None) -> Failure:
    return Failure("BackendError", verdict, "Error", "no", retry_after=retry_after)


def delays(verdict: Verdict, count: int, *, policy: RetryPolicy = POLICY) -> list[float | None]:
    """What one task is told as it fails `count` times."""
    retries, tries = Retries(policy), Tries()
    return [retries.delay(tries, failure(verdict)) for _ in range(count)]


def longest(verdict: Verdict, count: int) -> list[float]:
    """Of each wait, the longest among many tasks."""
    told = zip(*(delays(verdict, count) for _ in range(500)), strict=True)
    return [max(delay for delay in column if delay is not None) for column in told]


def test_transient_failure_is_tried_again_until_the_attempts_are_used_up() -> None:
    told = delays("transient", 4)

    assert [delay is None for delay in told] == [False, False, False, True]


def test_single_attempt_is_never_tried_again() -> None:
    assert delays("transient", 1, policy=RetryPolicy(max_attempts=1)) == [None]


@pytest.mark.parametrize("verdict", ["invalid", "fatal"])
def test_failure_that_no_attempt_can_mend_is_final(verdict: Verdict) -> None:
    assert delays(verdict, 1) == [None]


def test_waits_are_drawn_from_a_bound_that_doubles() -> None:
    assert longest("transient", 3) == pytest.approx([0.5, 1.0, 2.0], rel=0.05)


def test_bound_stops_growing_at_the_longest_wait() -> None:
    assert longest("refused", 8)[4:] == pytest.approx([8.0] * 4, rel=0.05)


def test_waits_differ_so_that_tasks_do_not_come_back_together() -> None:
    waits = {delays("transient", 1)[0] for _ in range(100)}

    assert len(waits) == 100


@pytest.mark.parametrize("verdict", ["transient", "refused"])
def test_wait_that_the_provider_asks_for_is_never_cut_short(verdict: Verdict) -> None:
    retries = Retries(POLICY)

    delay = retries.delay(Tries(), failure(verdict, retry_after=120.0))

    assert delay == 120.0


def test_own_wait_holds_when_the_provider_asks_for_less() -> None:
    retries = Retries(POLICY)

    told = [retries.delay(Tries(attempts=2), failure("transient", 0.0)) for _ in range(200)]

    assert max(delay or 0.0 for delay in told) > 1.0


def test_refusal_is_no_attempt() -> None:
    retries, tries = Retries(POLICY), Tries()

    for _ in range(20):
        assert retries.delay(tries, failure("refused")) is not None

    assert tries.attempts == 0


def test_task_refused_for_fifteen_minutes_in_all_is_given_up() -> None:
    retries, tries = Retries(POLICY), Tries()

    told = [retries.delay(tries, failure("refused", retry_after=60.0)) for _ in range(16)]

    assert told == [60.0] * 15 + [None]
    assert REFUSED_LIMIT_SECONDS == 900


def test_refusals_are_waited_for_while_less_than_fifteen_minutes_have_passed() -> None:
    assert Tries(refused_seconds=899.0).may_wait
    assert not Tries(refused_seconds=900.0).may_wait


def test_provider_that_cannot_be_reached_is_no_attempt_and_asked_again_soon() -> None:
    retries, tries = Retries(POLICY), Tries()

    told = [retries.delay(tries, failure("unreachable"), now) for now in (7.0, 20.0, 60.0)]

    assert all(delay is not None and delay <= 0.5 for delay in told)
    assert (tries.attempts, tries.refusals, tries.unreached_since) == (0, 0, 7.0)


def test_last_try_at_a_provider_that_cannot_be_reached_is_final() -> None:
    tries = Tries(unreached_since=1.0, is_last_call=True)

    assert Retries(POLICY).delay(tries, failure("unreachable")) is None


@pytest.mark.parametrize("verdict", ["transient", "refused"])
def test_task_that_has_reached_somebody_waits_anew_for_the_next_outage(verdict: Verdict) -> None:
    tries = Tries(unreached_since=1.0, is_last_call=True)

    assert Retries(POLICY).delay(tries, failure(verdict)) is not None

    assert tries.unreached_since is None
    assert tries.may_miss


def test_each_turn_of_a_chain_has_its_attempts() -> None:
    retries, tries = Retries(POLICY), Tries()

    told = [
        retries.delay(tries, Failure("BackendError", "transient", "Error", "no", turn=turn))
        for turn in (1, 1, 1, 2, 2, 2, 2)
    ]

    assert [delay is None for delay in told] == [False] * 6 + [True]
    assert (tries.turn, tries.attempts, tries.earlier, tries.in_all) == (2, 4, 3, 7)


def test_turn_before_one_that_has_failed_counts_with_that_one() -> None:
    retries, tries = Retries(POLICY), Tries()

    told = [
        retries.delay(tries, Failure("BackendError", "transient", "Error", "no", turn=turn))
        for turn in (3, 1, 3, 1)
    ]

    assert [delay is None for delay in told] == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("tries", "was_tried"),
    [(Tries(), False), (Tries(refusals=1), True), (Tries(earlier=1), True)],
)
def test_worker_may_keep_something_of_a_task_that_was_tried(tries: Tries, was_tried: bool) -> None:
    assert tries.was_tried == was_tried


def test_task_survives_all_but_the_last_of_its_workers_deaths() -> None:
    retries, tries = Retries(RetryPolicy(max_deaths=3)), Tries()

    assert [retries.survives(tries, was_running=True) for _ in range(3)] == [True, True, False]


def test_task_that_was_not_running_survives_any_number_of_deaths() -> None:
    retries, tries = Retries(RetryPolicy(max_deaths=1)), Tries()

    assert all(retries.survives(tries, was_running=False) for _ in range(9))
    assert tries.deaths == 9


def test_company_of_a_task_grows_smaller_with_the_deaths_behind_it() -> None:
    retries = Retries(RetryPolicy(max_deaths=3))

    told = [retries.company(Tries(deaths=deaths), 8) for deaths in range(4)]

    assert told == [float("inf"), 8, 1, 1]


def test_attempt_starts_the_bound_of_refusals_anew_but_not_their_sum() -> None:
    retries, tries = Retries(POLICY), Tries(refusals=9, refused_seconds=300.0)

    retries.delay(tries, failure("transient"))

    assert (tries.refusals, tries.refused_seconds) == (0, 300.0)


@given(
    verdicts=st.lists(st.sampled_from(["transient", "refused"]), max_size=60),
    attempts=st.integers(1, 10),
    initial=st.floats(0.001, 100),
    most=st.floats(0.001, 100),
)
def test_any_history_is_tried_at_most_so_often_and_waits_at_most_so_long(
    verdicts: list[Verdict], attempts: int, initial: float, most: float
) -> None:
    policy = RetryPolicy(max_attempts=attempts, initial_seconds=initial, max_seconds=most)
    retries, tries = Retries(policy), Tries()

    for verdict in verdicts:
        delay = retries.delay(tries, failure(verdict))
        if delay is None:
            break
        assert 0.0 <= delay <= most

    assert tries.attempts <= attempts
    assert tries.refused_seconds <= REFUSED_LIMIT_SECONDS + most
