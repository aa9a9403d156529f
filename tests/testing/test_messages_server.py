"""The stand-in for the Messages API, spoken to with the official SDK and with bare HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import anthropic
import httpx2
import pytest
from aiohttp import web
from anthropic.types import Message

from raypool.testing import Answer, Call, Fault, MessagesServer
from raypool.testing.messages_faults import Exchange
from raypool.usage import Usage

KEY = "a-test-key"
BODY: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "one two three"}],
}
CACHED = {"type": "ephemeral"}
TEXT = {"type": "text", "text": "Yes."}
EMPTY = {"type": "text", "text": ""}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
CALL = {"type": "tool_use", "id": "t1", "name": "now", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "noon"}
TOOL = {"name": "now", "input_schema": {"type": "object"}}
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}
OPEN = {"type": "object", "additionalProperties": {"type": "integer"}}
BOUND = {**CLOSED, "properties": {"n": {"type": "integer", "minimum": 0}}}


def said(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


ASKED = said("user", {"type": "text", "text": "What time is it?"})


def client(server: MessagesServer) -> anthropic.Anthropic:
    """The official SDK; reading certificates would take longer than the test."""
    http = anthropic.DefaultHttpxClient(verify=False)
    return anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0, http_client=http)


def ask(server: MessagesServer, prompt: str = "one two three") -> Message:
    with client(server) as sdk:
        message: Message = sdk.messages.create(
            model="claude-haiku-5-5",
            max_tokens=10,
            messages=[{"role": "user", "content": prompt}],
        )
    return message


def post(
    server: MessagesServer,
    body: dict[str, Any] | None = None,
    *,
    path: str = "/v1/messages",
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
) -> httpx2.Response:
    """Bare HTTP: `BODY` with the fields of `body` in place of its own."""
    return httpx2.post(
        server.url + path,
        json=BODY | (body or {}),
        headers=headers,
        timeout=timeout,
        verify=False,
    )


class TestAnswers:
    def test_it_echoes_the_prompt_and_counts_words(self) -> None:
        with MessagesServer() as server:
            message = ask(server)

        assert message.content[0].to_dict() == {"type": "text", "text": "one two three"}
        assert message.stop_reason == "end_turn"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 3)

    def test_a_reply_may_depend_on_the_call(self) -> None:
        def reply(call: Call) -> str:
            return f"{call.number}: {call.prompt}"

        with MessagesServer(reply) as server:
            answers = [ask(server, prompt).content[0].to_dict() for prompt in ("one", "two")]

        assert [answer["text"] for answer in answers] == ["1: one", "2: two"]

    def test_a_stream_adds_up_to_the_same_message_as_json(self) -> None:
        answer = Answer(
            [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "text", "text": "So  it\ngoes. "},
                {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"n": [1, 2]}},
            ],
            stop_reason="tool_use",
            usage=Usage(5, 6, cache_read_tokens=7, cache_write_tokens=8),
        )
        messages: Any = BODY["messages"]
        with MessagesServer(answer) as server, client(server) as sdk:
            whole = sdk.messages.create(model="m", max_tokens=10, messages=messages)
            with sdk.messages.stream(model="m", max_tokens=10, messages=messages) as stream:
                streamed = stream.get_final_message()

        assert [block.to_dict() for block in whole.content] == answer.content
        assert [block.to_dict() for block in streamed.content] == answer.content
        assert streamed.stop_reason == whole.stop_reason == "tool_use"
        assert streamed.usage == whole.usage

    def test_tools_can_be_asked_for_by_name_and_input(self) -> None:
        answer = Answer("Wait.", tool_use=[("now", {}), ("look_up", {"city": "Paris"})])
        with MessagesServer(answer) as server:
            message = ask(server)

        assert [block.to_dict() for block in message.content] == [
            {"type": "text", "text": "Wait."},
            {"type": "tool_use", "id": "toolu_1_1", "name": "now", "input": {}},
            {"type": "tool_use", "id": "toolu_1_2", "name": "look_up", "input": {"city": "Paris"}},
        ]
        assert message.stop_reason == "tool_use"

    @pytest.mark.parametrize(
        "reason",
        ["max_tokens", "stop_sequence", "pause_turn", "refusal", "model_context_window_exceeded"],
    )
    def test_it_can_stop_for_any_reason(self, reason: str) -> None:
        with MessagesServer(Answer("So far", stop_reason=reason)) as server:
            assert ask(server).stop_reason == reason

    def test_it_counts_tokens(self) -> None:
        with MessagesServer() as server, client(server) as sdk:
            count = sdk.messages.count_tokens(
                model="m", system="Be brief.", messages=[{"role": "user", "content": "Hello?"}]
            )

        assert count.input_tokens == 3

    def test_it_lists_its_models(self) -> None:
        with MessagesServer(models=["one", "two"]) as server, client(server) as sdk:
            assert [model.id for model in sdk.models.list()] == ["one", "two"]

    def test_answers_carry_request_id_and_limits(self) -> None:
        with MessagesServer() as server:
            headers = post(server).headers

        assert headers["request-id"] == "req_1"
        for resource in ("requests", "input-tokens", "output-tokens"):
            for name in ("limit", "remaining", "reset"):
                assert headers[f"anthropic-ratelimit-{resource}-{name}"]


class TestRefusals:
    @pytest.mark.parametrize("header", ["authorization", "x-api-key"])
    def test_a_key_is_taken_in_either_header(self, header: str) -> None:
        value = f"Bearer {KEY}" if header == "authorization" else KEY
        with MessagesServer(api_key=KEY) as server:
            answer = post(server, headers={header: value})

        assert answer.status_code == 200

    @pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
    def test_a_wrong_key_gets_401(self, path: str) -> None:
        with MessagesServer(api_key=KEY) as server:
            answer = post(server, path=path)

        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"

    def test_an_unknown_model_gets_404(self) -> None:
        with MessagesServer(models=["one"]) as server:
            answer = post(server, {"model": "two"})

        assert answer.status_code == 404
        assert answer.json()["error"] == {"type": "not_found_error", "message": "model: two"}

    @pytest.mark.parametrize("missing", ["model", "max_tokens", "messages"])
    def test_a_request_without_a_required_field_gets_400(self, missing: str) -> None:
        with MessagesServer() as server:
            answer = post(server, {missing: None})

        assert answer.status_code == 400
        assert missing in answer.json()["error"]["message"]

    def test_a_request_that_is_not_json_gets_400(self) -> None:
        with MessagesServer() as server:
            answer = httpx2.post(f"{server.url}/v1/messages", content=b"{oops", verify=False)

        assert answer.status_code == 400

    def test_refused_requests_are_no_calls(self) -> None:
        with MessagesServer(api_key=KEY) as server:
            post(server)

            assert server.calls == []


class TestRules:
    @pytest.mark.parametrize(
        "body",
        [
            {"system": "Be brief."},
            {"system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}]},
            {"cache_control": CACHED},
            {"tools": [{"name": "now", "input_schema": {"type": "object"}}]},
            {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}},
            {"messages": [ASKED, said("assistant", CALL), said("user", RESULT)]},
            {"messages": [ASKED, ASKED]},
        ],
        ids=lambda body: next(iter(body)),
    )
    def test_what_the_api_takes_is_taken(self, body: dict[str, Any]) -> None:
        with MessagesServer("Yes.") as server:
            assert post(server, body).status_code == 200

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"response_format": {}}, "response_format: Extra inputs are not permitted"),
            ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks must be"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be"),
            ({"messages": [said("user")]}, "messages.0: all messages must have non-empty content"),
            ({"messages": [ASKED, said("assistant", EMPTY), ASKED]}, "messages.1: text content"),
            ({"messages": [ASKED, said("assistant", THOUGHT), ASKED]}, "cannot be `thinking`"),
            ({"messages": [said("assistant", CALL)]}, 'must use the "user" role'),
            ({"messages": [ASKED, said("assistant", CALL), ASKED]}, "without `tool_result` blocks"),
            ({"messages": [ASKED, said("assistant", CALL)]}, "without `tool_result` blocks"),
            ({"messages": [ASKED, said("user", RESULT)]}, "unexpected `tool_use_id`"),
            (
                {"messages": [ASKED, said("assistant", CALL, CALL), said("user", RESULT)]},
                "ids must be unique",
            ),
            ({"tools": [{"name": "now"}]}, "tools.0.custom.input_schema.type: Field required"),
            ({"tools": [TOOL, TOOL]}, "Tool names must be unique"),
            ({"system": [{**TEXT, "cache_control": CACHED}] * 5}, "A maximum of 4 blocks"),
            ({"output_config": {"format": {"type": "json_schema"}}}, "format.schema: Field"),
            (
                {"output_config": {"format": {"type": "json_schema", "schema": OPEN}}},
                "'additionalProperties' must be explicitly set to false",
            ),
            (
                {"output_config": {"format": {"type": "json_schema", "schema": BOUND}}},
                "For 'integer' type, property 'minimum' is not supported",
            ),
        ],
        ids=lambda value: value[:24] if isinstance(value, str) else "",
    )
    def test_what_the_api_refuses_gets_400(self, body: dict[str, Any], words: str) -> None:
        with MessagesServer() as server:
            answer = post(server, body)

            assert server.calls == []
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert words in answer.json()["error"]["message"]

    def test_a_request_beyond_the_context_is_too_long(self) -> None:
        with MessagesServer(context_words=3) as server:
            taken, refused = post(server), post(server, {"system": "Be brief."})

        assert taken.status_code == 200
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == "prompt is too long: 5 tokens > 3 maximum"


class TestCache:
    def test_what_is_marked_is_written_once_and_read_when_it_comes_again(self) -> None:
        system = [{"type": "text", "text": "word " * 9, "cache_control": CACHED}]
        with MessagesServer("Yes.", least_cached_words=9) as server:
            usages = [post(server, {"system": system}).json()["usage"] for _ in range(2)]

        counts = [list(usage.values()) for usage in usages]
        assert counts == [[3, 1, 0, 9], [3, 1, 9, 0]]

    def test_a_conversation_is_found_again_up_to_what_is_new(self) -> None:
        first = said("user", {"type": "text", "text": "one two three"})
        longer = [first, said("assistant", TEXT), said("user", TEXT)]
        with MessagesServer("Yes.", least_cached_words=1) as server:
            bodies = [{"messages": [first]}, {"messages": longer}]
            usages = [
                post(server, {**body, "cache_control": CACHED}).json()["usage"] for body in bodies
            ]

        assert list(usages[1].values()) == [0, 1, 3, 2]

    def test_a_short_beginning_and_one_without_a_mark_are_not_kept(self) -> None:
        with MessagesServer("Yes.", least_cached_words=4) as server:
            bodies: list[dict[str, Any]] = [{"cache_control": CACHED}, {"system": "word " * 9}]
            usages = [post(server, body).json()["usage"] for body in bodies * 2]

        assert [list(usage.values())[2:] for usage in usages] == [[0, 0]] * 4


class TestFaults:
    def test_they_are_played_in_order_and_then_all_is_well(self) -> None:
        with MessagesServer(faults=[Fault.overloaded(), None, Fault.status(500)]) as server:
            statuses = [post(server).status_code for _ in range(5)]

        assert statuses == [529, 200, 500, 200, 200]

    def test_a_function_decides_for_each_call(self) -> None:
        def choose(call: Call) -> Fault | None:
            return Fault.overloaded() if "two" in call.prompt else None

        with MessagesServer(faults=choose) as server:
            post(server)
            answers = [
                post(server, {"messages": [{"role": "user", "content": text}]}).status_code
                for text in ("one", "two", "two", "three")
            ]

        assert answers == [200, 529, 529, 200]

    def test_a_status_has_the_apis_error_body_and_headers(self) -> None:
        fault = Fault.status(
            429, error_code="ramp_limit_exceeded", message="Slowly!", retry_after_ms=20
        )
        with MessagesServer(faults=[fault]) as server:
            answer = post(server)

        assert answer.headers["retry-after-ms"] == "20"
        assert answer.json() == {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "Slowly!",
                "details": {"error_code": "ramp_limit_exceeded"},
            },
            "request_id": "req_1",
        }

    @pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "json"])
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault.hang(), httpx2.ReadTimeout),
            (Fault.stall(1), httpx2.ReadTimeout),
            (Fault.reset(), httpx2.ReadError),
            (Fault.disconnect(), httpx2.RemoteProtocolError),
            (Fault.cut(1), httpx2.RemoteProtocolError),
        ],
        ids=repr,
    )
    def test_a_broken_connection_is_broken_for_any_client(
        self, fault: Fault, error: type[Exception], is_stream: bool
    ) -> None:
        with MessagesServer(faults=[fault]) as server, pytest.raises(error):
            httpx2.post(f"{server.url}/v1/messages", json=BODY | {"stream": is_stream}, timeout=0.3)

    @pytest.mark.parametrize(
        ("fault", "body"),
        [
            (Fault.garbage(), '{"oops'),
            (Fault.empty(), ""),
            (Fault.html(), "<html><body>Welcome</body></html>"),
            (Fault.body("{}"), "{}"),
        ],
        ids=repr,
    )
    def test_a_body_comes_as_it_stands(self, fault: Fault, body: str) -> None:
        with MessagesServer(faults=[fault]) as server:
            answer = post(server)

        assert (answer.status_code, answer.text) == (200, body)

    def test_one_fault_can_be_played_again_and_again(self) -> None:
        with MessagesServer(faults=[Fault.overloaded()] * 3) as server:
            assert [post(server).status_code for _ in range(3)] == [529] * 3

    def test_a_stream_is_interrupted_after_as_many_events_as_asked(self) -> None:
        faults = [Fault.truncated(4), Fault.error_event("api_error", after=2)]
        with MessagesServer(faults=faults) as server:
            kinds = [
                [
                    line[7:]
                    for line in post(server, {"stream": True}).text.split("\n")
                    if "event: " in line
                ]
                for _ in faults
            ]

        assert kinds == [
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_delta",
            ],
            ["message_start", "content_block_start", "error"],
        ]

    def test_nobody_listens_while_it_is_unreachable(self) -> None:
        with MessagesServer() as server, httpx2.Client(verify=False, trust_env=False) as http:
            url = f"{server.url}/v1/messages"
            assert http.post(url, json=BODY).status_code == 200

            with server.unreachable():
                for _ in range(2):
                    with pytest.raises(httpx2.TransportError):
                        http.post(url, json=BODY)
                with pytest.raises(httpx2.ConnectError):
                    httpx2.post(url, json=BODY, verify=False)

            assert http.post(url, json=BODY).status_code == 200


class TestWatching:
    def test_calls_have_headers_and_body(self) -> None:
        with MessagesServer() as server:
            post(server, headers={"X-Team": "blue"})
            [call] = server.calls

        assert call.number == 1
        assert call.headers["x-team"] == "blue"
        assert call.body == json.loads(json.dumps(BODY))
        assert (call.prompt, call.conversation) == ("one two three", "one two three")

    def test_many_requests_at_once_are_counted(self) -> None:
        count = 60
        all_are_here = asyncio.Event()

        async def wait_for_all(exchange: Exchange) -> web.StreamResponse:
            if exchange.call.number == count:
                all_are_here.set()
            await all_are_here.wait()
            return await exchange.begin()

        async def ask_all(url: str) -> list[int]:
            async with httpx2.AsyncClient(limits=httpx2.Limits(), timeout=30, verify=False) as http:
                requests = [http.post(f"{url}/v1/messages", json=BODY) for _ in range(count)]
                return [answer.status_code for answer in await asyncio.gather(*requests)]

        with MessagesServer(faults=[Fault("wait", wait_for_all)] * count) as server:
            statuses = asyncio.run(ask_all(server.url))
            server.wait_until_idle()

            assert server.peak_in_flight == count
            assert server.connections == count
        assert statuses == [200] * count

    def test_waiting_for_calls_that_do_not_come_says_so(self) -> None:
        with (
            MessagesServer() as server,
            pytest.raises(TimeoutError, match="2 requests: 0 have arrived"),
        ):
            server.wait_for_calls(2, timeout=0.01)

    def test_a_client_that_goes_away_ends_its_request(self) -> None:
        with MessagesServer(faults=[Fault.hang()]) as server:
            with pytest.raises(httpx2.ReadTimeout):
                post(server, timeout=0.1)

            server.wait_until_idle()

            assert server.peak_in_flight == 1


class TestEnding:
    def test_it_ends_at_once_though_requests_hang(self) -> None:
        ends: list[str] = []

        def hang(server: MessagesServer) -> None:
            try:
                post(server)
            except httpx2.TransportError as error:
                ends.append(type(error).__name__)

        with MessagesServer(faults=[Fault.hang(), Fault.stall()]) as server:
            threads = [threading.Thread(target=hang, args=[server]) for _ in range(2)]
            for thread in threads:
                thread.start()
            server.wait_for_calls(2)
        for thread in threads:
            thread.join()

        assert len(ends) == 2
        assert "ReadTimeout" not in ends

    def test_its_port_is_free_afterwards(self) -> None:
        with MessagesServer() as server:
            url = server.url

        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/v1/models", verify=False)
