"""`/v1/messages` over a scripted engine: what reaches the model, what comes back, what is refused."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.serve.conversation.test_answer_reader import HERMES_NOW, HERMES_PARIS, NOW, PARIS
from tests.serve.dialects import TEMPLATES

from rockledge.model.chat import ChatTemplate
from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.engine import Engine
from rockledge.synth import synth_artifact

HELLO = [{"role": "user", "content": "Hi"}]
TOOLS = [
    {"name": "weather", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
    {"name": "time", "description": "What time it is", "input_schema": {"type": "object"}, "type": "custom"},
]


class Asked:
    """A server whose model has Qwen's template, and answers with a script."""

    def __init__(self, url: str, engine: Any) -> None:
        self.engine = engine
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=20)

    def post(
        self, script: str = "Hello, world", *, path: str = "/v1/messages", cached: int = 0, **body: Any
    ) -> httpx.Response:
        self.engine.reset()
        self.engine.script, self.engine.cached = script, cached
        return self._http.post(path, json={"messages": HELLO, "max_tokens": 200, **body})

    def whole(self, script: str = "Hello, world", **body: Any) -> dict[str, Any]:
        answer = self.post(script, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def events(self, script: str = "Hello, world", **body: Any) -> list[dict[str, Any]]:
        answer = self.post(script, stream=True, **body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return read_events(answer.text)

    @property
    def prompt(self) -> str:
        return bytes(token for token in self.engine.requests[-1].prompt if token < 256).decode()


@pytest.fixture(scope="module")
def ask(start_server: Callable[..., str], shared: Any) -> Asked:
    chat = ChatTemplate(TEMPLATES["qwen"], {"bos_token": "<s>", "eos_token": "</s>"})
    return Asked(start_server(shared[0], chat=chat, context=4096), shared[0])


def read_events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of a stream, as Anthropic documents it."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    still_open: int | None = None
    for event in events:
        kind = event["type"]
        if kind == "message_start":
            assert not message
            message = event["message"]
        elif kind == "content_block_start":
            assert still_open is None
            still_open = event["index"]
            assert still_open == len(message["content"])
            message["content"].append(event["content_block"])
        elif kind == "content_block_delta":
            assert event["index"] == still_open
            block, delta = message["content"][-1], dict(event["delta"])
            kind = delta.pop("type")
            [(name, value)] = delta.items()
            assert kind == {"partial_json": "input_json"}.get(name, name) + "_delta"
            if name == "partial_json":
                inputs[still_open] = inputs.get(still_open, "") + value
                block["input"] = json.loads(inputs[still_open])
            else:
                block[name] += value
        elif kind == "content_block_stop":
            assert event["index"] == still_open
            still_open = None
        elif kind == "message_delta":
            assert still_open is None
            message |= event["delta"]
            message["usage"] |= event["usage"]
        else:
            assert kind in ("ping", "message_stop")
    assert events[-1]["type"] == "message_stop"
    return message


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """Without what is new in every answer."""
    content = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    return {**message, "id": "", "content": content}


def test_a_message(ask: Asked) -> None:
    found = ask.whole(system="Be brief", cached=7)
    assert ask.prompt == (
        "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert found["id"].startswith("msg_")
    assert plain(found) == {
        "id": "",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": "Hello, world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(ask.prompt) - 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 7,
            "output_tokens": len("Hello, world"),
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


@pytest.mark.parametrize(
    "script, kinds, reason",
    [
        ("Hello", ["text"], "end_turn"),
        (f"Yes:\n{HERMES_PARIS}\n{HERMES_NOW}", ["text", "tool_use", "tool_use"], "tool_use"),
        (f"<think>\nHm, so\n</think>\n\n{HERMES_NOW}", ["thinking", "tool_use"], "tool_use"),
        ("<think>Hm</think>Well", ["thinking", "text"], "end_turn"),
        (f"{HERMES_NOW} and", ["tool_use", "text"], "tool_use"),
        ("<tool_call>{]</tool_call>", ["text"], "end_turn"),
        ("", [], "end_turn"),
        ("x" * 300, ["text"], "max_tokens"),
    ],
)
def test_a_stream_builds_the_message(ask: Asked, script: str, kinds: list[str], reason: str) -> None:
    whole = ask.whole(script, tools=TOOLS)
    assert [block["type"] for block in whole["content"]] == kinds
    assert whole["stop_reason"] == reason
    events = ask.events(script, tools=TOOLS)
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert plain(assembled(events)) == plain(whole)


def test_the_order_of_events(ask: Asked) -> None:
    events = ask.events(f"<think>Hm</think>Yes\n{HERMES_PARIS}", tools=TOOLS)
    kinds = [
        event["delta"].get("type", event["type"]) if "delta" in event else event["type"] for event in events
    ]
    assert [kind for number, kind in enumerate(kinds) if kind != kinds[number - 1]] == [
        "message_start",
        "ping",
        "content_block_start",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
        "text_delta",
        "content_block_stop",
        "content_block_start",
        "input_json_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_turns_are_messages_of_the_template(ask: Asked) -> None:
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Both"}, {"type": "text", "text": "!"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Yes"},
                {"type": "tool_use", "id": "a", "name": "time", "input": {}},
                {"type": "tool_use", "id": "b", "name": "weather", "input": PARIS[1]},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "noon"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [{"type": "text", "text": "no such place"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
            ],
        },
        {"role": "user", "content": "Well?"},
    ]
    ask.whole(
        messages=turns,
        tools=TOOLS,
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "kind"}],
    )
    assert ask.prompt.startswith("<|im_start|>system\nBe kind\n\n<tools>")
    assert f"<|im_start|>assistant\nYes\n{HERMES_NOW}\n{HERMES_PARIS}<|im_end|>" in ask.prompt
    assert "<|im_start|>user\nBoth!<|im_end|>" in ask.prompt
    assert "<tool_response>\nnoon\n</tool_response>" in ask.prompt
    assert "<tool_response>\nError: no such place\n</tool_response>" in ask.prompt
    assert "<|im_start|>user\nAnd?\n\nWell?<|im_end|>" in ask.prompt
    assert "Hm" not in ask.prompt  # the template leaves earlier thoughts out
    assert '"description": "What time it is"' in ask.prompt
    assert "cache_control" not in ask.prompt


def test_a_last_turn_of_the_assistant_is_continued(ask: Asked) -> None:
    begun = {"role": "assistant", "content": "The answer is ("}
    found = ask.whole("B)", messages=[*HELLO, begun])
    assert ask.prompt.endswith("<|im_start|>assistant\nThe answer is (")
    assert found["content"] == [{"type": "text", "text": "B)"}]


def test_a_message_can_be_sent_back(ask: Asked) -> None:
    found = ask.whole(f"<think>Hm</think>Let me see\n{HERMES_NOW}", tools=TOOLS)
    [_, _, call] = found["content"]
    assert (call["name"], call["input"]) == NOW
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "noon"}
    turns = [
        *HELLO,
        {"role": "assistant", "content": found["content"]},
        {"role": "user", "content": [result]},
    ]
    ask.whole("It is noon", messages=turns, tools=TOOLS)
    assert f"<|im_start|>assistant\nLet me see\n\n{HERMES_NOW}<|im_end|>" in ask.prompt


