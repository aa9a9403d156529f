"""Every example does what it says, with a backend that the test knows."""

from __future__ import annotations

import asyncio
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from raypool import SessionOptions
from raypool.backends import AnthropicBackend, Backend, FunctionBackend, ScriptedBackend
from raypool.task import Content
from raypool.testing import Answer, Call, MessagesServer

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
MOST_LINES = 60

Printed = pytest.CaptureFixture[str]

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(180)]


def load(name: str) -> dict[str, Any]:
    """The names that an example defines."""
    [path] = [path for path in EXAMPLES if path.stem == name]
    return runpy.run_path(str(path))


def lines_of(name: str, backend: Backend, printed: Printed, **options: Any) -> list[str]:
    """What an example prints with that backend."""
    load(name)["main"](backend, **options)
    return printed.readouterr().out.splitlines()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_in_one_line_how_to_run_it(example: Path) -> None:
    first, blank, *_ = lines = example.read_text().splitlines()

    assert len(lines) < MOST_LINES
    assert first.endswith(f'`python examples/{example.name}`."""')
    assert blank == ""
    assert f"def test_{example.stem}" in Path(__file__).read_text()


def test_trivia_gives_each_worker_every_third_question(capsys: Printed) -> None:
    lines = lines_of("trivia", ScriptedBackend(str.upper), capsys)

    assert [line.split()[1] for line in lines] == ["3", "3", "3"]
    assert lines[1].endswith(
        "['WHO WROTE HAMLET?', 'CHEMICAL SYMBOL FOR GOLD?', 'YEAR WWII ENDED?']"
    )


async def speak_as_role(prompt: Content, options: SessionOptions) -> str:
    role = re.match(r"You are a (\w+)", options.system or "")
    assert role is not None
    opinions = re.findall(r"^\w+: ", str(prompt), re.MULTILINE)
    return f"{role[1].upper()} HERE" + (f", {len(opinions)} opinions read" if opinions else "")


def test_expert_panel_asks_each_role_and_has_one_sum_up(capsys: Printed) -> None:
    lines = lines_of("expert_panel", FunctionBackend(speak_as_role), capsys)

    assert lines == [
        "chemist: CHEMIST HERE",
        "historian: HISTORIAN HERE",
        "economist: ECONOMIST HERE",
        "in short: ECONOMIST HERE, 3 opinions read",
    ]


def test_race_takes_the_first_answer_and_what_most_agree_in(capsys: Printed) -> None:
    answers = {"Name": "Rome.", "Is": "Yes, it is."}

    lines = lines_of("race", ScriptedBackend(lambda asked: answers[asked.split()[0]]), capsys)

    assert lines == ["first: Rome.", "not needed: 2", "agreed: Yes, it is."]


async def repeat_what_was_said(prompt: Content, options: SessionOptions) -> str:
    if isinstance(prompt, str):
        return "Noted."
    return "You said: " + " ".join(one["content"] for one in prompt if one["role"] == "user")


def test_support_bot_remembers_each_customer_alone(capsys: Printed) -> None:
    lines = lines_of("support_bot", FunctionBackend(repeat_what_was_said), capsys)

    assert lines[1] == "bot: Noted."
    assert lines[3] == "bot: Noted."
    assert lines[5].startswith("bot: You said: Hello, my name is Ann")
    assert lines[5].endswith("What colour did I say my bicycle is?")
    assert "gravel" not in lines[5]


async def count_turns(prompt: Content, options: SessionOptions) -> str:
    return "turn 1" if isinstance(prompt, str) else f"turn {len(prompt) // 2 + 1}"


def test_research_chain_ends_with_the_summary(capsys: Printed) -> None:
    backend = FunctionBackend(count_turns)

    lines = lines_of("research_chain", backend, capsys)

    assert lines == ["summary: turn 4", "4 turns, 0 tokens written"]


