"""`/api/chat`: messages, tools, thoughts, forms and streams as Ollama's documentation has them."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from tests.serve.conversation.test_answer_reader import HERMES_NOW, HERMES_PARIS, NOW, PARIS
from tests.serve.ollama.conftest import CONTEXT, lines, prompt, template
from tests.serve.scripted_engine import ScriptedEngine

HELLO = [{"role": "user", "content": "Hi"}]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "time"}},
]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/api/chat", json={"model": "scripted", "messages": HELLO, **body})


def whole(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = ask(client, stream=False, **body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refusal(client: httpx.Client, **body: Any) -> str:
    response = ask(client, **body)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


def test_an_answer_in_one_object(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    answer = whole(qwen)
    assert answer["model"] == "scripted"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer["created_at"])
    assert answer["message"] == {"role": "assistant", "content": "Hello, world"}
    assert answer["done"] is True
    assert answer["done_reason"] == "stop"
    assert answer["prompt_eval_count"] == len(engine.requests[0].prompt)
    assert answer["eval_count"] == len("Hello, world")
    assert "thinking" not in answer["message"]
    assert "dropped_messages" not in answer


def test_answers_are_streamed_unless_the_request_says_otherwise(
    qwen: httpx.Client, engine: ScriptedEngine
) -> None:
    for body in ({}, {"stream": True}, {"stream": None}):
        response = ask(qwen, **body)
        *chunks, last = lines(response)
        assert "".join(chunk["message"]["content"] for chunk in chunks) == "Hello, world"
        assert all(chunk["message"]["role"] == "assistant" for chunk in chunks)
        assert last["message"] == {"role": "assistant", "content": ""}
        assert last["done_reason"] == "stop"
        assert response.headers["x-accel-buffering"] == "no"


def test_durations_are_nanoseconds_of_what_happened(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    engine.pace = 0.02
    engine.prefill_seconds, engine.decode_seconds = 0.25, 1.5
    answer = whole(qwen)
    assert answer["prompt_eval_duration"] == 250_000_000
    assert answer["eval_duration"] == 1_500_000_000
    steps = 0.02e9 * len("Hello, world")
    assert steps < answer["total_duration"] < steps + 5e9
    assert 0 <= answer["load_duration"] < answer["total_duration"]


def test_a_length_that_was_asked_for(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    answer = whole(qwen, options={"num_predict": 5})
    assert answer["message"]["content"] == "Hello"
    assert answer["done_reason"] == "length"
    for unlimited in (-1, -2, 0, None):
        assert whole(qwen, options={"num_predict": unlimited})["done_reason"] == "stop"


def test_calls_have_their_arguments_as_objects(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    engine.script = f"Let me see.\n{HERMES_PARIS}\n{HERMES_NOW}"
    message = whole(qwen, tools=TOOLS)["message"]
    assert message["content"] == "Let me see.\n"
    functions = [call["function"] for call in message["tool_calls"]]
    assert [(call["name"], call["arguments"]) for call in functions] == [PARIS, NOW]
    assert [call["index"] for call in functions] == [0, 1]
    *chunks, last = lines(ask(qwen, tools=TOOLS))
    streamed = [call for chunk in chunks for call in chunk["message"].get("tool_calls", ())]
    assert [call["function"] for call in streamed] == functions
    assert last["done_reason"] == "stop"
    assert "weather" in prompt(engine)


def test_results_find_their_calls_by_order_and_by_name(
    start_server: Callable[..., str], shared: Any, engine: ScriptedEngine
) -> None:
    url = start_server(engine, chat=template("mistral"), context=CONTEXT)
    calls = [{"function": {"name": name, "arguments": {"a": 1}}} for name in ("weather", "time")]
    with httpx.Client(base_url=url, timeout=20) as client:
        for results in (
            [{"role": "tool", "content": "sun"}, {"role": "tool", "content": "noon"}],
            [
                {"role": "tool", "content": "noon", "tool_name": "time"},
                {"role": "tool", "content": "sun", "tool_name": "weather"},
            ],
            [{"role": "tool", "content": "sun", "tool_name": "other"}, {"role": "tool", "content": "noon"}],
        ):
            history = [*HELLO, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
            whole(client, messages=history, tools=TOOLS)
            [made] = re.findall(r"\[TOOL_CALLS\] (\[.*?\}\])", prompt(engine))
            ids = {call["name"]: call["id"] for call in json.loads(made)}
            shown = re.findall(r'\{"content": "(\w+)", "call_id": "(\w+)"\}', prompt(engine))
            assert set(shown) == {("sun", ids["weather"]), ("noon", ids["time"])}


def test_thoughts_are_apart(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    engine.script = "<think>\nHm.\n</think>\n\nYes."
    message = whole(qwen, think=True)["message"]
    assert (message["thinking"], message["content"]) == ("Hm.", "Yes.")
    *chunks, _ = lines(ask(qwen, think=True))
    assert "".join(chunk["message"].get("thinking", "") for chunk in chunks) == "Hm."
    assert "".join(chunk["message"]["content"] for chunk in chunks) == "Yes."
    assert "<think>" not in prompt(engine)
    whole(qwen, think=False)
    assert prompt(engine).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    whole(qwen, think="low")
    assert "<think>" not in prompt(engine)
    assert ask(qwen, think="max").status_code == 200
    for value in ("a lot", 1, []):
        levels = '"low", "medium", "high", "max", true, or false'
        assert refusal(qwen, think=value) == f"invalid think value: {json.dumps(value)} (must be {levels})"


def test_thoughts_of_earlier_turns_are_the_templates_to_leave_out(
    qwen: httpx.Client, engine: ScriptedEngine
) -> None:
    earlier = {"role": "assistant", "content": "Yes.", "thinking": "secret"}
    whole(qwen, messages=[*HELLO, earlier, {"role": "user", "content": "Sure?"}])
    assert "Yes." in prompt(engine)
    assert "secret" not in prompt(engine)


def test_a_model_that_does_not_think_says_so(http: httpx.Client) -> None:
    body = {"model": "scripted", "messages": HELLO, "think": True}
    response = http.post("/api/chat", json=body)
    assert response.status_code == 400
    assert response.json() == {"error": '"scripted" does not support thinking'}
    assert http.post("/api/chat", json={**body, "think": False}).status_code == 200


def test_the_last_message_is_continued_if_it_is_the_assistants(
    qwen: httpx.Client, engine: ScriptedEngine
) -> None:
    whole(qwen, messages=[*HELLO, {"role": "assistant", "content": "Well,"}])
    assert prompt(engine).endswith("<|im_start|>assistant\nWell,")


def test_a_form_is_a_constraint(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    engine.script = '{"n": 1}'
    whole(qwen, format=SCHEMA)
    constraint = engine.requests[-1].constraint
    assert constraint is not None
    assert (constraint.kind, json.loads(constraint.text)) == ("json_schema", SCHEMA)
    whole(qwen, format="json")
    assert engine.requests[-1].constraint.kind == "json"  # type: ignore[union-attr]
    for nothing in ("", None):
        whole(qwen, format=nothing)
        assert engine.requests[-1].constraint is None
    assert refusal(qwen, format="yaml") == "'format' must be \"json\" or a JSON schema"
    assert "'contains'" in refusal(qwen, format={"type": "array", "items": {}, "contains": {}})


def test_an_answer_of_a_given_form_is_no_thought_though_the_prompt_opens_one(
    start_server: Callable[..., str], engine: ScriptedEngine
) -> None:
    url = start_server(engine, chat=template("r1"), context=CONTEXT)
    engine.script = '{"n": 1}'
    with httpx.Client(base_url=url, timeout=20) as client:
        assert whole(client, format=SCHEMA)["message"]["content"] == '{"n": 1}'


def test_log_probabilities_come_with_their_text(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    answer = whole(qwen, logprobs=True, top_logprobs=1)
    assert "".join(entry["token"] for entry in answer["logprobs"]) == "Hello, world"
    assert [entry["logprob"] for entry in answer["logprobs"]] == [-float(i) for i in range(12)]
    assert all(len(entry["top_logprobs"]) == 1 for entry in answer["logprobs"])
    *chunks, _ = lines(ask(qwen, logprobs=True))
    assert "".join(entry["token"] for chunk in chunks for entry in chunk["logprobs"]) == "Hello, world"
    assert "top_logprobs" in refusal(qwen, top_logprobs=1)


@pytest.mark.parametrize(
    ("keep_alive", "reason"), [(None, "load"), (0, "unload"), ("0s", "unload"), (-1, "load"), ("5m", "load")]
)
def test_without_messages_a_model_is_loaded_or_unloaded(
    qwen: httpx.Client, engine: ScriptedEngine, keep_alive: Any, reason: str
) -> None:
    body = {"model": "scripted", "keep_alive": keep_alive}
    for more in ({}, {"messages": []}):
        answer = qwen.post("/api/chat", json={**body, **more}).json()
        assert answer.pop("created_at")
        message = {"role": "assistant", "content": ""}
        assert answer == {"model": "scripted", "message": message, "done": True, "done_reason": reason}
    assert bool(qwen.get("/api/ps").json()["models"]) == (reason == "load")
    assert engine.requests == []


def test_a_model_stays_as_long_as_the_request_says(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    def expires() -> datetime:
        [model] = qwen.get("/api/ps").json()["models"]
        found = datetime.fromisoformat(model["expires_at"])
        assert found.utcoffset() is not None
        return found

    now = datetime.now().astimezone()
    whole(qwen, keep_alive="90s")
    assert 80 < (expires() - now).total_seconds() < 110
    whole(qwen, keep_alive=-1)
    assert expires().year == 2300
    whole(qwen, keep_alive="1h30m")
    assert 5390 < (expires() - now).total_seconds() < 5430


def test_the_oldest_turns_are_dropped_and_it_is_said(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    turns = [
        {"role": role, "content": f"{number} " + "x" * 200}
        for number in range(20)
        for role in ("user", "assistant")
    ]
    history = [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "Now?"}]
    response = ask(qwen, messages=history)
    dropped = lines(response)[-1]["dropped_messages"]
    assert dropped > 0
    assert response.headers["x-rockledge-dropped-messages"] == str(dropped)
    assert "Be kind." in prompt(engine)
    assert prompt(engine).endswith("Now?<|im_end|>\n<|im_start|>assistant\n")
    assert f"<|im_start|>user\n{dropped // 2} x" in prompt(engine)
    assert f"\n{dropped // 2 - 1} x" not in prompt(engine)
    assert "maximum context length is 4096 tokens" in refusal(qwen, messages=history, truncate=False)
    assert "maximum context length" in refusal(qwen, messages=[{"role": "user", "content": "x" * 5000}])


def test_what_is_not_supported_is_refused_by_name(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    image = [{"role": "user", "content": "What is it?", "images": ["aGk="]}]
    assert refusal(qwen, messages=image) == (
        "'messages[0].images' is not supported: this server reads text only; leave it out"
    )
    assert ask(qwen, messages=[{**image[0], "images": []}]).status_code == 200
    assert refusal(qwen, template="{{ .Prompt }}").startswith("'template' is not supported")
    assert refusal(qwen, messages=[{"role": "user", "content": 1}]).startswith(
        "'messages[0].content' must be"
    )
    assert refusal(qwen, messages="Hi") == "'messages' must be a list"
    assert refusal(qwen, keep_alive="soon").startswith("'keep_alive' must be a number of seconds")
    assert "'tools[0].function.name'" in refusal(
        qwen, tools=[{"type": "function", "function": {"name": "a b"}}]
    )


def test_what_ollama_does_not_know_changes_nothing_unless_the_server_is_strict(
    qwen: httpx.Client, start_server: Callable[..., str], engine: ScriptedEngine
) -> None:
    assert whole(qwen, metadata={}, chat_id="1", temperature=2)["done_reason"] == "stop"
    url = start_server(engine, chat=template("qwen"), context=CONTEXT, strict=True)
    with httpx.Client(base_url=url, timeout=20) as client:
        assert whole(client, options={"num_gpu": 99, "num_ctx": 8192})["done_reason"] == "stop"
        assert "'chat_id' is not a parameter" in refusal(client, chat_id="1")


def test_a_failure_midway_is_the_last_line(qwen: httpx.Client, serving: Callable[..., str]) -> None:
    engine = ScriptedEngine()
    engine.fail_after = 3
    url = serving(engine, chat=template("qwen"), context=CONTEXT)
    with httpx.Client(base_url=url, timeout=20) as client:
        *chunks, last = [json.loads(line) for line in ask(client).text.splitlines()]
        assert "".join(chunk["message"]["content"] for chunk in chunks) == "Hel"
        assert list(last) == ["error"]
