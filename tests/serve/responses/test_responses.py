"""`/v1/responses` over a scripted engine: what reaches the model, what comes back, what is refused.

What comes back is held against the types of the `openai` package, which are made from OpenAI's own document.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.serve.conversation.test_answer_reader import HERMES_NOW, HERMES_PARIS, NOW, PARIS
from tests.serve.dialects import TEMPLATES

from rockledge.model.chat import ChatTemplate
from rockledge.runtime.constraints.constraint import Constraint

TOOLS = [
    {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False},
    {"type": "function", "name": "time", "description": "What time it is", "parameters": None},
]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Asked:
    """A server whose model has Qwen's template, and answers with a script."""

    def __init__(self, url: str, engine: Any) -> None:
        self.engine = engine
        self._http = httpx.Client(base_url=url, timeout=20)

    def post(
        self, script: str = "Hello, world", *, path: str = "/v1/responses", raw: str = "", **body: Any
    ) -> httpx.Response:
        self.engine.reset()
        self.engine.script = script
        if raw:
            return self._http.post(path, content=raw)
        return self._http.post(path, json={"input": "Hi", **body})

    def whole(self, script: str = "Hello, world", **body: Any) -> dict[str, Any]:
        answer = self.post(script, **body)
        assert answer.status_code == 200, answer.text
        Response.model_validate(answer.json())
        found: dict[str, Any] = answer.json()
        return found

    def events(self, script: str = "Hello, world", **body: Any) -> list[dict[str, Any]]:
        answer = self.post(script, stream=True, **body)
        assert answer.status_code == 200, answer.text
        found = []
        for block in answer.text.removesuffix("\n\n").split("\n\n"):
            name, data = block.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            EVENT.validate_python(event)
            found.append(event)
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        return found

    @property
    def prompt(self) -> str:
        return bytes(token for token in self.engine.requests[-1].prompt if token < 256).decode()


@pytest.fixture(scope="module")
def ask(start_server: Callable[..., str], shared: Any) -> Asked:
    chat = ChatTemplate(TEMPLATES["qwen"], {"bos_token": "<s>", "eos_token": "</s>"})
    return Asked(start_server(shared[0], chat=chat, context=4096), shared[0])


