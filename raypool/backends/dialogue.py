"""A conversation as Messages-API messages: how a prompt continues it, and what tools still owe."""

from __future__ import annotations

from typing import Any, TypeAlias

from raypool.task import Content

Message: TypeAlias = dict[str, Any]


class MissingToolResults(ValueError):
    """Raised when a prompt answers some of the tool calls that a conversation waits for."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(ids)
        self.ids = ids

    def __str__(self) -> str:
        return (
            f"the prompt has no result for tool call {', '.join(map(repr, self.ids))}; its first "
            "message must have a tool_result block for each call that the answer before it made"
        )


def as_messages(prompt: Content) -> list[Message]:
    """A prompt as messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def text_of(content: str | list[dict[str, Any]]) -> str:
    """The text in a message's content."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def continued(messages: list[Message], prompt: Content) -> list[Message]:
    """`messages` with `prompt` added to them.

    Where tools were asked for and the prompt has no results at all, their question is given up:
    a turn that was interrupted between two requests leaves no trace.

    Raises:
        MissingToolResults: it has some of the results, and not all.
    """
    added = as_messages(prompt)
    given = _ids(added[0], "tool_result", "tool_use_id")
    missing = [one for one in open_tool_calls(messages) if one not in given]
    if missing and given:
        raise MissingToolResults(missing)
    return [*(without_open_question(messages) if missing else messages), *added]


def open_tool_calls(messages: list[Message]) -> list[str]:
    """The ids of the tool calls that a conversation ends with."""
    return _ids(messages[-1], "tool_use", "id") if messages else []


def without_open_question(messages: list[Message]) -> list[Message]:
    """`messages` up to the question whose tools were not answered; all when there is none."""
    if not open_tool_calls(messages):
        return messages
    questions = [
        place
        for place, message in enumerate(messages)
        if message["role"] == "user" and not has_tool_results(message)
    ]
    return messages[: questions[-1]] if questions else []


def has_tool_results(message: Message) -> bool:
    """Whether a message brings what tools gave."""
    return bool(_ids(message, "tool_result", "tool_use_id"))


def _ids(message: Message, kind: str, key: str) -> list[str]:
    content = message["content"]
    if isinstance(content, str):
        return []
    return [block[key] for block in content if block["type"] == kind]
