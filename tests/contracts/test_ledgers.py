"""What every ledger promises, whatever the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from msgspec import structs

from raypool import postgres_hold
from raypool.errors import LedgerError
from raypool.lane import Lane
from raypool.ledger import EndedTask, Extra, KnownTask, Ledger, Progress, SentTask, Totals
from raypool.postgres_connection import resolve
from raypool.postgres_ledger import PostgresLedger
from raypool.records import AcceptedTask, Conversation, Death, Ending, EndState, StoredCause
from raypool.sqlite_ledger import SqliteLedger
from raypool.usage import Usage
from tests.postgres_server import PostgresServer

Opener: TypeAlias = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", "postgres"])
def open_ledger(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Opener:
    if request.param == "sqlite":
        return lambda: SqliteLedger(tmp_path / "run.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    monkeypatch.setattr(postgres_hold, "LOCK_SECONDS", 0.1)
    url = server.new_url()
    return lambda: PostgresLedger(resolve(url).place.held_by_new_pool())


@pytest.fixture
def ledger(open_ledger: Opener) -> Iterator[Ledger]:
    ledger = open_ledger()
    yield ledger
    ledger.close()


def task(number: int, task_id: str | None = None, prompt: Any = "why?") -> AcceptedTask:
    return AcceptedTask(number, task_id or f"task-{number}", prompt)


def in_lane(number: int, role: str | None, tenant: str | None, priority: int) -> AcceptedTask:
    return AcceptedTask(number, f"task-{number}", "why?", role, tenant=tenant, priority=priority)


def ending(number: int, state: EndState = "completed", **fields: Any) -> Ending:
    return Ending(number, state, "pool-1", 1, 1_700_000_000_000, **fields)


def said(session: str, *texts: str, is_whole: bool = False) -> Conversation:
    return Conversation(session, messages(*texts), is_whole)


def messages(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def test_accepted_tasks_are_unfinished_in_the_order_of_their_numbers(ledger: Ledger) -> None:
    known = ledger.accept([task(2), task(1)])
    ledger.accept([task(3)])

    assert known == {}
    assert ledger.unfinished(0, 10) == [task(1), task(2), task(3)]


def test_task_that_ends_is_no_longer_unfinished(ledger: Ledger) -> None:
    ledger.accept([task(1), task(2)])

    ledger.record([ending(1)])

    assert ledger.unfinished(0, 10) == [task(2)]
    assert ledger.find("task-1") == KnownTask(task(1), ending(1))


def test_nothing_to_write_is_written(ledger: Ledger) -> None:
    assert ledger.write([], []) == {}
    assert ledger.totals() == Totals()


@pytest.mark.parametrize(
    "prompt",
    [
        "true",
        '[{"role": "user", "content": "x"}]',
        "null\0\N{LINE SEPARATOR}",
        [{"role": "user", "content": "why?"}],
        [{"role": "user", "content": [{"type": "text", "text": "\N{SNOWMAN}\0"}]}],
        "x" * 10_000_000,
    ],
    ids=["a JSON word", "JSON messages", "NUL", "messages", "blocks", "10 MB"],
)
def test_prompt_comes_back_as_it_was(ledger: Ledger, prompt: Any) -> None:
    ledger.accept([task(1, prompt=prompt)])

    assert ledger.unfinished(0, 1) == [task(1, prompt=prompt)]


def test_everything_asked_of_a_task_comes_back_wherever_it_is_read(ledger: Ledger) -> None:
    full = AcceptedTask(
        1,
        "a",
        "why?",
        "chemist",
        {"row": 1},
        5.5,
        "user-42",
        "pool-2",
        "sha256:abc",
        fingerprint=bytes(range(0, 256, 16)),
    )
    plain = task(2)
    ledger.accept([full, plain])

    assert ledger.unfinished(0, 10) == [full, plain]
    ledger.record([ending(1), ending(2)])
    assert ledger.find("a") == KnownTask(full, ending(1))
    assert [one.task for one in ledger.ended(0, 10)] == [full, plain]


def test_ending_comes_back_with_its_turns_and_the_answers_that_did_not_fit(ledger: Ledger) -> None:
    chained = ending(1, turns=3, answers=["{", "", "null\0"])
    plain = ending(2)
    ledger.write([task(1), task(2)], [chained, plain])

    assert [one.ending for one in ledger.ended(0, 10)] == [chained, plain]


def test_lanes_are_counted_by_their_unfinished_tasks(ledger: Ledger) -> None:
    ledger.accept([task(1), in_lane(2, "chemist", None, 0), in_lane(3, "chemist", "a\0b", -5)])
    ledger.accept([task(4), task(5), in_lane(6, "chemist", "a\0b", 0)])
    ledger.record([ending(4), ending(6)])

    assert ledger.lanes() == {
        Lane(): 2,
        Lane("chemist"): 1,
        Lane("chemist", "a\0b", -5): 1,
    }


def test_what_is_bound_to_a_session_a_race_or_a_worker_is_in_no_lane(ledger: Ledger) -> None:
    bound = [
        AcceptedTask(1, "a", "why?", session="user-42"),
        AcceptedTask(2, "b", "why?", race="race"),
        AcceptedTask(3, "c", "why?", worker="pool-1"),
    ]
    ledger.accept([*bound, task(4)])

    assert ledger.lanes() == {Lane(): 1}
    assert ledger.unfinished_in(None, 0, 10) == bound
    assert ledger.unfinished_in(None, 1, 1) == bound[1:2]


def test_lane_is_read_in_pages_by_number(ledger: Ledger) -> None:
    ledger.accept([in_lane(n, None, "ab"[n % 2], 0) for n in range(1, 101)])
    ledger.record([ending(n) for n in range(1, 101, 4)])

    first = ledger.unfinished_in(Lane(tenant="b"), 0, 10)
    second = ledger.unfinished_in(Lane(tenant="b"), first[-1].number, 10)

    assert [one.number for one in first + second] == list(range(3, 80, 4))
    assert ledger.unfinished_in(Lane(tenant="b"), 100, 10) == []


def test_lane_that_never_was_is_empty(ledger: Ledger) -> None:
    ledger.accept([AcceptedTask(1, "a", "why?", session="user-42"), task(2)])

    assert ledger.unfinished_in(Lane("historian"), 0, 10) == []


def test_failed_tasks_that_are_asked_again_are_back_in_their_lanes(ledger: Ledger) -> None:
    tasks = [in_lane(1, "chemist", "a", 3), AcceptedTask(2, "b", "why?", session="user-42")]
    ledger.write(tasks, [ending(1, "failed"), ending(2, "failed")])

    ledger.requeue_failed()

    assert ledger.lanes() == {Lane("chemist", "a", 3): 1}
    assert ledger.unfinished_in(Lane("chemist", "a", 3), 0, 10) == tasks[:1]
    assert ledger.unfinished_in(None, 0, 10) == tasks[1:]


def test_lanes_outlive_a_transaction_that_failed(ledger: Ledger) -> None:
    lane = Lane("chemist", "a", 3)
    with pytest.raises(LedgerError):
        ledger.write([in_lane(1, *lane)], [ending(99)])

    ledger.accept([in_lane(1, *lane)])

    assert ledger.lanes() == {lane: 1}


def test_known_id_is_left_out_and_what_is_stored_comes_back(ledger: Ledger) -> None:
    ledger.accept([task(1, "a"), task(2, "b")])
    ledger.record([ending(1, text="because")])

    known = ledger.accept([task(3, "b", "how?"), task(4, "c"), task(5, "a")])

    assert known == {
        3: KnownTask(task(2, "b")),
        5: KnownTask(task(1, "a"), ending(1, text="because")),
    }
    assert ledger.unfinished(0, 10) == [task(2, "b"), task(4, "c")]


def test_id_that_comes_twice_in_one_call_is_accepted_once(ledger: Ledger) -> None:
    known = ledger.accept([task(1, "a"), task(2, "a", "how?")])

    assert known == {2: KnownTask(task(1, "a"))}
    assert ledger.unfinished(0, 10) == [task(1, "a")]


def test_task_accepted_twice_is_known_by_its_own_number(ledger: Ledger) -> None:
    ledger.accept([task(1)])

    assert ledger.accept([task(1)]) == {1: KnownTask(task(1))}


def test_known_task_comes_back_with_the_ending_of_the_same_write(ledger: Ledger) -> None:
    ledger.accept([task(1, "a")])

    known = ledger.write([task(2, "a")], [ending(1)])

    assert known == {2: KnownTask(task(1, "a"), ending(1))}


def test_task_may_end_in_the_write_that_accepts_it(ledger: Ledger) -> None:
    ledger.write([task(1)], [ending(1)])

    assert ledger.ended(0, 10) == [EndedTask(1, task(1), ending(1))]
    assert ledger.unfinished(0, 10) == []


def test_first_ending_of_a_task_is_the_only_one(ledger: Ledger) -> None:
    ledger.accept([task(1)])

    ledger.record([ending(1, text="first"), ending(1, text="second")])
    ledger.record([ending(1, "failed")])

    assert ledger.find("task-1") == KnownTask(task(1), ending(1, text="first"))
    assert ledger.totals().completed == 1
    assert ledger.totals().failed == 0


def test_ending_of_a_task_never_accepted_fails_the_whole_write(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="never accepted"):
        ledger.write([task(1)], [ending(1), ending(2)])

    assert ledger.totals() == Totals()
    assert ledger.find("task-1") is None


def test_number_used_twice_fails_the_whole_write(ledger: Ledger) -> None:
    ledger.accept([task(1, "a")])

    with pytest.raises(LedgerError, match="used twice"):
        ledger.accept([task(2, "b"), task(1, "c")])

    assert ledger.unfinished(0, 10) == [task(1, "a")]


def test_write_goes_on_after_one_that_failed(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.record([ending(1)])

    ledger.write([task(1)], [ending(1)])

    assert ledger.totals().completed == 1


def test_unknown_id_is_not_found(ledger: Ledger) -> None:
    assert ledger.find("nobody") is None


def sent(workers: dict[int, int | None]) -> Progress:
    return Progress(sent=workers)


def death(number: int, worker: str = "pool-1") -> Death:
    return Death(number, worker, 1_700_000_000_000, "it was killed \N{SNOWMAN}")


def test_deaths_are_kept_in_their_order_until_their_tasks_end(ledger: Ledger) -> None:
    second, other = death(1, "pool-2"), death(2)
    ledger.write([task(1), task(2)], [], progress=Progress(deaths=[death(1), other]))
    ledger.write([], [], progress=Progress(deaths=[second]))

    assert ledger.deaths() == [death(1), other, second]
    ledger.record([ending(1, "failed")])
    assert ledger.deaths() == [other]
    assert ledger.deaths(1) == [death(1), second]
    assert ledger.deaths(3) == []


def test_sent_tasks_are_told_until_they_end_or_are_taken_back(ledger: Ledger) -> None:
    ledger.write([task(1), task(2), task(3), task(4)], [], progress=sent({1: 7, 2: 7, 3: 8}))
    ledger.write([], [ending(1)], progress=sent({3: None, 4: 9}))

    assert ledger.sent() == [SentTask(task(2), 7), SentTask(task(4), 9)]
    ledger.write([], [], progress=sent({2: 12}))
    assert ledger.sent() == [SentTask(task(2), 12), SentTask(task(4), 9)]


def test_task_that_is_sent_and_ends_in_one_write_is_not_sent(ledger: Ledger) -> None:
    ledger.write([task(1)], [ending(1)], progress=sent({1: 7}))
    ledger.write([], [], progress=sent({1: 7}))

    assert ledger.sent() == []


def test_many_sent_tasks_are_told(ledger: Ledger) -> None:
    ledger.write([task(n) for n in range(1, 5_001)], [])
    ledger.write([], [], progress=sent(dict.fromkeys(range(1, 5_001), 1)))

    assert [one.task.number for one in ledger.sent()] == list(range(1, 5_001))
    assert ledger.unfinished(0, 1) == [task(1)]


def test_requeued_task_has_seen_no_deaths(ledger: Ledger) -> None:
    deaths = Progress(deaths=[death(1), death(2)])
    ledger.write([task(1), task(2)], [ending(1, "failed")], progress=deaths)

    ledger.requeue_failed()

    assert ledger.deaths() == [death(2)]


def test_death_with_a_task_never_accepted_fails_the_whole_write(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.write([task(1)], [], progress=Progress(deaths=[death(2)]))

    assert ledger.totals() == Totals()


def test_other_fingerprints_are_kept_of_what_is_unfinished(ledger: Ledger) -> None:
    old, new = b"\0" * 16, b"\xff" * 16
    tasks = [structs.replace(task(number), fingerprint=old) for number in range(1, 1_001)]
    ledger.write(tasks, [ending(1)])

    ledger.restate({one.number: new for one in tasks[:999]})

    expected = {"task-1": old, "task-2": new, "task-999": new, "task-1000": old}
    known = ledger.find_all(list(expected))
    assert {name: one.task.fingerprint for name, one in known.items()} == expected


def test_unfinished_tasks_come_in_pages(ledger: Ledger) -> None:
    ledger.accept([task(number) for number in range(1, 101)])
    ledger.record([ending(number) for number in range(1, 101, 2)])

    assert [one.number for one in ledger.unfinished(0, 30)] == list(range(2, 61, 2))
    assert [one.number for one in ledger.unfinished(60, 30)] == list(range(62, 101, 2))
    assert ledger.unfinished(100, 30) == []


def test_ended_tasks_come_in_pages_in_the_order_of_completion(ledger: Ledger) -> None:
    ledger.accept([task(number) for number in range(1, 101)])
    for number in (7, 3, 5):
        ledger.record([ending(number)])
    ledger.record([ending(number) for number in range(100, 0, -1)])

    first = ledger.ended(0, 50)
    rest = ledger.ended(first[-1].position, 100)

    numbers = [one.task.number for one in first + rest]
    assert numbers == [7, 3, 5, *(n for n in range(100, 0, -1) if n not in {3, 5, 7})]
    assert ledger.ended(rest[-1].position, 1) == []


def test_pages_of_long_tasks_are_shorter_and_leave_none_out(ledger: Ledger) -> None:
    ledger.accept([task(number, prompt="x" * 1_000_000) for number in range(1, 41)])

    pages = [ledger.unfinished(0, 100)]
    while pages[-1]:
        pages.append(ledger.unfinished(pages[-1][-1].number, 100))

    assert [one.number for page in pages for one in page] == list(range(1, 41))
    assert len(pages) > 2


def test_totals_are_the_sums_of_what_the_ledger_holds(ledger: Ledger) -> None:
    ledger.accept([task(number) for number in range(1, 7)])
    ledger.record(
        [
            ending(4, usage=Usage(1, 2, 3, 4), cost_usd=0.25),
            ending(2, usage=Usage(10, 20, 30, 40)),
            ending(3, "failed", usage=Usage(100, 0, 0, 0), cost_usd=0.5),
            ending(1, "cancelled"),
        ]
    )
    ledger.record([ending(5, cost_usd=0.0)])

    assert ledger.totals() == Totals(
        unfinished=1,
        completed=3,
        failed=1,
        cancelled=1,
        usage=Usage(111, 22, 33, 44),
        cost_usd=0.75,
        unpriced=1,
        last_number=6,
    )


def test_what_is_in_no_ending_is_part_of_the_totals_and_told_apart(ledger: Ledger) -> None:
    in_vain = Extra(turns=2, turns_usd=0.5, usage=Usage(10, 20, 30, 40), usage_usd=0.25)
    kept = Extra(kept_usd=0.125, kept_tokens=1_000)
    ledger.accept([task(1)])
    ledger.write((), [ending(1, usage=Usage(1, 2, 3, 4), cost_usd=1.0)], {}, in_vain)
    ledger.record([], {}, kept)
    ledger.record([], {}, kept)

    totals = ledger.totals()

    assert totals.extra == in_vain + kept + kept
    assert (totals.usage, totals.cost_usd) == (Usage(11, 22, 33, 44), 1.25)
    assert (totals.completed, totals.unpriced) == (1, 0)


def test_what_is_spent_is_not_recorded_when_its_write_fails(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="never accepted"):
        ledger.record([ending(7)], {}, Extra(turns=1))

    assert ledger.totals() == Totals()


def test_requeued_tasks_have_cost_what_they_have(ledger: Ledger) -> None:
    ledger.accept([task(1), task(2)])
    ledger.record([ending(1, "failed", usage=Usage(10, 5, 2, 1), cost_usd=0.5), ending(2)])
    before = ledger.totals()

    ledger.requeue_failed()
    ledger.requeue_failed()

    after = ledger.totals()
    assert (after.usage, after.cost_usd) == (before.usage, before.cost_usd)
    ledger.record([ending(1, usage=Usage(1, 1), cost_usd=0.25)])
    assert ledger.totals().cost_usd == 0.75


def test_failed_tasks_are_unfinished_again_once_requeued(ledger: Ledger) -> None:
    ledger.accept([task(number) for number in range(1, 5)])
    ledger.record([ending(1), ending(2, "failed"), ending(3, "cancelled"), ending(4, "failed")])
    before = ledger.totals()

    assert ledger.requeue_failed() == 2

    assert ledger.unfinished(0, 10) == [task(2), task(4)]
    assert ledger.find("task-4") == KnownTask(task(4))
    assert (before.failed, ledger.totals().failed) == (2, 0)
    assert ledger.requeue_failed() == 0


def test_position_is_never_used_again(ledger: Ledger) -> None:
    ledger.accept([task(1)])
    ledger.record([ending(1, "failed")])
    (failed,) = ledger.ended(0, 10)

    ledger.requeue_failed()
    ledger.record([ending(1)])

    assert [one.ending for one in ledger.ended(failed.position, 10)] == [ending(1)]


def test_conversation_is_what_its_tasks_said_in_the_order_of_their_endings(ledger: Ledger) -> None:
    ledger.accept([task(number) for number in range(1, 6)])

    ledger.record(
        [
            ending(3, conversation=said("a", "one", "two")),
            ending(1, conversation=said("b", "else")),
            ending(2, conversation=said("a", "three")),
            ending(4),
        ]
    )
    ledger.record([ending(5, conversation=said("a", "four"))])

    assert ledger.conversation("a") == messages("one", "two", "three", "four")
    assert ledger.conversation("b") == messages("else")
    assert ledger.session_turns(["a", "b"]) == {"a": 3, "b": 1}


def test_whole_conversation_replaces_what_was_said_before(ledger: Ledger) -> None:
    ledger.accept([task(number) for number in range(1, 6)])
    ledger.record(
        [
            ending(1, conversation=said("a", "one")),
            ending(2, conversation=said("a", "two", is_whole=True)),
            ending(3, conversation=said("a", "three")),
        ]
    )
    before = ledger.conversation("a")
    ledger.record([ending(4, conversation=said("a", "four", is_whole=True))])
    ledger.record([ending(5, conversation=said("a", "five"))])

    assert before == messages("two", "three")
    assert ledger.conversation("a") == messages("four", "five")
    assert ledger.session_turns(["a"]) == {"a": 5}


def test_session_that_nobody_named_has_nothing_behind_it(ledger: Ledger) -> None:
    ledger.write([task(1)], [ending(1, conversation=said("a", "one"))])

    assert ledger.session_turns(["A", "", "a", "a"]) == {"a": 1}
    assert ledger.session_turns([]) == {}
    assert ledger.conversation("A") == []


def test_task_that_said_nothing_is_behind_its_session_too(ledger: Ledger) -> None:
    ledger.write([task(1)], [ending(1, conversation=said("a"))])

    assert ledger.session_turns(["a"]) == {"a": 1}
    assert ledger.conversation("a") == []


@pytest.mark.parametrize("session", ["\0", "a\0b", "\N{SNOWMAN}", "%", "a b", '"'])
def test_session_may_have_any_name(ledger: Ledger, session: str) -> None:
    ledger.write([task(1)], [ending(1, conversation=said(session, "one"))])

    assert ledger.session_turns(["a", session]) == {session: 1}
    assert ledger.conversation(session) == messages("one")


def test_any_number_of_sessions_is_counted_at_once(ledger: Ledger) -> None:
    numbers = range(1, 5001)
    endings = [ending(n, conversation=said(f"user-{n}", "one")) for n in numbers]
    ledger.write([task(n) for n in numbers], endings)

    counted = ledger.session_turns([f"user-{n}" for n in range(10_001)])

    assert counted == {f"user-{n}": 1 for n in numbers}


def test_only_the_first_ending_of_a_task_adds_to_its_session(ledger: Ledger) -> None:
    ledger.accept([task(1), task(2)])

    ledger.record(
        [
            ending(1, conversation=said("a", "first")),
            ending(1, conversation=said("a", "second")),
            ending(2),
            ending(2, conversation=said("a", "later")),
        ]
    )
    ledger.record([ending(1, conversation=said("a", "third", is_whole=True))])

    assert ledger.conversation("a") == messages("first")
    assert ledger.session_turns(["a"]) == {"a": 1}


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_task_that_did_not_complete_adds_nothing_to_its_session(
    ledger: Ledger, state: EndState
) -> None:
    ledger.accept([task(1)])

    ledger.record(
        [
            ending(1, state, conversation=said("a", "one", is_whole=True)),
            ending(1, conversation=said("a", "two")),
        ]
    )

    assert ledger.conversation("a") == []
    assert ledger.session_turns(["a"]) == {}


def test_requeued_task_adds_to_its_session_once_it_completes(ledger: Ledger) -> None:
    ledger.write([task(1), task(2)], [ending(1, "failed", conversation=said("a", "lost"))])
    ledger.record([ending(2, conversation=said("a", "one"))])

    ledger.requeue_failed()
    ledger.record([ending(1, conversation=said("a", "two"))])

    assert ledger.conversation("a") == messages("one", "two")


def test_conversation_does_not_come_back_with_its_ending(ledger: Ledger) -> None:
    ledger.write([task(1)], [ending(1, conversation=said("a", "one"))])

    assert ledger.find("task-1") == KnownTask(task(1), ending(1))
    assert ledger.ended(0, 1)[0].ending.conversation is None


def test_failed_write_leaves_neither_conversation_nor_snapshot(ledger: Ledger) -> None:
    endings = [ending(1, conversation=said("a", "one")), ending(2)]

    with pytest.raises(LedgerError, match="never accepted"):
        ledger.write([task(1)], endings, {"pool-1": "1"})

    assert ledger.session_turns(["a"]) == {}
    assert ledger.snapshot("pool-1") is None


def test_last_snapshot_of_each_worker_is_kept(ledger: Ledger) -> None:
    ledger.accept([task(1)])

    ledger.record([ending(1)], {"pool-1": "1", "pool-2": '{"seen": 2}'})
    ledger.record([], {"pool-1": "null"})

    assert ledger.snapshot("pool-1") == "null"
    assert ledger.snapshot("pool-2") == '{"seen": 2}'
    assert ledger.snapshot("pool-3") is None


def test_output_type_is_kept_under_its_digest_and_stays(ledger: Ledger) -> None:
    ledger.keep_output_type("sha256:abc", '{"type": "integer"}')
    ledger.keep_output_type("sha256:abc", "{}")

    assert ledger.output_type("sha256:abc") == '{"type": "integer"}'
    assert ledger.output_type("sha256:abd") is None


def test_meta_keeps_the_last_value_of_a_key(ledger: Ledger) -> None:
    ledger.set_meta("settings", "a")
    ledger.set_meta("settings", "b")

    assert ledger.meta("settings") == "b"
    assert ledger.meta("name") is None


def test_everything_is_there_after_reopening(open_ledger: Opener) -> None:
    ledger = open_ledger()
    told = ending(1, cost_usd=0.5, conversation=said("a", "one"))
    ledger.write([task(1), task(2)], [told], {"pool-1": "1"})
    ledger.set_meta("name", "crew")
    ledger.keep_output_type("sha256:abc", "{}")
    totals, ended = ledger.totals(), ledger.ended(0, 10)
    ledger.close()

    ledger = open_ledger()

    assert (ledger.totals(), ledger.ended(0, 10)) == (totals, ended)
    assert ledger.unfinished(0, 10) == [task(2)]
    assert ledger.meta("name") == "crew"
    assert ledger.session_turns(["a"]) == {"a": 1}
    assert ledger.conversation("a") == messages("one")
    assert (ledger.snapshot("pool-1"), ledger.output_type("sha256:abc")) == ("1", "{}")
    ledger.close()


def test_second_close_does_nothing(open_ledger: Opener) -> None:
    ledger = open_ledger()
    ledger.close()

    ledger.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda ledger: ledger.accept([task(1)]),
        lambda ledger: ledger.record([ending(1)]),
        lambda ledger: ledger.find("task-1"),
        lambda ledger: ledger.unfinished(0, 1),
        lambda ledger: ledger.unfinished_in(None, 0, 1),
        lambda ledger: ledger.lanes(),
        lambda ledger: ledger.ended(0, 1),
        lambda ledger: ledger.totals(),
        lambda ledger: ledger.requeue_failed(),
        lambda ledger: ledger.session_turns(["a"]),
        lambda ledger: ledger.conversation("a"),
        lambda ledger: ledger.snapshot("pool-1"),
        lambda ledger: ledger.output_type("sha256:abc"),
        lambda ledger: ledger.keep_output_type("sha256:abc", "{}"),
        lambda ledger: ledger.meta("name"),
        lambda ledger: ledger.set_meta("name", "crew"),
    ],
    ids=[
        "accept",
        "record",
        "find",
        "unfinished",
        "unfinished_in",
        "lanes",
        "ended",
        "totals",
        "requeue",
        "session_turns",
        "conversation",
        "snapshot",
        "output_type",
        "keep_output_type",
        "meta",
        "set_meta",
    ],
)
def test_closed_ledger_refuses_every_use(
    open_ledger: Opener, use: Callable[[Ledger], object]
) -> None:
    ledger = open_ledger()
    ledger.close()

    with pytest.raises(LedgerError, match="closed"):
        use(ledger)


def test_one_pool_at_a_time_has_the_ledger(ledger: Ledger, open_ledger: Opener) -> None:
    with pytest.raises(LedgerError, match="in use by another pool"):
        open_ledger()

    ledger.accept([task(1)])


def test_surrogates_in_an_ending_do_not_keep_it_from_being_recorded(ledger: Ledger) -> None:
    cause = StoredCause("BackendError", "OSError", "no file \udcff", "trace \ud83d")
    ledger.accept([task(1)])

    ledger.record([ending(1, "failed", text="a\ud800b \ud83d\ude00", cause=cause)])

    (ended,) = ledger.ended(0, 1)
    assert ended.ending.text == "a\ufffdb \N{GRINNING FACE}"
    assert ended.ending.cause == StoredCause(
        "BackendError", "OSError", "no file \ufffd", "trace \ufffd"
    )


def test_surrogates_in_a_payload_do_not_keep_it_from_being_written(ledger: Ledger) -> None:
    block = {"type": "text", "te\udcffxt": "a\ud800b \ud83d\ude00"}
    conversation = Conversation("user-\ud800", [{"role": "user", "content": [block, 1, None]}])
    ledger.accept([task(1)])

    ledger.record(
        [ending(1, answers=["\ud800", "{}"], conversation=conversation)],
        {"pool-1": '"\udcff"'},
    )
    ledger.keep_output_type("sha256:abc", '{"title": "\ud800"}')

    repaired = {"type": "text", "te\ufffdxt": "a\ufffdb \N{GRINNING FACE}"}
    assert ledger.conversation("user-\ufffd") == [{"role": "user", "content": [repaired, 1, None]}]
    assert ledger.ended(0, 1)[0].ending.answers == ["\ufffd", "{}"]
    assert ledger.snapshot("pool-1") == '"\ufffd"'
    assert ledger.output_type("sha256:abc") == '{"title": "\ufffd"}'
