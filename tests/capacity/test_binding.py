"""What is limited shows in the size of what is refused."""

from __future__ import annotations

import random

from raypool.capacity.binding import Binding
from raypool.capacity.buckets import Rates

USUAL = 400.0


def binding_after(sizes: list[float]) -> Binding:
    """Bursts of one refusal each, of these sizes, among turns of the usual size."""
    binding = Binding()
    for size in sizes:
        binding.accept(100, 100 * USUAL)
        binding.refuse(1, size)
    return binding


def test_requests_are_limited_until_anything_shows() -> None:
    binding = Binding()

    assert binding.rates(5.0) == Rates(requests=5.0)
    assert binding.turns(3, 1000) == 3


def test_tokens_are_limited_when_large_turns_are_refused() -> None:
    binding = binding_after([2 * USUAL] * 3)

    assert binding.rates(5.0) == Rates(tokens=5.0 * USUAL)
    assert binding.turns(3, 2 * USUAL) == 2


def test_single_turn_of_twice_the_size_that_is_refused_shows_too_little() -> None:
    assert binding_after([2 * USUAL]).rates(5.0) == Rates(requests=5.0)


def test_requests_are_limited_again_when_turns_of_the_usual_size_are_refused() -> None:
    binding = binding_after([2 * USUAL] * 3 + [USUAL] * 10)

    assert binding.rates(5.0) == Rates(requests=5.0)


def test_the_change_of_what_is_limited_is_told_once() -> None:
    binding = Binding()
    binding.accept(100, 100 * USUAL)

    told = [binding.refuse(1, 2 * USUAL) for _ in range(5)]

    assert told.count(True) == 1


def test_refusals_of_unknown_size_show_nothing() -> None:
    assert binding_after([0.0] * 20).rates(5.0) == Rates(requests=5.0)


def test_turns_that_are_refused_by_chance_do_not_speak_for_tokens() -> None:
    chance = random.Random(1)

    binding = binding_after([USUAL * chance.lognormvariate(-0.125, 0.5) for _ in range(100)])

    assert binding.tokens_per_turn is None
