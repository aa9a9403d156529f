"""Counting votes: who wins, and how early it is known that nobody does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.votes import Votes


def counted(voters: int, agree: int, votes: str) -> Votes[int]:
    """Votes cast in that order by voters 0, 1, …; `-` is one who abstains."""
    count: Votes[int] = Votes(voters, agree)
    for voter, vote in enumerate(votes):
        if vote == "-":
            count.abstain()
        else:
            count.cast(voter, vote)
    return count


def test_winner_is_the_first_of_those_who_agree() -> None:
    count = counted(5, 3, "abbab")

    assert count.winner == 1
    assert count.fall == [3, 2]


def test_nobody_wins_before_enough_agree() -> None:
    count = counted(5, 3, "abab")

    assert count.winner is None
    assert not count.is_lost


@pytest.mark.parametrize(
    ("votes", "fall"), [("abcd", [1, 1, 1, 1]), ("aabbc", [2, 2, 1]), ("---", []), ("a-b-", [1, 1])]
)
def test_it_is_lost_as_soon_as_the_missing_votes_cannot_help(votes: str, fall: list[int]) -> None:
    before, after = counted(5, 3, votes[:-1]), counted(5, 3, votes)

    assert not before.is_lost
    assert after.is_lost
    assert after.fall == fall


def test_votes_need_not_be_hashable() -> None:
    count: Votes[str] = Votes(2, 2)

    count.cast("x", {"answer": [1]})
    count.cast("y", {"answer": [1]})

    assert count.winner == "x"


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ArithmeticError

    __hash__ = None  # type: ignore[assignment]


def test_vote_that_cannot_be_compared_is_not_counted() -> None:
    count = counted(3, 2, "a")

    with pytest.raises(ArithmeticError):
        count.cast(1, Incomparable())

    assert count.missing == 2
    assert count.fall == [1]


@given(st.lists(st.sampled_from("abc-"), max_size=9), st.integers(1, 9))
def test_what_is_decided_early_is_what_all_votes_come_to(votes: list[str], agree: int) -> None:
    voters = len(votes)
    most = max((votes.count(one) for one in set(votes) - {"-"}), default=0)

    seen = [counted(voters, agree, "".join(votes[:k])) for k in range(voters + 1)]

    assert (seen[-1].winner is not None) == (most >= agree)
    assert seen[-1].is_lost == (most < agree)
    for earlier, later in pairwise(seen):
        assert later.winner == earlier.winner or earlier.winner is None
        assert later.is_lost or not earlier.is_lost
