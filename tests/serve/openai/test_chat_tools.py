"""Tools and thoughts in `/v1/chat/completions`, over a scripted engine that answers as models write."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.conversation.test_answer_reader import HERMES_NOW, HERMES_PARIS, NOW, PARIS
from tests.serve.dialects import TEMPLATES
from tests.serve.openai.test_chat import events

from rockledge.model.chat import ChatTemplate
from rockledge.serve.conversation.tools import calls_schema

HELLO = [{"role": "user", "content": "Hi"}]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time"}},
]


@pytest.fixture(scope="module")
def ask(start_server: Callable[..., str], shared: Any) -> Any:
    """Calls a server whose model has a template of `dialects.py` and answers with a script."""
    engine = shared[0]
    urls: dict[str, str] = {}

    def post(script: str, template: str = "qwen", **body: Any) -> httpx.Response:
        engine.reset()
        engine.script = script
        if template not in urls:
            chat = ChatTemplate(TEMPLATES[template], {"bos_token": "<s>", "eos_token": "</s>"})
            urls[template] = start_server(engine, chat=chat, context=4096)
        body = {"messages": HELLO, "tools": TOOLS, **body}
        return httpx.post(f"{urls[template]}/v1/chat/completions", json=body, timeout=20)

    post.engine = engine  # type: ignore[attr-defined]
    return post


def calls_of(message: dict[str, Any]) -> list[tuple[str, Any]]:
    found = message.get("tool_calls", ())
    assert all(call["type"] == "function" and call["id"] for call in found)
    assert len({call["id"] for call in found}) == len(found)
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in found]


def test_calls_come_as_calls(ask: Any) -> None:
    [choice] = ask(f"Let me see.\n{HERMES_PARIS}\n{HERMES_NOW}").json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see.\n"
    assert calls_of(choice["message"]) == [PARIS, NOW]
    [choice] = ask(HERMES_NOW).json()["choices"]
    assert choice["message"]["content"] is None


def test_the_tools_are_in_the_prompt_unless_none_may_be_called(ask: Any) -> None:
    ask("Hi")
    with_tools = bytes(t for t in ask.engine.requests[0].prompt if t < 256).decode()
    assert '"name": "weather"' in with_tools
    answer = ask(HERMES_NOW, tool_choice="none").json()
    assert "weather" not in bytes(t for t in ask.engine.requests[0].prompt if t < 256).decode()
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (HERMES_NOW, "stop")


def test_a_stream_has_the_deltas_of_openai_in_order(ask: Any) -> None:
    chunks = events(ask(f"Yes: {HERMES_PARIS}\n{HERMES_NOW}", stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes: "
    called = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    first = [call for call in called if "id" in call]
    assert [(call["index"], call["type"], call["function"]) for call in first] == [
        (0, "function", {"name": "weather", "arguments": ""}),
        (1, "function", {"name": "time", "arguments": ""}),
    ]
    for index, (_, arguments) in enumerate([PARIS, NOW]):
        rest = [call["function"]["arguments"] for call in called if call["index"] == index]
        assert json.loads("".join(rest)) == arguments
    assert [call["index"] for call in called] == [0, 0, 1, 1]
    assert "content" not in {key for delta in deltas[-4:] for key in delta}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["tool_calls"]


@pytest.mark.parametrize("stream", [False, True])
def test_malformed_and_cut_calls_are_text(ask: Any, stream: bool) -> None:
    cases = (("<tool_call>{]</tool_call>", 99, "stop"), (HERMES_PARIS, 30, "length"))
    for script, limit, finish in cases:
        answer = ask(script, stream=stream, max_tokens=limit)
        choices = [c["choices"][0] for c in events(answer)] if stream else answer.json()["choices"]
        texts = [c["delta"].get("content", "") if stream else c["message"]["content"] for c in choices]
        assert "".join(texts) == script[:limit]
        assert choices[-1]["finish_reason"] == finish


def test_one_call_at_most_where_parallel_ones_are_not_wanted(ask: Any) -> None:
    [choice] = ask(f"{HERMES_PARIS}\n{HERMES_NOW}", parallel_tool_calls=False).json()["choices"]
    assert calls_of(choice["message"]) == [PARIS]


def test_scores_of_a_call_are_all_there(ask: Any) -> None:
    answer = ask(HERMES_NOW, stream=True, logprobs=True)
    scored = [chunk["choices"][0]["logprobs"] for chunk in events(answer)]
    tokens = [entry["token"] for found in scored if found for entry in found["content"]]
    assert "".join(tokens) == HERMES_NOW


def test_a_round_trip_through_a_model_without_tools_in_its_template(ask: Any) -> None:
    [choice] = ask(HERMES_NOW, "gemma").json()["choices"]
    call = choice["message"]["tool_calls"][0]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "noon"}
    [choice] = ask("It is noon", "gemma", messages=[*HELLO, choice["message"], result]).json()["choices"]
    assert choice["message"]["content"] == "It is noon"
    prompt = bytes(t for t in ask.engine.requests[0].prompt if t < 256).decode()
    assert HERMES_NOW in prompt
    assert "<tool_response>\nnoon\n</tool_response>" in prompt


def test_thoughts_are_a_field_of_their_own(ask: Any) -> None:
    script = f"<think>\nHm\n</think>\n\nSo {HERMES_NOW}"
    [choice] = ask(script).json()["choices"]
    message = choice["message"]
    assert (message["reasoning_content"], message["content"], calls_of(message)) == ("Hm", "So ", [NOW])
    deltas = [chunk["choices"][0]["delta"] for chunk in events(ask(script, stream=True))]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm"
    assert "".join(delta.get("content") or "" for delta in deltas) == "So "


def test_thoughts_that_the_prompt_opened_need_no_mark(ask: Any) -> None:
    [choice] = ask("Hm</think>Yes", "r1", tools=[]).json()["choices"]
    assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == ("Hm", "Yes")


def test_a_prompt_without_thinking_opens_none(ask: Any) -> None:
    for switch in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        [choice] = ask("Yes", **switch).json()["choices"]
        assert choice["message"]["content"] == "Yes"
        assert bytes(ask.engine.requests[0].prompt).endswith(b"<think>\n\n</think>\n\n")


def with_parameters(schema: Any) -> dict[str, Any]:
    return {"tools": [{"function": {"name": "f", "parameters": schema}}]}


DEEP = json.loads('{"a":' * 150 + "1" + "}" * 150)
FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "body, param",
    [
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools[1].function.name"),
        (with_parameters(1), "tools[0].function.parameters"),
        (with_parameters({"type": "array"}), "tools[0].function.parameters"),
        (with_parameters({"properties": []}), "tools[0].function.parameters"),
        (with_parameters({"required": "a"}), "tools[0].function.parameters"),
        (with_parameters(DEEP), "tools[0].function.parameters"),
        ({"chat_template_kwargs": DEEP}, "chat_template_kwargs"),
        ({"tools": [{"function": {"name": "f"}, "x": DEEP}]}, "tools[0]"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ],
)  # fmt: skip
def test_bad_tools_are_named(ask: Any, body: dict[str, Any], param: str) -> None:
    answer = ask("", **body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("template", ["qwen", "gemma", "r1"])
def test_deep_arguments_in_history_stay_the_text_they_were(ask: Any, template: str) -> None:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": json.dumps(DEEP)}}
    turns = [*HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "<|im_end|>"}]
    assert ask("Hi", template, messages=turns).status_code == 200


def test_a_choice_says_what_calls_must_be() -> None:
    closed = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    tools = {"f": {**closed}, "g": {"type": "object"}}
    del tools["f"]["additionalProperties"]
    assert calls_schema(tools, "auto") is None
    assert calls_schema(tools, None) is None
    every = calls_schema(tools, "required")
    assert every is not None
    assert (every["minItems"], every.get("maxItems")) == (1, None)
    assert [call["properties"]["name"] for call in every["items"]["anyOf"]] == [
        {"const": "f"},
        {"const": "g"},
    ]
    named = calls_schema(tools, {"name": "f"})
    assert named is not None
    assert named["maxItems"] == 1
    assert [call["properties"]["arguments"] for call in named["items"]["anyOf"]] == [closed]
    [nothing] = calls_schema(tools, {"name": "g"})["items"]["anyOf"]
    assert nothing["properties"]["arguments"]["properties"] == {}


def test_references_within_a_tools_schema_still_lead_there() -> None:
    point = {"type": "object", "properties": {"default": {"$ref": "#/$defs/n"}, "next": {"$ref": "#"}}}
    schema = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/point"}, "$ref": {"const": {"$ref": "#/no"}}},
        "$defs": {"point": point, "n": {"type": "integer"}},
    }
    made: Any = calls_schema({"f": {"type": "object"}, "g": schema}, "required")

    def at(reference: str) -> Any:
        found = made
        for step in reference.removeprefix("#/").split("/"):
            found = found[int(step)] if isinstance(found, list) else found[step]
        return found

    arguments = made["items"]["anyOf"][1]["properties"]["arguments"]
    assert arguments["properties"]["$ref"] == {"const": {"$ref": "#/no"}}
    moved = at(arguments["properties"]["at"]["$ref"])
    assert at(moved["properties"]["default"]["$ref"]) == {"type": "integer"}
    assert at(moved["properties"]["next"]["$ref"]) is arguments


def test_a_choice_may_be_written_as_in_the_responses_api(ask: Any) -> None:
    for choice in (
        {"type": "function", "name": "other"},
        {"type": "function", "function": {"name": "other"}},
    ):
        assert "other" in ask("", tool_choice=choice).json()["error"]["message"]
