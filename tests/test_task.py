"""Tasks: which are refused before anything is sent, and what an accepted one can do."""

from __future__ import annotations

import types
from collections import UserDict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypool.errors import InvalidTask
from raypool.messages import Submission, decode_submissions, encode
from raypool.task import (
    MAX_ID_LENGTH,
    MAX_SESSION_LENGTH,
    Task,
    check_prompt,
    check_task,
    new_task_id,
)

LONE_SURROGATE = "what is \ud83d?"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def nested(depth: int) -> dict[str, Any]:
    """A dict in a dict in a dict, `depth` levels deep."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"inner": value}
    return value


@pytest.mark.parametrize(
    "prompt",
    [
        "capital of France?",
        "  spaces around  ",
        "naïve 🙂 漢字",
        "x" * 10_000_000,
        [user("hello")],
        [user("hello"), assistant("hi"), user("who are you?")],
        [user([{"type": "text", "text": "what is this?"}, IMAGE])],
    ],
    ids=["text", "padded", "unicode", "10 MB", "message", "conversation", "image"],
)
def test_prompt_that_can_be_asked_is_taken(prompt: Any) -> None:
    check_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        (" \n\t ", "the prompt is empty"),
        ("\u2003\u00a0", "the prompt is empty"),
        (None, "a prompt must be a text or a list of messages, got NoneType"),
        (b"bytes", "a prompt must be a text or a list of messages, got bytes"),
        (42, "a prompt must be a text or a list of messages, got int"),
        ((user("hello"),), "a prompt must be a text or a list of messages, got tuple"),
        ([], "a list of messages needs at least one"),
        (["hello"], r"message 0 must be \{'role': …, 'content': …\}, got str"),
        ([{"role": "user"}], "message 0 must be .*, got keys 'role'"),
        ([{**user("a"), "name": "b"}], "got keys 'content', 'name', 'role'"),
        ([{1: 2, "role": "user"}], "got keys 'role', 1"),
        ([{"role": "system", "content": "a"}], "role must be 'user' or 'assistant', got 'system'"),
        ([{"role": [], "content": "a"}], r"role must be 'user' or 'assistant', got \[\]"),
        ([user("a"), assistant("b")], "the last message must be the user's"),
        ([user("a"), assistant(" "), user("b")], "message 1 is empty"),
        ([user([])], "content must be a text or a list of blocks that is not empty"),
        ([user(None)], "content must be a text or a list of blocks that is not empty"),
        ([user(["text"])], "message 0: a block must be of type text or image, got str"),
        ([user([{"type": "audio"}])], "a block must be of type text or image, got keys 'type'"),
        ([user([{"type": []}])], "a block must be of type text or image"),
        ([user([{"type": "text"}])], "a text block must have a 'text'"),
        ([user([{"type": "text", "text": ""}])], "message 0 is empty"),
        ([user([{"type": "image", "source": "a.png"}])], "an image block must have a 'source'"),
    ],
)
def test_prompt_that_cannot_be_asked_is_refused_with_the_reason(prompt: Any, message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        check_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (LONE_SURROGATE, r"the prompt has a lone surrogate \(U\+D83D\) at character 8; decode"),
        ([user("a"), assistant("b"), user("\udc00")], r"message 2 has .* at character 0"),
        ([user([{"type": "text", "text": "a\ud800"}])], r"message 0 has .* at character 1"),
        ([user([{**IMAGE, "source": {"data": "\ud800"}}])], "message 0.* what JSON can hold"),
    ],
    ids=["text", "message", "block", "source"],
)
def test_lone_surrogate_is_refused_with_its_place(prompt: Any, message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        check_prompt(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        [user([{**IMAGE, "source": {"data": object()}}])],
        [user([{**IMAGE, "source": {"size": 2**70}}])],
        [user([{**IMAGE, "source": nested(5_000)}])],
        [types.MappingProxyType(user("hello"))],
        [UserDict(user("hello"))],
    ],
    ids=["object", "large integer", "deep", "mapping proxy", "user dict"],
)
def test_message_that_could_not_be_sent_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidTask, match="message 0"):
        check_prompt(prompt)


def test_refused_message_does_not_show_what_is_in_it() -> None:
    with pytest.raises(InvalidTask) as raised:
        check_prompt([{"role": "user", "content": "a secret", "extra": "another"}])

    assert "secret" not in str(raised.value)
    assert "another" not in str(raised.value)


@pytest.mark.parametrize("task_id", ["a", "x" * MAX_ID_LENGTH, "zeile-ü 7"])
def test_id_may_be_any_short_text(task_id: str) -> None:
    check_task(Task("why?", id=task_id))


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("", "a task's id must be a text of 1 to 512 characters, got ''"),
        ("x" * (MAX_ID_LENGTH + 1), "of 1 to 512 characters, got 'xxx"),
        (7, "of 1 to 512 characters, got 7"),
        ("\ud800", "a task's id has a lone surrogate"),
    ],
)
def test_id_of_another_kind_is_refused(task_id: Any, message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        check_task(Task("why?", id=task_id))


def test_long_wrong_id_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidTask) as raised:
        check_task(Task("why?", id="x" * 100_000))

    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("session", ["user-42", "x" * MAX_SESSION_LENGTH, " ü"])
def test_session_may_be_any_short_text(session: str) -> None:
    check_task(Task("why?", session=session))


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ("", "session must be a text of 1 to 512 characters, got ''"),
        ("x" * (MAX_SESSION_LENGTH + 1), "of 1 to 512 characters, got 'xxx"),
        (42, "session must be a text of 1 to 512 characters, got 42"),
        ("a\udc00", "session has a lone surrogate .* at character 1"),
    ],
)
def test_session_of_another_kind_is_refused(session: Any, message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        check_task(Task("why?", session=session))


@pytest.mark.parametrize("stream", [None, 1, "yes"])
def test_stream_is_yes_or_no(stream: Any) -> None:
    with pytest.raises(InvalidTask, match=f"stream must be True or False, got {stream!r}"):
        check_task(Task("why?", stream=stream))


def test_role_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidTask, match="role must be a text or None, got 7"):
        check_task(Task("why?", role=7))  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0.001, 1, 86_400.0])
def test_timeout_is_any_number_of_seconds_above_zero(timeout: float) -> None:
    check_task(Task("why?", timeout=timeout))


@pytest.mark.parametrize(
    "timeout", [0, -1, 0.0, float("nan"), float("inf"), 2**70, True, "5", [5]], ids=repr
)
def test_timeout_of_another_kind_is_refused(timeout: Any) -> None:
    with pytest.raises(
        InvalidTask, match=r"timeout must be a number of seconds above 0, at most 1e\+09, got"
    ):
        check_task(Task("why?", timeout=timeout))


@pytest.mark.parametrize("metadata", [None, 0, "row 7", [1, None], {"row": {"name": "Ada"}}])
def test_metadata_is_whatever_json_can_hold(metadata: Any) -> None:
    check_task(Task("why?", metadata=metadata))


@pytest.mark.parametrize(
    "metadata",
    [object(), {(1, 2): "a"}, "\ud800", {"\ud800": 1}, 2**70, nested(5_000)],
    ids=["object", "tuple key", "surrogate", "surrogate key", "large integer", "deep"],
)
def test_metadata_of_another_kind_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidTask, match="metadata must be what JSON can hold"):
        check_task(Task("why?", metadata=metadata))


class Text(str):
    """A text of another library, such as `numpy.str_`."""

    __slots__ = ()


class Number(float):
    """A number of another library, such as `numpy.float64`."""


def test_text_or_number_of_a_derived_class_travels_as_a_plain_one() -> None:
    task = Task(Text("why?"), role=Text("chemist"), id=Text("a"), timeout=Number(5))

    check_task(task)
    [arrived] = decode_submissions(
        encode([Submission(1, task.id or "", task.prompt, task.role, timeout=task.timeout)])
    )

    assert arrived == Submission(1, "a", "why?", "chemist", timeout=5.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=6,
)
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
contents = any_text | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": any_text})
    | st.fixed_dictionaries({"type": st.just("image"), "source": json_values}),
    max_size=2,
)
prompts = any_text | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": contents}),
    max_size=3,
)


@given(
    prompt=prompts,
    task_id=any_text | st.none(),
    session=any_text | st.none(),
    metadata=json_values,
    timeout=st.none() | st.floats() | st.integers(),
)
def test_whatever_is_not_refused_can_be_sent_and_kept(
    prompt: Any, task_id: str | None, session: str | None, metadata: Any, timeout: Any
) -> None:
    task = Task(prompt, id=task_id, session=session, metadata=metadata, timeout=timeout)
    try:
        check_task(task)
    except InvalidTask:
        return

    message = Submission(1, task_id or "a", prompt, None, metadata, timeout, session)
    [arrived] = decode_submissions(encode([message]))

    assert (arrived.prompt, arrived.session) == (prompt, session)
    msgspec.json.encode([arrived.prompt, arrived.metadata])


def test_new_ids_are_unique_and_sort_by_the_time_they_were_made() -> None:
    ids = [new_task_id() for _ in range(10_000)]

    assert len(set(ids)) == 10_000
    assert ids == sorted(ids)


def test_task_takes_what_submit_takes_by_the_same_names() -> None:
    task = Task("why?", role="chemist", id="a", metadata={"row": 1}, timeout=5.0)

    assert (task.prompt, task.role, task.id) == ("why?", "chemist", "a")
    assert (task.metadata, task.timeout) == ({"row": 1}, 5.0)


def test_task_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Task("why?").prompt = "how?"  # type: ignore[misc]
