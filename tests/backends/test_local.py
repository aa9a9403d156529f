"""The local backend as workers use it: the real model, in processes that a real Ray starts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pydantic
import pytest
import ray

from raypool.agent import SessionOptions
from raypool.backends import Backend, LocalBackend, Session
from raypool.backends.model_server import ServerAddress
from raypool.errors import PoolStartError
from raypool.events import ErrorEvent, Event, ResultEvent, TextEvent
from raypool.task import Content
from raypool.testing import BackendContract

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(300)]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
OPTIONS = SessionOptions(system="You are a helpful assistant.", max_tokens=40)
RECALLED = [
    {"role": "user", "content": "I live in Rome."},
    {"role": "assistant", "content": "Rome is a city in Italy."},
]
STORY = "Tell a long story about a mouse."
TOO_LONG = "hello " * 3000
IDLE_SECONDS = 1.5


class Asker:
    """A process that opens a backend and holds one conversation, as a worker does."""

    def __init__(self, backend: LocalBackend) -> None:
        self._loop = asyncio.new_event_loop()
        self._backend = backend
        self._loop.run_until_complete(backend.open())
        self._session = self._loop.run_until_complete(backend.start(OPTIONS))

    def ask(self, prompt: Content) -> list[Event]:
        """A turn of the conversation."""
        return self._loop.run_until_complete(collect(self._session, prompt))

    def ask_with(self, options: SessionOptions, *prompts: Content) -> list[list[Event]]:
        """The turns of a conversation with options of its own."""
        return self._loop.run_until_complete(collect_with(self._backend, options, prompts))

    def ask_afresh(self, prompt: Content, times: int) -> list[list[Event]]:
        """So many turns at once, each in a conversation of its own."""
        return self._loop.run_until_complete(collect_afresh(self._backend, prompt, times))

    def ask_until_stopped(self, prompt: Content, pid: int) -> list[Event]:
        """A turn in the middle of which the process `pid` is stopped."""

        async def turn() -> list[Event]:
            events: list[Event] = []
            async for event in self._session.prompt(prompt):
                if not events:
                    os.kill(pid, signal.SIGSTOP)
                events.append(event)
            return events

        return self._loop.run_until_complete(turn())

    def server(self) -> tuple[ServerAddress, int]:
        """Where the server listens, and its process."""
        lease: Any = self._backend._node_model._lease  # type: ignore[union-attr]
        address = lease.address()
        return address, ray.get(lease._server.__ray_call__.remote(lambda _: os.getpid()))

    def close(self) -> None:
        self._loop.run_until_complete(self._backend.close())


async def collect(session: Session, prompt: Content) -> list[Event]:
    return [event async for event in session.prompt(prompt)]


async def collect_afresh(backend: Backend, prompt: Content, times: int) -> list[list[Event]]:
    sessions = [await backend.start(OPTIONS) for _ in range(times)]
    return await asyncio.gather(*(collect(session, prompt) for session in sessions))


async def collect_with(
    backend: Backend, options: SessionOptions, prompts: tuple[Content, ...]
) -> list[list[Event]]:
    session = await backend.start(options)
    return [await collect(session, prompt) for prompt in prompts]


@pytest.fixture(scope="module")
def askers(local_ray: None) -> Iterator[list[Any]]:
    """Two processes that found no server and opened the backend at the same moment."""
    start: Any = ray.remote(num_cpus=0)(Asker)
    askers = [start.remote(LocalBackend()) for _ in range(2)]
    yield askers
    ray.get([asker.close.remote() for asker in askers])


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextEvent))


def failure(events: list[Event]) -> ErrorEvent:
    assert isinstance(events[-1], ErrorEvent), events
    return events[-1]


def test_processes_that_start_together_share_one_server(askers: list[Any]) -> None:
    first, second = ray.get([asker.server.remote() for asker in askers])

    assert first == second


def test_each_process_gets_the_right_answer(askers: list[Any]) -> None:
    for events in ray.get([asker.ask.remote(QUESTION) for asker in askers]):
        result = events[-1]

        assert text(events) == ANSWER
        assert isinstance(result, ResultEvent)
        assert result.model == LocalBackend().model
        assert result.cost_usd == 0.0
        assert result.usage is not None
        assert result.usage.output_tokens > 0


def test_turns_beyond_the_slots_wait_and_are_answered_alike(askers: list[Any]) -> None:
    answers = ray.get(askers[0].ask_afresh.remote(QUESTION, 6))

    assert {text(events) for events in answers} == {ANSWER}


def test_an_image_is_refused_before_the_turn(askers: list[Any]) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}

    error = failure(ray.get(askers[0].ask.remote([{"role": "user", "content": [image]}])))

    assert error.verdict == "invalid"
    assert "takes no images" in error.message


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(askers: list[Any]) -> None:
    error = failure(ray.get(askers[0].ask.remote(TOO_LONG)))

    assert error.verdict == "invalid"
    assert error.error_type == "exceed_context_size_error"
    assert error.is_context_full
    assert re.search(r"\(3\d{3} tokens\) .* \(2048 tokens\)", error.message)


class Capital(pydantic.BaseModel):
    city: str
    country: Literal["France", "Italy"]


SCHEMA_OPTIONS = msgspec.structs.replace(OPTIONS, output_type=Capital, max_tokens=100)


def test_an_answer_has_the_type_that_it_must_have(askers: list[Any]) -> None:
    [events] = ray.get(askers[0].ask_with.remote(SCHEMA_OPTIONS, QUESTION))

    result = events[-1]
    assert isinstance(result, ResultEvent)
    assert Capital.model_validate_json(text(events)).country == "France"
    assert (result.stop_reason, result.model) == ("end_turn", LocalBackend().model)
    assert result.usage is not None
    assert result.usage.output_tokens > 0
    assert result.cost_usd == 0.0
    assert len(events) > 3, "the text is to arrive in pieces"


def test_typed_answers_have_a_conversation_too(askers: list[Any]) -> None:
    options = msgspec.structs.replace(SCHEMA_OPTIONS, messages=RECALLED)
    turns = ray.get(askers[0].ask_with.remote(options, "Which city did I name?", "Again?"))

    results = [events[-1] for events in turns]
    assert all(isinstance(result, ResultEvent) for result in results), results
    assert results[1].usage.input_tokens + results[1].usage.cache_read_tokens > (
        results[0].usage.input_tokens + results[0].usage.cache_read_tokens
    )


def test_a_typed_answer_that_is_cut_off_says_so(askers: list[Any]) -> None:
    options = msgspec.structs.replace(SCHEMA_OPTIONS, max_tokens=3)
    [events] = ray.get(askers[0].ask_with.remote(options, QUESTION))

    assert isinstance(events[-1], ResultEvent)
    assert events[-1].stop_reason == "max_tokens"


def test_a_prompt_that_is_too_long_for_a_typed_answer_is_refused_alike(
    askers: list[Any],
) -> None:
    [events] = ray.get(askers[0].ask_with.remote(SCHEMA_OPTIONS, TOO_LONG))

    error = failure(events)
    assert (error.verdict, error.is_context_full) == ("invalid", True)
    assert "LocalBackend(context_tokens=…)" in error.message


def test_tools_are_refused_with_what_to_use_instead(askers: list[Any]) -> None:
    options = msgspec.structs.replace(OPTIONS, tools=[text])
    [events] = ray.get(askers[0].ask_with.remote(options, QUESTION))

    error = failure(events)
    assert error.verdict == "fatal"
    assert "cannot call tools" in error.message
    assert "AnthropicBackend()" in error.message


def test_another_model_than_the_local_one_is_an_error(askers: list[Any]) -> None:
    async def ask() -> list[Event]:
        backend = LocalBackend()
        await backend.open()
        session = await backend.start(SessionOptions(model="claude-opus-5-5"))
        events = await collect(session, QUESTION)
        await backend.close()
        return events

    error = failure(asyncio.run(ask()))

    assert error.verdict == "fatal"
    assert "there is no 'claude-opus-5-5'" in error.message


class TestContract(BackendContract):
    failing = TOO_LONG
    sessions_side_by_side = 5
    options = SessionOptions(system="Be brief.", max_tokens=12)
    timeout = 240.0

    @pytest.fixture
    def backend(self, askers: list[Any]) -> Backend:
        return LocalBackend()


def test_a_server_that_stops_in_the_middle_of_an_answer_is_noticed(askers: list[Any]) -> None:
    _, pid = ray.get(askers[0].server.remote())
    start: Any = ray.remote(num_cpus=0)(Asker)
    impatient = start.remote(LocalBackend(idle_timeout=IDLE_SECONDS))

    error = failure(ray.get(impatient.ask_until_stopped.remote(STORY, pid)))
    os.kill(pid, signal.SIGCONT)
    again = ray.get(impatient.ask.remote(QUESTION))

    assert error.verdict == "transient"
    assert f"sent nothing for {IDLE_SECONDS:g} s in the middle of an answer" in error.message
    assert isinstance(again[-1], ResultEvent)
    ray.get(impatient.close.remote())


def test_a_server_that_is_killed_is_found_again_and_the_conversation_goes_on(
    askers: list[Any],
) -> None:
    lost, pid = ray.get(askers[0].server.remote())
    story = askers[0].ask.remote(STORY)
    time.sleep(0.3)

    os.kill(pid, signal.SIGKILL)
    error = failure(ray.get(story))
    again = ray.get(askers[0].ask.remote(QUESTION))
    found, _ = ray.get(askers[0].server.remote())

    assert error.verdict == "transient"
    assert isinstance(again[-1], ResultEvent)
    assert found.url != lost.url
    assert found.key != lost.key


def test_the_other_processes_find_the_new_server_too(askers: list[Any]) -> None:
    turns = [ray.get(askers[1].ask_afresh.remote(QUESTION, 1))[0] for _ in range(2)]

    assert text(turns[-1]) == ANSWER
    assert ray.get(askers[0].server.remote()) == ray.get(askers[1].server.remote())


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "text.gguf"
    file.write_text("not a model")

    with pytest.raises(PoolStartError, match=r"llama\.cpp cannot load .*text\.gguf"):
        asyncio.run(LocalBackend(file).open())


def test_without_ray_it_says_what_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    with pytest.raises(RuntimeError, match=r"call ray\.init\(\) first"):
        asyncio.run(LocalBackend().open())


def test_importing_the_backends_loads_neither_llama_nor_sdk() -> None:
    heavy = ("xllamacpp", "anthropic")
    program = f"import sys, raypool.backends; print([m for m in {heavy} if m in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert printed.stdout.strip() == b"[]"