def plain(value: Any) -> Any:
    """Without what is new in every answer."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        changing = ("id", "item_id", "call_id", "created_at", "completed_at")
        return {key: plain(item) for key, item in value.items() if key not in changing}
    return value


def test_a_string_is_a_message_and_text_comes_back(ask: Asked) -> None:
    found = ask.whole(instructions="Be brief")
    assert ask.prompt.endswith(
        "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (found["object"], found["status"], found["store"]) == ("response", "completed", False)
    [item] = found["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    part = {"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []}
    assert item["content"] == [part]
    assert found["usage"]["output_tokens"] == len("Hello, world")
    assert found["usage"]["total_tokens"] == found["usage"]["input_tokens"] + len("Hello, world")


def test_fields_of_the_request_come_back(ask: Asked) -> None:
    asked = {
        "instructions": "Be brief",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "temperature": 0.25,
        "top_p": 0.5,
        "tool_choice": "auto",
        "truncation": "disabled",
    }
    found = ask.whole(**asked, tools=TOOLS, text={"format": {"type": "json_object"}})
    assert {key: found[key] for key in asked} == asked
    assert [tool["name"] for tool in found["tools"]] == ["weather", "time"]
    assert found["text"]["format"] == {"type": "json_object"}


def test_items_are_messages_of_the_template(ask: Asked) -> None:
    items = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "Both"}, {"type": "input_text", "text": "!"}],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Yes", "annotations": []}],
        },
        {"type": "function_call", "call_id": "a", "name": "time", "arguments": "{}", "id": "fc_1"},
        {"type": "function_call", "call_id": "b", "name": "weather", "arguments": json.dumps(PARIS[1])},
        {"type": "function_call_output", "call_id": "a", "output": "noon"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "mild"}]},
        {"role": "user", "content": "And?"},
    ]
    ask.whole(input=items, tools=TOOLS)
    calls = f"\n{HERMES_NOW}\n{HERMES_PARIS}"
    assert f"<|im_start|>assistant\nYes{calls}<|im_end|>" in ask.prompt
    assert "<|im_start|>user\nBoth!<|im_end|>" in ask.prompt
    assert "Hm" not in ask.prompt  # the template leaves earlier thoughts out
    results = ask.prompt.index("<tool_response>\nnoon"), ask.prompt.index("<tool_response>\nmild")
    assert results == tuple(sorted(results))
    assert '"description": "What time it is"' in ask.prompt


@pytest.mark.parametrize(
    "script, kinds, texts",
    [
        ("Hello", ["message"], ["Hello"]),
        (f"Yes:\n{HERMES_PARIS}\n{HERMES_NOW}", ["message", "function_call", "function_call"], ["Yes:\n"]),
        (f"<think>\nHm, so\n</think>\n\n{HERMES_NOW}", ["reasoning", "function_call"], []),
        ("<think>Hm</think>Well", ["reasoning", "message"], ["Well"]),
        (f"{HERMES_NOW} and", ["function_call", "message"], [" and"]),
        ("<tool_call>{]</tool_call>", ["message"], ["<tool_call>{]</tool_call>"]),
        ("", [], []),
    ],
)
def test_a_stream_builds_the_answer(ask: Asked, script: str, kinds: list[str], texts: list[str]) -> None:
    whole = ask.whole(script, tools=TOOLS)
    assert [item["type"] for item in whole["output"]] == kinds
    assert [item["content"][0]["text"] for item in whole["output"] if item["type"] == "message"] == texts
    events = ask.events(script, tools=TOOLS)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    assert events[0]["response"]["output"] == []
    assert plain(events[-1]["response"]) == plain(whole)
    built: list[dict[str, Any]] = []
    for event in events[2:-1]:
        build(event, built)
    assert built == events[-1]["response"]["output"]


def build(event: dict[str, Any], items: list[dict[str, Any]]) -> None:
    """What a client does with an event between the first two and the last."""
    kind = event["type"].removeprefix("response.")
    if kind == "output_item.added":
        assert event["output_index"] == len(items)
        items.append(event["item"])
        return
    item = items[event["output_index"]]
    if kind == "output_item.done":
        # All but the status came before.
        assert event["item"] == {**item, "status": event["item"]["status"]}
        item["status"] = event["item"]["status"]
        return
    assert event["item_id"] == item["id"]
    if kind.startswith("function_call_arguments"):
        if kind.endswith("delta"):
            item["arguments"] += event["delta"]
        assert event.get("arguments", item["arguments"]) == item["arguments"]
    elif kind == "content_part.added":
        assert event["content_index"] == len(item["content"]) == 0
        item["content"].append(event["part"])
    elif kind.endswith("text.delta"):
        item["content"][0]["text"] += event["delta"]
        if "logprobs" in event:
            item["content"][0]["logprobs"] += event["logprobs"]
    elif kind.endswith("text.done"):
        assert event["text"] == item["content"][0]["text"]
    else:
        assert kind == "content_part.done"
        assert event["part"] == item["content"][0]


def test_the_order_of_events(ask: Asked) -> None:
    events = ask.events(f"<think>Hm</think>Yes\n{HERMES_PARIS}", tools=TOOLS)
    kinds = [event["type"].removeprefix("response.") for event in events]
    once = [kind for number, kind in enumerate(kinds) if kind != kinds[number - 1]]
    assert once == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_calls_have_names_arguments_and_ids(ask: Asked) -> None:
    first, second = ask.whole(f"{HERMES_PARIS}\n{HERMES_NOW}", tools=TOOLS)["output"]
    assert [(call["name"], json.loads(call["arguments"])) for call in (first, second)] == [PARIS, NOW]
    assert first["call_id"] != second["call_id"]
    [only] = ask.whole(f"{HERMES_PARIS}\n{HERMES_NOW}", tools=TOOLS, parallel_tool_calls=False)["output"]
    assert only["name"] == PARIS[0]


def test_strict_servers_take_what_the_api_has(start_server: Callable[..., str], ask: Asked) -> None:
    chat = ChatTemplate(TEMPLATES["qwen"], {})
    strict = Asked(start_server(ask.engine, strict=True, chat=chat, context=4096), ask.engine)
    found = strict.whole(f"<think>Hm</think>Let me see\n{HERMES_NOW}", tools=TOOLS)
    result = {"type": "function_call_output", "call_id": found["output"][2]["call_id"], "output": "noon"}
    items = [{"role": "user", "content": "Hi"}, *found["output"], result]
    strict.whole("It is noon", input=items, tools=TOOLS)
    for odd in ({"max_output_tokens": -1}, {"input": [{**items[0], "odd": 1}]}):
        assert strict.post(**odd).status_code == 400


def test_a_cut_answer_is_incomplete(ask: Asked) -> None:
    found = ask.whole(max_output_tokens=5)
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert found["output"][0]["status"] == "incomplete"
    assert found["output"][0]["content"][0]["text"] == "Hello"
    *_, done, last = ask.events(max_output_tokens=5)
    assert done["item"]["status"] == "incomplete"
    assert last["type"] == "response.incomplete"
    assert plain(last["response"]) == plain(found)


@pytest.mark.parametrize("script", ["Hello", f"<think>Hm</think>Yes\n{HERMES_PARIS}", "a <tool_call> b"])
def test_scores_are_those_of_the_text(ask: Asked, script: str) -> None:
    scored = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "tools": TOOLS}
    found = ask.whole(script, **scored)
    [message] = [item for item in found["output"] if item["type"] == "message"]
    [part] = message["content"]
    tokens = [entry["token"] for entry in part["logprobs"]]
    assert "".join(tokens).startswith(part["text"])
    assert "Hm" not in "".join(tokens)
    assert "weather" not in "".join(tokens)
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    events = ask.events(script, **scored)
    deltas = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    assert [entry for delta in deltas for entry in delta] == part["logprobs"]


def test_thoughts_are_counted(ask: Asked) -> None:
    used = ask.whole("<think>Hm, so</think>Well")["usage"]
    assert used["output_tokens"] == len("<think>Hm, so</think>Well")
    assert len("Hm, so") <= used["output_tokens_details"]["reasoning_tokens"] <= len("<think>Hm, so</think>")
    assert ask.whole("Well")["usage"]["output_tokens_details"]["reasoning_tokens"] == 0


def test_effort_reaches_the_template(ask: Asked) -> None:
    ask.whole(reasoning={"effort": "none", "summary": "auto"})
    assert ask.prompt.endswith("<think>\n\n</think>\n\n")


def test_a_form_is_a_constraint(ask: Asked) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    found = ask.whole('{"a": 1}', text={"format": form, "verbosity": "medium"})
    assert found["text"] == {"format": form, "verbosity": "medium"}
    assert ask.engine.requests[-1].constraint == Constraint("json_schema", json.dumps(schema))
    ask.whole("{}", text={"format": {"type": "json_object"}})
    assert ask.engine.requests[-1].constraint == Constraint("json")


def test_choices_of_tools(ask: Asked) -> None:
    call = json.dumps([{"name": "time", "arguments": {}}])
    for choice in ("required", {"type": "function", "name": "time"}):
        found = ask.whole(call, tools=TOOLS, tool_choice=choice)
        assert [item["name"] for item in found["output"]] == ["time"]
        assert ask.engine.requests[-1].constraint is not None
        assert found["tool_choice"] == choice
    form = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    found = ask.whole(call, tools=TOOLS, tool_choice="required", text=form)
    assert [item["name"] for item in found["output"]] == ["time"]  # of text there is none
    assert '"items"' in ask.engine.requests[-1].constraint.text
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]}
    found = ask.whole(f"{HERMES_PARIS}\n{HERMES_NOW}", tools=TOOLS, tool_choice=allowed)
    assert [item["type"] for item in found["output"]] == ["message", "function_call"]
    assert '"name": "weather"' in ask.prompt  # the model is told of all of them
    ask.whole(call, tools=TOOLS, tool_choice={**allowed, "mode": "required"})
    constraint = ask.engine.requests[-1].constraint
    assert "weather" not in constraint.text
    ask.whole("Hi", tools=TOOLS, tool_choice="none")
    assert "weather" not in ask.prompt


def test_a_failure_midway_is_events_of_its_own(ask: Asked) -> None:
    def failing(**body: Any) -> httpx.Response:
        ask.engine.reset()
        ask.engine.fail_after = 3
        return ask._http.post("/v1/responses", json={"input": "Hi", **body})

    assert failing().status_code == 500
    lines = [line for line in failing(stream=True).text.split("\n") if line.startswith("data: ")]
    *_, error, last = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert (error["type"], last["type"]) == ("error", "response.failed")
    assert EVENT.validate_python(error).message == error["message"]
    assert last["sequence_number"] == error["sequence_number"] + 1 == len(lines) - 1
    assert last["response"]["error"]["code"] == "server_error"
    EVENT.validate_python(last)


FUNCTION = TOOLS[1]


@pytest.mark.parametrize(
    "body, param, code",
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", None),
        ({"tools": [FUNCTION, FUNCTION]}, "tools[1].name", None),
        ({"tools": [{**FUNCTION, "parameters": {"type": "string"}}]}, "tools[0].parameters", None),
        ({"tool_choice": {"type": "function", "name": "g"}, "tools": [FUNCTION]}, "tool_choice", None),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        (
            {
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "g"}]},
                "tools": [FUNCTION],
            },
            "tool_choice",
            None,
        ),
        ({"text": {"verbosity": "high"}}, "text.verbosity", "unsupported_parameter"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", None),
        ({"text": {"format": "json"}}, "text.format", None),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", None),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}},
            "text.format.schema",
            None,
        ),
        ({"reasoning": {"effort": "endless"}}, "reasoning.effort", None),
        ({"max_output_tokens": 0}, "max_output_tokens", None),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"include": ["everything"]}, "include", None),
        ({"truncation": "sometimes"}, "truncation", None),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options", None),
        ({"input": []}, "input", None),
        ({"input": 3}, "input", None),
        ({"input": None}, "input", None),
        ({"input": ["Hi"]}, "input[0]", None),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type", "unsupported_parameter"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "unsupported_parameter"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", None),
        ({"input": [{"role": "user"}]}, "input[0].content", None),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content",
            "unsupported_parameter",
        ),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input", None),
        ({"mirostat": 1}, "mirostat", "unknown_parameter"),
        ({"input": "x" * 5000}, "input", "context_length_exceeded"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(ask: Asked, body: Any, param: str, code: str | None) -> None:
    answer = ask.post(**body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error


def test_what_changes_nothing_is_taken(ask: Asked) -> None:
    found = ask.whole(
        store=True,
        user="me",
        background=False,
        previous_response_id=None,
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        max_tool_calls=3,
        include=["reasoning.encrypted_content"],
        reasoning={"summary": "detailed"},
        text={"format": {"type": "text"}},
        stop=["never"],
        seed=3,
    )
    assert found["store"] is False


def test_the_input_is_counted(ask: Asked) -> None:
    asked = {"instructions": "Be brief", "tools": TOOLS}
    counted = ask.post(path="/v1/responses/input_tokens", **asked).json()
    assert counted == {
        "object": "response.input_tokens",
        "input_tokens": ask.whole(**asked)["usage"]["input_tokens"],
    }


def test_halves_of_surrogate_pairs_are_refused(ask: Asked) -> None:
    for body in ('"text": {"format": {"type": "text", "x": "\\ud800"}}', '"metadata": {"a": "\\ud800"}'):
        answer = ask.post(raw=f'{{"input": "Hi", {body}}}')
        assert answer.status_code == 400, answer.text


def test_the_oldest_turns_go_where_the_request_says_so(ask: Asked) -> None:
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": f"Turn {number} " * 90} for number in range(9)
    ]
    assert ask.post(input=turns, truncation="disabled").json()["error"]["code"] == "context_length_exceeded"
    answer = ask.post(input=turns, truncation="auto", instructions="Be brief")
    dropped = int(answer.headers["X-Rockledge-Dropped-Messages"])
    assert answer.json()["usage"]["dropped_messages"] == dropped > 0
    assert answer.json()["truncation"] == "auto"
    assert "Be brief" in ask.prompt
    assert "Turn 0" not in ask.prompt
    assert "Turn 8" in ask.prompt