def test_debate_has_two_sides_that_answer_each_other(capsys: Printed) -> None:
    lines = lines_of("debate", ScriptedBackend(lambda said: said + "!"), capsys)

    opening = load("debate")["OPENING"]
    speeches = [opening + "!" * number for number in range(1, 7)]
    sides = ["cat lover", "dog lover"] * 3
    assert lines == [f"{side}: {speech}" for side, speech in zip(sides, speeches, strict=True)]


def test_watcher_ends_the_work_once_enough_tokens_are_written(capsys: Printed) -> None:
    *watched, last = lines_of("watcher", ScriptedBackend(latency=0.02), capsys)

    counts = [int(line.split()[-3]) for line in watched]
    assert counts == list(range(5, 101, 5))
    assert last.endswith("answers are enough")


def test_checkpointer_goes_on_after_each_review_and_takes_advice(capsys: Printed) -> None:
    advice = iter(["Mention the colour.", "", ""])

    lines = lines_of(
        "checkpointer", ScriptedBackend(), capsys, review=lambda question: next(advice)
    )

    assert lines == [
        "a folding bicycle: Advertise a folding bicycle.",
        "a rain cape: Advertise a rain cape. Mention the colour.",
        "a bell: Advertise a bell. Mention the colour.",
    ]


def slow_in_detail(prompt: str) -> float:
    return 60.0 if prompt.startswith("Explain") else 0.0


def test_asking_again_answers_shortly_what_took_too_long(capsys: Printed) -> None:
    lines = lines_of("asking_again", ScriptedBackend(latency=slow_in_detail), capsys)

    assert lines == [
        f"Explain {topic} in every detail. -> completed: What is {topic}? Answer in one sentence."
        for topic in ("the Moon", "the Sun")
    ]


async def read_letter(prompt: Content, options: SessionOptions) -> str:
    """Ann's letter is read wrongly at first."""
    if isinstance(prompt, str) and "Ann" in prompt:
        return '{"customer": "Ann", "item": "bell", "count": 0}'
    if isinstance(prompt, list):
        return '{"customer": "Ann", "item": "bell", "count": 3}'
    return '{"customer": "Bob", "item": "rain cape", "count": 2}'


def test_typed_answers_are_objects_and_wrong_ones_are_asked_again(capsys: Printed) -> None:
    lines = lines_of("typed_answers", FunctionBackend(read_letter), capsys)

    assert lines == ["Ann orders 3 x bell", "Bob orders 2 x rain cape"]


def use_the_store(call: Call) -> str | Answer:
    if "put" not in call.prompt.lower():
        return call.prompt
    arguments = {"item": "bell", "count": 3 if "Ann" in call.prompt else 4}
    return Answer(tool_use=[("reserve", arguments)])


def test_tools_are_called_and_what_they_raise_is_told(capsys: Printed) -> None:
    with MessagesServer(use_the_store) as server:
        backend = AnthropicBackend(base_url=server.url, api_key="a-key")
        lines = lines_of("tools", backend, capsys)

        offered = [tool["name"] for tool in server.calls[0].body["tools"]]
    assert offered == ["in_stock", "reserve"]
    assert lines[0] == "Please put three bells aside for Ann. -> reserved, 2 left"
    assert lines[1].startswith("Put four bells aside for Bob. -> ")
    assert "there are only 2 of bell" in lines[1]


def test_any_model_answers_through_a_function(capsys: Printed) -> None:
    answer = load("any_model")["answer"]

    lines = lines_of("any_model", FunctionBackend(answer), capsys)

    assert lines == [
        "a-model was asked: Name a river. (6 tokens)",
        "a-model was asked: Name a mountain. (6 tokens)",
    ]


def test_notebook_awaits_and_streams(capsys: Printed) -> None:
    asyncio.run(load("notebook")["main"](ScriptedBackend()))

    first, together, described, *known = capsys.readouterr().out.splitlines()
    assert first == "What is the capital of France?"
    assert together == "['Where is Paris?', 'Where is Rome?', 'Where is Cairo?']"
    assert described == "Describe Venice."
    questions = [f"What is {city} known for?" for city in ("Paris", "Rome", "Cairo")]
    assert sorted(known) == sorted(f"{question} {question}" for question in questions)
