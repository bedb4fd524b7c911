"""The requests of Home Assistant's integration, field for field as its client library writes them.

Sources: homeassistant/components/ollama/{config_flow,entity,ai_task,const}.py and helpers/llm.py in
https://github.com/home-assistant/core; `model_dump(exclude_none=True)` of the library's requests in
https://github.com/ollama/ollama-python.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.conversation.test_answer_reader import HERMES_NOW
from tests.serve.ollama.conftest import CONTEXT, lines, prompt, template
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key
from rockledge.serve.safety.keys import Keys

TIMEOUT_S = 5.0
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json",
    "user-agent": "ollama-python/0.5.1 (aarch64 linux) Python/3.13.9",
}
SYSTEM = {"role": "system", "content": "You are a voice assistant for Home Assistant."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "HassTurnOn",
            "description": "Turns on/opens/presses a device or entity",
            "parameters": {
                "type": "object",
                "required": [],
                "properties": {
                    "name": {"type": "string"},
                    "area": {"type": "string"},
                    "domain": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "time",
            "description": "The time",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
TURN_ON = """<tool_call>
{"name": "HassTurnOn", "arguments": {"name": "Lamp", "area": "", "domain": ["light"]}}
</tool_call>"""


@pytest.fixture
def home(qwen: httpx.Client, engine: ScriptedEngine) -> Iterator[httpx.Client]:
    """A client with the integration's headers."""
    with httpx.Client(base_url=qwen.base_url, headers=HEADERS, timeout=20) as client:
        yield client


