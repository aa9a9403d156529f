"""Outcomes on their way: the first at once, then few batches, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.messages import Outcome
from raypool.outbox import LINGER_SECONDS, TEXT_LINGER_SECONDS, Envelope, Outbox


class Loop:
    """An event loop whose time stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> None:
        self._due.append((self.now + delay, callback))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self._due if at <= self.now]
        self._due = [(at, callback) for at, callback in self._due if at > self.now]
        for callback in due:
            callback()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def outbox(loop: Loop) -> Outbox:
    return Outbox(loop)


def opened(outbox: Outbox, count: int, *, streams: bool = True) -> Envelope:
    envelope = Envelope(count, streams=streams)
    outbox.open(envelope)
    return envelope


def put(outbox: Outbox, envelope: Envelope, *numbers: int) -> None:
    for number in numbers:
        outbox.put(envelope, Outcome(number))


def delivered(envelope: Envelope) -> list[list[int]]:
    """The numbers in each batch so far; ends the envelope."""
    envelope.end()
    return [[outcome.number for outcome in batch.outcomes] for batch in envelope.batches()]


def test_first_outcome_goes_at_once_and_the_next_wait_for_one_another(
    outbox: Outbox, loop: Loop
) -> None:
    envelope = opened(outbox, 9)

    put(outbox, envelope, 1, 2, 3)
    loop.advance(LINGER_SECONDS)
    put(outbox, envelope, 4)

    assert delivered(envelope) == [[1], [2, 3]]


def test_batches_are_at_least_so_far_apart(outbox: Outbox, loop: Loop) -> None:
    envelope = opened(outbox, 9)

    put(outbox, envelope, 1)
    loop.advance(LINGER_SECONDS / 2)
    put(outbox, envelope, 2)
    loop.advance(LINGER_SECONDS / 2)
    put(outbox, envelope, 3, 4)
    loop.advance(LINGER_SECONDS)

    assert delivered(envelope) == [[1], [2], [3, 4]]


def test_outcome_after_a_quiet_time_goes_at_once(outbox: Outbox, loop: Loop) -> None:
    envelope = opened(outbox, 9)

    put(outbox, envelope, 1)
    loop.advance(1.0)
    put(outbox, envelope, 2)

    assert delivered(envelope) == [[1], [2]]


def test_last_outcome_of_an_envelope_goes_at_once_and_ends_it(outbox: Outbox) -> None:
    envelope = opened(outbox, 3)

    put(outbox, envelope, 1, 2, 3)

    assert [[outcome.number for outcome in batch.outcomes] for batch in envelope.batches()] == [
        [1],
        [2, 3],
    ]


def test_envelope_that_does_not_stream_carries_its_own_outcome_and_nothing_else(
    outbox: Outbox, loop: Loop
) -> None:
    single, many = opened(outbox, 1, streams=False), opened(outbox, 3)

    put(outbox, many, 1, 2)
    put(outbox, single, 3)
    put(outbox, many, 4)

    assert [[outcome.number for outcome in batch.outcomes] for batch in single.batches()] == [[3]]
    assert delivered(many) == [[1], [2, 4]]


def test_outcome_travels_with_whichever_envelope_is_open(outbox: Outbox, loop: Loop) -> None:
    older, younger = opened(outbox, 5), opened(outbox, 2)

    put(outbox, younger, 1, 2)
    put(outbox, older, 3)
    loop.advance(LINGER_SECONDS)

    assert delivered(older) == [[1], [3]]
    assert delivered(younger) == [[2]]


def test_closing_sends_what_there_is_and_ends_every_envelope(outbox: Outbox) -> None:
    first, second = opened(outbox, 5), opened(outbox, 5)

    put(outbox, first, 1, 2)
    put(outbox, second, 3)
    outbox.close()

    assert [[outcome.number for outcome in batch.outcomes] for batch in first.batches()] == [
        [1],
        [2, 3],
    ]
    assert list(second.batches()) == []


def pieces(envelope: Envelope) -> list[tuple[list[tuple[int, str]], list[int]]]:
    """The text and the numbers of outcomes in each batch so far; ends the envelope."""
    envelope.end()
    return [
        (
            [(piece.number, piece.text) for piece in batch.pieces],
            [outcome.number for outcome in batch.outcomes],
        )
        for batch in envelope.batches()
    ]


def test_text_lingers_and_is_joined_by_task(outbox: Outbox, loop: Loop) -> None:
    envelope = opened(outbox, 3)

    for number, text in [(1, "a"), (2, "x"), (1, "b")]:
        outbox.put_text(number, text)
        loop.advance(TEXT_LINGER_SECONDS / 4)
    loop.advance(TEXT_LINGER_SECONDS)
    outbox.put_text(1, "c")
    loop.advance(TEXT_LINGER_SECONDS)

    assert pieces(envelope) == [([(1, "ab"), (2, "x")], []), ([(1, "c")], [])]


def test_outcome_takes_along_the_text_before_it(outbox: Outbox, loop: Loop) -> None:
    envelope = opened(outbox, 2)

    outbox.put_text(1, "forty-two")
    put(outbox, envelope, 1)
    loop.advance(TEXT_LINGER_SECONDS)

    assert pieces(envelope) == [([(1, "forty-two")], [1])]


def test_text_of_one_task_does_not_leave_in_the_answer_of_another(
    outbox: Outbox, loop: Loop
) -> None:
    streaming, single = opened(outbox, 2), opened(outbox, 1, streams=False)

    outbox.put_text(1, "so f")
    put(outbox, single, 2)
    put(outbox, streaming, 1)

    assert pieces(single) == [([], [2])]
    assert pieces(streaming) == [([(1, "so f")], [1])]


def test_outcomes_of_what_is_given_up_go_with_those_that_wait(outbox: Outbox) -> None:
    streaming, single = opened(outbox, 9), opened(outbox, 1, streams=False)
    put(outbox, streaming, 1, 2)

    outbox.give_up(single, [Outcome(3)])

    batches = list(single.batches())
    assert [outcome.number for batch in batches for outcome in batch.outcomes] == [2, 3]


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    pauses=st.lists(st.sampled_from([0.0, 0.4, 1.0, 2.0]), min_size=20, max_size=20),
)
def test_every_outcome_is_delivered_once_before_the_last_envelope_ends(
    counts: list[int], order: Random, pauses: list[float]
) -> None:
    loop = Loop()
    outbox = Outbox(loop)
    envelopes = [opened(outbox, count) for count in counts]
    owners = [envelope for envelope in envelopes for _ in range(envelope.left)]
    order.shuffle(owners)

    for number, (envelope, pause) in enumerate(zip(owners, pauses, strict=False)):
        put(outbox, envelope, number)
        loop.advance(pause * LINGER_SECONDS)

    received = [
        outcome.number
        for envelope in envelopes
        for batch in envelope.batches()
        for outcome in batch.outcomes
    ]
    assert sorted(received) == list(range(sum(counts)))


def test_text_that_is_no_unicode_holds_up_nothing(outbox: Outbox, loop: Loop) -> None:
    envelope = opened(outbox, 1)

    outbox.put_text(1, "caf\udce9")
    put(outbox, envelope, 1)

    [batch] = list(envelope.batches())
    assert batch.pieces[0].text == "caf\ufffd"


def test_what_was_not_sent_of_abandoned_envelopes_is_dropped(outbox: Outbox, loop: Loop) -> None:
    orphaned = opened(outbox, 3)
    put(outbox, orphaned, 1, 2)

    outbox.abandon()
    put(outbox, orphaned, 3)
    loop.advance(LINGER_SECONDS)

    assert delivered(orphaned) == [[1]]
