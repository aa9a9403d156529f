"""Which questions are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from raypool.fingerprints import Fingerprints
from raypool.messages import Submission, Terms, decode_submissions, encode
from raypool.records import AcceptedTask

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "é"}]}]
TURNED: list[dict[str, Any]] = [{"content": [{"text": "é", "type": "text"}], "role": "user"}]


def asked(prompt: Any = "why?", **options: Any) -> Submission:
    return Submission(1, "a", prompt, **options)


def of_models(*, roles: Sequence[str] = (), **models: str) -> Fingerprints:
    fingerprints = Fingerprints(roles)
    for role, model in models.items():
        fingerprints.know(role, model)
    return fingerprints


@pytest.fixture
def fingerprints() -> Fingerprints:
    return of_models(chemist="a-model")


def test_fingerprint_is_that_of_canonical_json(fingerprints: Fingerprints) -> None:
    canonical = (
        '{"model":"a-model","output_type":null,"prompt":"why é?","role":"chemist","session":"s"}'
    )

    found = fingerprints.of(asked("why é?", role="chemist", session="s"))

    assert found == hashlib.sha256(canonical.encode()).digest()[:16]


def test_order_of_keys_and_what_is_not_asked_make_no_other_question(
    fingerprints: Fingerprints,
) -> None:
    first = asked(MESSAGES)
    again = asked(TURNED, metadata={"row": 1}, timeout=5.0, priority=3, tenant="t")
    [travelled] = decode_submissions(encode([again]))

    assert fingerprints.of(first) == fingerprints.of(travelled)
    assert len(fingerprints.of(first)) == 16


@pytest.mark.parametrize(
    "other",
    [
        asked("Why?"),
        asked(MESSAGES),
        asked(role="chemist"),
        asked(session="s"),
        asked(output_type="s"),
    ],
    ids=["prompt", "messages", "role", "session", "output type"],
)
def test_other_question_has_another_fingerprint(
    fingerprints: Fingerprints, other: Submission
) -> None:
    assert fingerprints.of(other) != fingerprints.of(asked())


def test_model_is_that_of_the_role_or_those_of_all() -> None:
    one, other = of_models(a="x", b="y"), of_models(b="y", a="z")

    assert one.of(asked(role="b")) == other.of(asked(role="b"))
    assert one.of(asked(role="a")) != other.of(asked(role="a"))
    assert one.of(asked()) != other.of(asked())
    assert one.of(asked()) == of_models(b="y", c="x").of(asked())
    assert one.model(None) == "x, y"


def test_model_is_unknown_until_a_worker_of_the_role_has_told() -> None:
    fingerprints = of_models(chemist="x")
    told: list[str] = []
    fingerprints.on_change = lambda: told.append("change")

    assert fingerprints.of(asked(role="historian")) == b""
    fingerprints.know("historian", "y")
    fingerprints.know("historian", "z")

    assert fingerprints.model("historian") == "y"
    assert told == ["change"]


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        (Terms(model="a-model", backend="FunctionBackend"), "a-model"),
        (Terms(backend="FunctionBackend"), "FunctionBackend"),
    ],
)
def test_backend_without_a_model_goes_by_the_name_of_its_class(terms: Terms, name: str) -> None:
    assert terms.answers == name


def test_what_differs_is_named(fingerprints: Fingerprints) -> None:
    question = asked("how?", session="s")
    task = AcceptedTask(1, "a", "why?", fingerprint=fingerprints.of(asked()))
    of_other_model = structs.replace(task, fingerprint=of_models(chemist="x").of(asked()))

    assert fingerprints.differences(task, asked(), has_ended=True) == []
    assert fingerprints.differences(task, question, has_ended=True) == ["prompt", "session"]
    assert fingerprints.differences(of_other_model, asked(), has_ended=True) == ["model"]
    assert fingerprints.differences(of_other_model, asked(), has_ended=False) == []


def test_question_to_any_role_stays_the_same_as_a_role_gets_its_first_worker() -> None:
    question = asked()
    before = of_models(chemist="a-model", roles=["chemist", "poet"])
    ended_before = AcceptedTask(1, "a", "why?", fingerprint=before.of(question))
    after = of_models(chemist="a-model", poet="another", roles=["chemist", "poet"])
    ended_after = AcceptedTask(1, "a", "why?", fingerprint=after.of(question))

    assert before.of(question) == b""
    assert before.differences(ended_after, question, has_ended=True) == []
    assert after.differences(ended_before, question, has_ended=True) == []
    assert before.of(asked(role="chemist")) == after.of(asked(role="chemist")) != b""