def chat(client: httpx.Client, messages: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    body = {
        "model": "scripted:latest",
        "stream": True,
        "options": {"num_ctx": 8192},
        "keep_alive": -1,
        "messages": messages,
        "think": False,
        **more,
    }
    response = client.post("/api/chat", json=body)
    assert response.status_code == 200, response.text
    return lines(response)


def deltas(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the integration makes of a stream (`_transform_stream`)."""
    found: dict[str, Any] = {"content": "", "tool_calls": []}
    for chunk in chunks:
        message = chunk["message"]
        found["content"] += message.get("content") or ""
        for call in message.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            kept = {key: value for key, value in arguments.items() if value is not None and value != ""}
            found["tool_calls"].append((call["function"]["name"], kept))
    return found


def test_it_is_set_up_with_the_models_of_tags(home: httpx.Client) -> None:
    response = home.get("/api/tags", timeout=TIMEOUT_S)
    assert "scripted:latest" in {model["model"] for model in response.json()["models"]}


def test_a_key_is_asked_for_again_when_it_is_wrong(
    start_server: Callable[..., str], shared: Any, engine: ScriptedEngine, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys", "home", KeyLimits())
    url = start_server(engine, chat=template("qwen"), safety=Safety(keys=Keys(tmp_path / "keys")))
    for given, status in ((None, 401), ("wrong", 401), (key, 200)):
        headers = HEADERS if given is None else {**HEADERS, "Authorization": f"Bearer {given}"}
        response = httpx.get(f"{url}/api/tags", headers=headers, timeout=TIMEOUT_S)
        assert response.status_code == status
        if status == 401:
            assert isinstance(response.json()["error"], str)


def test_a_model_of_its_own_list_is_pulled_and_not_there(home: httpx.Client) -> None:
    response = home.post("/api/pull", json={"model": "llama3.2:latest", "stream": False})
    assert response.status_code == 404
    assert "llama3.2:latest" in response.json()["error"]


def test_tools_are_called_in_rounds(home: httpx.Client, engine: ScriptedEngine) -> None:
    messages = [SYSTEM, {"role": "user", "content": "Lamp on, please"}]
    engine.script = TURN_ON
    found = deltas(chat(home, messages, tools=TOOLS))
    assert found["tool_calls"] == [("HassTurnOn", {"name": "Lamp", "domain": ["light"]})]
    call = {"function": {"name": "HassTurnOn", "arguments": {"name": "Lamp", "domain": ["light"]}}}
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"data": {"speech": {}}, "error": null}'},
    ]
    engine.script = HERMES_NOW
    assert deltas(chat(home, messages, tools=TOOLS))["tool_calls"] == [("time", {})]
    assert '"speech": {}' in prompt(engine)
    messages += [
        {"role": "assistant", "tool_calls": [{"function": {"name": "time", "arguments": {}}}]},
        {"role": "tool", "content": '{"data": "12:00", "error": null}'},
    ]
    engine.script = "The lamp is on."
    chunks = chat(home, messages, tools=TOOLS)
    assert deltas(chunks) == {"content": "The lamp is on.", "tool_calls": []}
    assert chunks[-1]["done_reason"] == "stop"
    assert home.get("/api/ps").json()["models"][0]["expires_at"].startswith("2300")


def test_a_long_history_is_answered_whatever_does_not_fit(home: httpx.Client, engine: ScriptedEngine) -> None:
    """Twenty rounds, and a context of half the tokens that it asks for."""
    rounds = [
        {"role": role, "content": f"round {number} " + "word " * 40}
        for number in range(20)
        for role in ("user", "assistant")
    ]
    chunks = chat(home, [SYSTEM, *rounds, {"role": "user", "content": "And now?"}], tools=TOOLS)
    assert deltas(chunks)["content"] == "Hello, world"
    assert chunks[-1]["dropped_messages"] > 0
    assert SYSTEM["content"] in prompt(engine)
    assert "HassTurnOn" in prompt(engine)
    assert len(engine.requests[-1].prompt) < CONTEXT


def test_an_ai_task_gets_the_form_it_asks_for(home: httpx.Client, engine: ScriptedEngine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "temperature": {"type": "number", "minimum": 5, "maximum": 30, "description": "In degrees"},
            "lights": {"type": "array", "items": {"type": "string", "format": "entity_id"}},
            "modes": {
                "type": "array",
                "items": {"type": "string", "enum": ["eco", "off"]},
                "uniqueItems": True,
            },
            "colour": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 3,
                "maxItems": 3,
                "format": "RGB",
            },
            "at": {"type": "string", "format": "time"},
            "where": {"type": "string", "format": "ISO 3166-1 alpha-2"},
            "how": {"type": "string", "format": "jinja2"},
            "backup": {"type": "string", "pattern": "^(?:\\/backup|\\w+)$"},
            "more": {"type": "object", "additionalProperties": True},
        },
        "required": ["temperature"],
    }
    engine.script = '{"temperature": 21}'
    chunks = chat(home, [SYSTEM, {"role": "user", "content": "How warm?"}], format=schema)
    assert json.loads(deltas(chunks)["content"]) == {"temperature": 21}
    constraint = engine.requests[-1].constraint
    assert constraint is not None
    assert json.loads(constraint.text)["properties"]["temperature"] == schema["properties"]["temperature"]  # type: ignore[index]


def test_an_image_is_refused_with_a_sentence_it_can_show(home: httpx.Client) -> None:
    message = {"role": "user", "content": "Who is at the door?", "images": ["aGVsbG8="]}
    body = {"model": "scripted", "stream": True, "messages": [SYSTEM, message]}
    response = home.post("/api/chat", json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith("'messages[1].images' is not supported")


def test_tags_come_in_time_while_a_long_prompt_is_read(home: httpx.Client, engine: ScriptedEngine) -> None:
    """Both while the engine is in a step of many seconds and while a large body is tokenized."""
    engine.pace = 0.8
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "x"}],
        "options": {"num_predict": 2},
    }
    large = {**body, "messages": [{"role": "user", "content": f"{i} " * 300} for i in range(1000)]}
    sent = [
        threading.Thread(
            target=httpx.post, args=[f"{home.base_url}/api/chat"], kwargs={"json": one, "timeout": 60}
        )
        for one in (body, large, large)
    ]
    for thread in sent:
        thread.start()
    assert engine.started.wait(20)
    slowest = 0.0
    while any(thread.is_alive() for thread in sent):
        began = time.monotonic()
        assert home.get("/api/tags", timeout=TIMEOUT_S).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.02)
    assert slowest < TIMEOUT_S / 2  # a step of the engine, and a body of a megabyte