def test_strict_servers_take_what_the_api_has(start_server: Callable[..., str], ask: Asked) -> None:
    strict = Asked(
        start_server(ask.engine, strict=True, chat=ChatTemplate(TEMPLATES["qwen"], {}), context=4096),
        ask.engine,
    )
    found = strict.whole(f"<think>Hm</think>Let me see\n{HERMES_NOW}", tools=TOOLS)
    result = {"type": "tool_result", "tool_use_id": found["content"][2]["id"], "content": "noon"}
    turns = [
        *HELLO,
        {"role": "assistant", "content": found["content"]},
        {"role": "user", "content": [result]},
    ]
    strict.whole("It is noon", messages=turns, tools=TOOLS)
    for odd in (
        {"max_tokens": -1},
        {"messages": [{**HELLO[0], "odd": 1}]},
        {"tools": [{**TOOLS[0], "odd": 1}]},
    ):
        assert strict.post(**odd).status_code == 400


def test_choices_of_tools(ask: Asked) -> None:
    call = json.dumps([{"name": "time", "arguments": {}}])
    for choice in ({"type": "any"}, {"type": "tool", "name": "time"}):
        found = ask.whole(call, tools=TOOLS, tool_choice=choice)
        assert [block["name"] for block in found["content"]] == ["time"]
        assert ask.engine.requests[-1].constraint is not None
    one = {"type": "auto", "disable_parallel_tool_use": True}
    found = ask.whole(f"{HERMES_PARIS}\n{HERMES_NOW}", tools=TOOLS, tool_choice=one)
    assert [block["name"] for block in found["content"]] == ["weather"]
    ask.whole(call, tools=TOOLS, tool_choice={"type": "none"})
    assert "weather" not in ask.prompt


def test_thinking_reaches_the_template(ask: Asked) -> None:
    off = "<think>\n\n</think>\n\n"
    ask.whole(thinking={"type": "disabled"})
    assert ask.prompt.endswith(off)
    for thinking in ({"type": "enabled", "budget_tokens": 100}, {"type": "adaptive"}):
        ask.whole(thinking=thinking)
        assert not ask.prompt.endswith(off)
    hidden = {"type": "adaptive", "display": "omitted"}
    found = ask.whole("<think>Hm</think>Well", thinking=hidden)
    assert [block.get("thinking") for block in found["content"]] == ["", None]
    assert plain(assembled(ask.events("<think>Hm</think>Well", thinking=hidden))) == plain(found)


def test_a_form_is_a_constraint(ask: Asked) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    ask.whole("{}", output_config={"format": {"type": "json_schema", "schema": schema}, "effort": "low"})
    assert ask.engine.requests[-1].constraint == Constraint("json_schema", json.dumps(schema))
    form = {"type": "json_schema", "schema": schema}
    ask.whole("{}", output_format=form)
    assert ask.engine.requests[-1].constraint == Constraint("json_schema", json.dumps(schema))
    call = json.dumps([{"name": "time", "arguments": {}}])
    found = ask.whole(call, output_format=form, tools=TOOLS, tool_choice={"type": "any"})
    assert [block["type"] for block in found["content"]] == ["tool_use"]


