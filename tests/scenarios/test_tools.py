"""Tools over the Messages API, and without one."""

from __future__ import annotations

import pytest

from raypool import BackendError, Pool
from raypool.events import ToolResultEvent, ToolUseEvent
from raypool.testing import Answer, Call
from tests.scenarios.conftest import Provider
from tests.scenarios.watching import wait_for_event, watching


def use_both_tools(call: Call) -> str | Answer:
    if len(call.body["messages"]) == 1:
        uses: list[tuple[str, dict[str, object]]] = [("add", {"a": 2, "b": 40})]
        uses.append(("price_of", {"item": "the moon"}))
        return Answer("Let me see.", tool_use=uses)
    return "It is 42, and not for sale."


def use_a_tool_again_and_again(call: Call) -> Answer:
    return Answer(tool_use=[("add", {"a": 1, "b": 1})])


def results_in(call: Call) -> list[dict[str, object]]:
    """The tool results in the last message of a request."""
    content: list[dict[str, object]] = call.body["messages"][-1]["content"]
    return [block for block in content if block["type"] == "tool_result"]


def test_model_calls_two_tools_and_is_told_what_they_gave(
    api_pool: Pool, provider: Provider
) -> None:
    with watching(api_pool) as events:
        provider.begin(use_both_tools)
        future = api_pool.submit("what is it, and what does it cost?", role="toolsmith")
        response = future.result(timeout=30)
        called = wait_for_event(events, "tool.called")
        failed = wait_for_event(events, "tool.failed")

    assert response.text.endswith("It is 42, and not for sale.")
    offered = provider.calls[0].body["tools"]
    assert [tool["name"] for tool in offered] == ["add", "price_of"]
    assert offered[0]["description"] == "Add two numbers."
    assert set(offered[0]["input_schema"]["properties"]) == {"a", "b"}
    added, priced = results_in(provider.calls[1])
    assert (added["content"], added.get("is_error", False)) == ("42", False)
    assert "the moon is not for sale" in str(priced["content"])
    assert priced["is_error"] is True
    assert api_pool.poll(future.id).turns == 2
    assert [type(e) for e in response.events if isinstance(e, ToolUseEvent | ToolResultEvent)] == [
        ToolUseEvent,
        ToolUseEvent,
        ToolResultEvent,
        ToolResultEvent,
    ]
    assert called.fields["tool"] == "add"
    assert (failed.fields["tool"], failed.fields["error_type"]) == ("price_of", "LookupError")


def test_model_that_calls_tools_without_end_fails_at_the_limit(
    api_pool: Pool, provider: Provider
) -> None:
    provider.begin(use_a_tool_again_and_again)

    with pytest.raises(BackendError, match=r"max_turns_per_task=6 turns, tool calls included"):
        api_pool.submit("go on and on", role="toolsmith").result(timeout=30)

    lengths = {len(call.body["messages"]) for call in provider.calls}
    assert lengths == {1, 3, 5, 7, 9, 11}  # one that was tried again has the length it had


def test_wrong_arguments_are_told_to_the_model(api_pool: Pool, provider: Provider) -> None:
    def reply(call: Call) -> str | Answer:
        if len(call.body["messages"]) == 1:
            return Answer(tool_use=[("add", {"a": "many", "b": 1}), ("multiply", {})])
        return "I give up."

    provider.begin(reply)

    assert api_pool.submit("add", role="toolsmith").result(timeout=30).text == "I give up."
    wrong, unknown = results_in(provider.calls[1])
    assert "a" in str(wrong["content"])
    assert "multiply" in str(unknown["content"])
    assert [wrong["is_error"], unknown["is_error"]] == [True, True]


@pytest.mark.timeout(240)
def test_local_model_asked_for_tools_says_that_it_has_none(local_pool: Pool) -> None:
    with pytest.raises(BackendError, match=r"cannot call tools.*AnthropicBackend") as raised:
        local_pool.submit("what is 2 + 40?", role="toolsmith").result(timeout=60)

    assert raised.value.attempts == 1
