"""The budget: what is spent and set aside stays within it, whatever happens in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from raypool.capacity.budget import NOTHING, PICO, BudgetBook, Cost
from raypool.config import Budget

CENT = PICO // 100
COSTS = st.builds(Cost, st.integers(0, 50 * CENT), st.integers(0, 500))


def cents(count: int, tokens: int = 0) -> Cost:
    return Cost(count * CENT, tokens)


def told_limits(book: BudgetBook) -> list[str]:
    """Where the book will say which limit is spent."""
    told: list[str] = []
    book.on_spent = told.append
    return told


def test_without_a_budget_everything_fits() -> None:
    book = BudgetBook(None)

    assert book.reserve(cents(10**9, 10**9))
    assert (book.is_limiting, book.why, book.status()) == (False, None, None)


def test_turn_that_does_not_fit_waits_for_those_under_way() -> None:
    book = BudgetBook(Budget(usd=0.10))
    assert book.reserve(cents(6))

    assert not book.reserve(cents(6))

    assert book.why is None
    book.settle(cents(6), cents(3))
    assert book.reserve(cents(6))


def test_budget_is_spent_when_not_even_one_turn_fits_alone() -> None:
    book = BudgetBook(Budget(usd=0.10))
    told = told_limits(book)
    assert book.reserve(cents(6))
    book.settle(cents(6), cents(5))

    assert not book.reserve(cents(6))

    assert told == ["usd"]
    assert book.why == (
        "the budget is spent: $0.05 of $0.1, and the next turn may cost $0.06; "
        "pool.set_budget(Budget(usd=…)) raises it"
    )


def test_budget_of_tokens_says_so_in_tokens() -> None:
    book = BudgetBook(Budget(tokens=1_000))
    told = told_limits(book)

    assert not book.reserve(cents(0, 1_500))

    assert told == ["tokens"]
    assert book.why is not None
    assert "0 of 1,000 tokens, and the next turn may take 1,500" in book.why


def test_smaller_turn_that_fits_ends_the_spent_budget_which_is_told_once() -> None:
    book = BudgetBook(Budget(usd=0.10))
    told = told_limits(book)
    assert not book.reserve(cents(20))

    assert book.reserve(cents(10))

    assert book.why is None
    book.settle(cents(10), NOTHING)
    assert not book.reserve(cents(20))
    assert told == ["usd"]


def test_raised_budget_goes_on_and_can_be_spent_again() -> None:
    book = BudgetBook(Budget(usd=0.10))
    told = told_limits(book)
    assert not book.reserve(cents(20))

    book.set(Budget(usd=0.30))

    assert book.why is None
    assert book.reserve(cents(20))
    book.settle(cents(20), cents(20))
    assert not book.reserve(cents(20))
    assert told == ["usd", "usd"]


def test_budget_that_is_taken_away_limits_nothing() -> None:
    book = BudgetBook(Budget(usd=0.0))
    assert not book.reserve(cents(1))

    book.set(None)

    assert book.reserve(cents(100))


def test_lowered_budget_lets_what_runs_finish_and_nothing_more() -> None:
    book = BudgetBook(Budget(usd=1.0))
    assert book.reserve(cents(50))

    book.set(Budget(usd=0.10))

    assert not book.reserve(cents(1))
    book.settle(cents(50), cents(40))
    assert not book.reserve(cents(1))
    assert book.why is not None


def test_what_earlier_runs_spent_counts() -> None:
    book = BudgetBook(Budget(usd=0.10, tokens=1_000), Cost.of(0.08, 900))

    assert not book.reserve(cents(3))
    assert not book.reserve(cents(0, 101))
    assert book.reserve(cents(2, 100))


def test_status_has_both_limits_with_what_is_spent_and_set_aside() -> None:
    book = BudgetBook(Budget(usd=1.0, tokens=1_000))
    assert book.reserve(cents(10, 100))
    assert book.reserve(cents(10, 100))
    book.settle(cents(10, 100), cents(4, 40))

    status = book.status()

    assert status is not None
    assert (status.spent_usd, status.reserved_usd) == (0.04, 0.10)
    assert (status.spent_tokens, status.reserved_tokens) == (40, 100)
    assert (status.usd, status.tokens, status.is_spent) == (1.0, 1_000, False)


def test_many_small_turns_add_up_exactly() -> None:
    book = BudgetBook(Budget(usd=1.0))
    turn = Cost.of(0.000_000_1, 1)

    for _ in range(1_000):
        assert book.reserve(turn)
        book.settle(turn, turn)

    status = book.status()
    assert status is not None
    assert (status.spent_usd, status.reserved_usd) == (0.000_1, 0.0)


@given(usd=st.floats(0, 1e6), tokens=st.integers(0, 10**12))
def test_cost_comes_back_as_it_was_given(usd: float, tokens: int) -> None:
    cost = Cost.of(usd, tokens)

    assert cost.pico_usd / PICO == pytest.approx(usd, rel=1e-12, abs=1e-12)
    assert cost.tokens == tokens


class AnyOrder(RuleBasedStateMachine):
    """Turns that begin, end and die in any order, and a budget that is changed meanwhile."""

    under_way = Bundle("under_way")

    def __init__(self) -> None:
        super().__init__()
        self.budget: Budget | None = Budget(usd=1.0, tokens=2_000)
        self.book = BudgetBook(self.budget)
        self.spent = NOTHING
        self.reserved: list[Cost] = []

    @rule(target=under_way, most=COSTS)
    def begin(self, most: Cost) -> Cost | None:
        fits = self._fits(_sum([self.spent, *self.reserved, most]))
        assert self.book.reserve(most) == fits
        if not fits:
            return None
        self.reserved.append(most)
        return most

    @rule(most=consumes(under_way), share=st.fractions(0, 1))
    def end(self, most: Cost | None, share: float) -> None:
        self._end(most, Cost(*(int(part * share) for part in most or NOTHING)))

    @rule(most=consumes(under_way))
    def fail_without_cost(self, most: Cost | None) -> None:
        self._end(most, NOTHING)

    @rule(most=consumes(under_way))
    def die_untold(self, most: Cost | None) -> None:
        self._end(most, most or NOTHING)

    @rule(usd=st.none() | st.floats(0, 3), tokens=st.none() | st.integers(0, 5_000))
    def change(self, usd: float | None, tokens: int | None) -> None:
        self.budget = Budget(usd=usd, tokens=tokens)
        self.book.set(self.budget)

    @invariant()
    def counts_what_was_spent_and_nothing_leaks(self) -> None:
        status = self.book.status()
        assert status is not None
        assert status.spent_usd == self.spent.pico_usd / PICO
        assert status.spent_tokens == self.spent.tokens
        assert status.reserved_usd == _sum(self.reserved).pico_usd / PICO
        assert status.reserved_tokens == _sum(self.reserved).tokens

    @invariant()
    def is_spent_only_while_nothing_is_under_way(self) -> None:
        assert self.book.why is None or not self.reserved

    def _end(self, most: Cost | None, spent: Cost) -> None:
        if most is None:
            return
        self.reserved.remove(most)
        self.spent = _sum([self.spent, spent])
        self.book.settle(most, spent)

    def _fits(self, after: Cost) -> bool:
        assert self.budget is not None
        usd, tokens = self.budget.usd, self.budget.tokens
        return (usd is None or after.pico_usd <= round(usd * PICO)) and (
            tokens is None or after.tokens <= tokens
        )


def _sum(costs: list[Cost]) -> Cost:
    return Cost(*map(sum, zip(NOTHING, *costs, strict=True)))


TestAnyOrder = AnyOrder.TestCase
