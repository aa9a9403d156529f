"""Counting what agrees, and knowing as early as can be how it ends."""

from __future__ import annotations

from typing import Generic, TypeVar

Voter = TypeVar("Voter")


class Votes(Generic[Voter]):
    """The votes of so many voters, of whom some must agree.

    Args:
        voters: how many there are.
        agree: how many of them must vote the same.

    Attributes:
        winner: the first of those who agree, once enough do.
        missing: how many have not voted, and may still.
    """

    def __init__(self, voters: int, agree: int) -> None:
        self._agree = agree
        self._counts: list[tuple[object, list[Voter]]] = []
        self.missing = voters
        self.winner: Voter | None = None

    @property
    def fall(self) -> list[int]:
        """How many votes each of the answers has, the most first."""
        return sorted((len(voters) for _, voters in self._counts), reverse=True)

    @property
    def is_lost(self) -> bool:
        """Whether enough of them cannot agree any more, whatever is missing."""
        return self.winner is None and max(self.fall, default=0) + self.missing < self._agree

    def cast(self, voter: Voter, vote: object) -> None:
        """Count a vote; votes that are `==` agree. Raises what comparing them raises."""
        agreeing = next((voters for known, voters in self._counts if known == vote), None)
        if agreeing is None:
            agreeing = []
            self._counts.append((vote, agreeing))
        agreeing.append(voter)
        self.missing -= 1
        if len(agreeing) == self._agree and self.winner is None:
            self.winner = agreeing[0]

    def abstain(self) -> None:
        """Count a voter who will not vote."""
        self.missing -= 1