def test_the_prompt_is_counted(ask: Asked) -> None:
    asked = {"system": "Be brief", "tools": TOOLS}
    ask.whole(**asked)
    counted = ask._http.post("/v1/messages/count_tokens", json={"messages": HELLO, **asked})
    assert counted.json() == {"input_tokens": len(ask.prompt)}


def text_turn(*blocks: Any, role: str = "user") -> Any:
    return {"messages": [*HELLO, {"role": role, "content": list(blocks)}]}


USE = {"type": "tool_use", "id": "a", "name": "time", "input": {}}


@pytest.mark.parametrize(
    "body, named",
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": ["Hi"]}, "messages[0]"),
        (text_turn({"type": "image", "source": {}}), "messages[1].content[0].type"),
        (text_turn({"type": "document", "source": {}}), "messages[1].content[0].type"),
        (text_turn({"type": "text"}), "messages[1].content[0].text"),
        (text_turn("x"), "messages[1].content[0]"),
        (text_turn(USE), "messages[1].content[0].type"),
        (text_turn({**USE, "input": "x"}, role="assistant"), "messages[1].content[0].input"),
        (text_turn(USE, role="assistant"), "messages[1]"),
        (text_turn({"type": "tool_result", "content": "x"}), "messages[1].content[0].tool_use_id"),
        (
            text_turn({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}),
            "messages[1].content[0].content",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f", "input_schema": {"type": "string"}}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool"}, "tools": TOOLS}, "tool_choice.name"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": {"type": "auto", "name": "time"}, "tools": TOOLS}, "tool_choice.name"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 200}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "disabled", "budget_tokens": 20}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled"}, "tool_choice": {"type": "any"}, "tools": TOOLS}, "thinking.type"),
        ({"output_config": {"effort": "endless"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
        ({"container": "x"}, "container"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"output_format": {"type": "text"}}, "output_format.type"),
        ({"output_format": {"type": "x"}, "output_config": {"format": {"type": "x"}}}, "output_format"),
        ({"context_management": {"edits": [{}]}}, "context_management"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"n": 2}, "n"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(ask: Asked, body: Any, named: str) -> None:
    answer = ask.post(**body)
    assert answer.status_code == 400, answer.text
    found = answer.json()
    assert (found["type"], found["error"]["type"]) == ("error", "invalid_request_error")
    assert f"'{named}'" in found["error"]["message"], found


def test_what_changes_nothing_is_taken(ask: Asked) -> None:
    ask.whole(
        metadata={"user_id": "me"},
        service_tier="auto",
        mcp_servers=[],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        tool_choice={"type": "auto"},
        temperature=0.5,
        top_k=5,
        top_p=0.9,
        cache_control={"type": "ephemeral"},
        seed=4,
    )
    sampling = ask.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed) == (0.5, 5, 0.9, 4)


def test_failures_have_anthropics_types_and_words(ask: Asked) -> None:
    missing = ask.post(model="claude")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    ask.whole()
    besides = len(ask.prompt) - len("Hi")
    long = ask.post(messages=[{"role": "user", "content": "x" * (4096 - besides)}])
    assert long.status_code == 400
    assert long.json()["error"]["message"] == "prompt is too long: 4096 tokens > 4095 maximum"
    longer = ask.post(messages=[{"role": "user", "content": "x" * 5000}]).json()["error"]["message"]
    assert longer.startswith("prompt is too long: ")
    assert longer.endswith(f"{5000 + besides} tokens > 4095 maximum")
    ask.engine.reset()
    ask.engine.fail_after = 3
    body = {"messages": HELLO, "max_tokens": 20}
    answer = ask._http.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "api_error")
    *_, last = read_events(ask._http.post("/v1/messages", json={**body, "stream": True}).text)
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[..., str]) -> Iterator[str]:
    """A server over a real engine with a random toy model."""
    path = synth_artifact("toy", tmp_path_factory.mktemp("models") / "toy", seed=11)
    with Engine.load(path, threads=1) as engine:
        yield start_server(engine)


def test_the_stop_sequence_is_returned(toy: str) -> None:
    body = {"messages": HELLO, "max_tokens": 24, "temperature": 1, "seed": 3}
    whole = httpx.post(f"{toy}/v1/messages", json=body, timeout=30).json()
    text = whole["content"][0]["text"]
    middle = text[len(text) // 2 :][:3]
    assert text.index(middle) > 0
    body |= {"stop_sequences": ["never to be seen", middle]}
    found = httpx.post(f"{toy}/v1/messages", json=body, timeout=30).json()
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", middle)
    assert found["content"][0]["text"] == text[: text.index(middle)]
    events = read_events(httpx.post(f"{toy}/v1/messages", json={**body, "stream": True}, timeout=30).text)
    assert assembled(events)["stop_sequence"] == middle
