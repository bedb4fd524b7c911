"""One conversation in the words of several APIs: the engine is asked the same, and the answer is the same."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.conversation.test_answer_reader import HERMES_NOW, HERMES_PARIS
from tests.serve.dialects import TEMPLATES

from rockledge.model.chat import ChatTemplate

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "min_p": 0.01}
OUT_OF_ORDER = "<think>Hm</think>Fine"

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "How is Oslo?"},
        {
            "role": "assistant",
            "content": "Let me see",
            "reasoning_content": "Oslo",
            "tool_calls": [
                {
                    "id": "abcdefghi",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "mild"},
        {"role": "user", "content": "And Rome? <|im_end|>"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "weather", "description": "It", "parameters": SCHEMA}}
    ],
    "reasoning_effort": "none",
    "parallel_tool_calls": False,
    "max_completion_tokens": 99,
    "stop": ["stop"],
}
RESPONSES = {
    "instructions": "Be brief",
    "input": [
        {"role": "user", "content": "How is Oslo?"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Oslo"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see"}]},
        {"type": "function_call", "call_id": "abcdefghi", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "abcdefghi", "output": "mild"},
        {"role": "user", "content": [{"type": "input_text", "text": "And Rome? <|im_end|>"}]},
    ],
    "tools": [{"type": "function", "name": "weather", "description": "It", "parameters": SCHEMA}],
    "reasoning": {"effort": "none"},
    "parallel_tool_calls": False,
    "max_output_tokens": 99,
    "stop": ["stop"],
}
MESSAGES = {
    "system": [{"type": "text", "text": "Be brief"}],
    "messages": [
        {"role": "user", "content": "How is Oslo?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Oslo", "signature": "x"},
                {"type": "text", "text": "Let me see"},
                {"type": "tool_use", "id": "abcdefghi", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "abcdefghi", "content": "mild"},
                {"type": "text", "text": "And Rome? <|im_end|>"},
            ],
        },
    ],
    "tools": [{"name": "weather", "description": "It", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "disabled"},
    "max_tokens": 99,
    "stop_sequences": ["stop"],
}
# It has no choice of tools, and calls in parallel always.
OLLAMA = {
    "model": "scripted",
    "messages": [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "How is Oslo?"},
        {
            "role": "assistant",
            "content": "Let me see",
            "thinking": "Oslo",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
        },
        {"role": "tool", "tool_name": "weather", "content": "mild"},
        {"role": "user", "content": "And Rome? <|im_end|>"},
    ],
    "tools": CHAT["tools"],
    "think": False,
    "options": {"num_predict": 99, "stop": ["stop"], **SAMPLING},
    "stream": False,
}
SCRIPTS = [f"<think>Hm</think>Yes:\n{HERMES_PARIS}\n{HERMES_NOW}", OUT_OF_ORDER, HERMES_PARIS]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
}
FORCED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "/v1/responses": {"tool_choice": {"type": "function", "name": "weather"}},
    "/v1/messages": {"tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
}


@pytest.fixture(scope="module")
def url(start_server: Callable[..., str], shared: Any) -> str:
    return start_server(shared[0], chat=ChatTemplate(TEMPLATES["qwen"], {}), context=4096)


def read(answer: dict[str, Any]) -> tuple[str, str, list[Any]]:
    """Thoughts, text and calls of an answer of any of the APIs."""
    if "done" in answer:
        message = answer["message"]
        functions = [call["function"] for call in message.get("tool_calls", ())]
        made = [(function["name"], function["arguments"]) for function in functions]
        return message.get("thinking", ""), message["content"], made
    if "choices" in answer:
        message = answer["choices"][0]["message"]
        calls = [call["function"] for call in message.get("tool_calls", ())]
        made = [(call["name"], json.loads(call["arguments"])) for call in calls]
        return message.get("reasoning_content", ""), message["content"] or "", made
    blocks = answer.get("output") or answer["content"]
    thoughts = [
        b.get("thinking") or b["content"][0]["text"] for b in blocks if b["type"] in ("thinking", "reasoning")
    ]
    texts = [b.get("text") or b["content"][0]["text"] for b in blocks if b["type"] in ("text", "message")]
    used = [(b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
    called = [(b["name"], json.loads(b["arguments"])) for b in blocks if b["type"] == "function_call"]
    return "".join(thoughts), "".join(texts), used + called


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("forced", [False, True])
def test_the_engine_is_asked_the_same(url: str, shared: Any, script: str, forced: bool) -> None:
    engine = shared[0]
    engine.reset()
    engine.script = '[{"name": "weather", "arguments": {"city": "Rome"}}]' if forced else script
    answers = []
    for path, body in ASKED.items():
        more = FORCED[path] if forced else {}
        answer = httpx.post(url + path, json={**body, **SAMPLING, **more}, timeout=20)
        assert answer.status_code == 200, answer.text
        answers.append(read(answer.json()))
    check(engine.requests, answers)


@pytest.mark.parametrize("script", SCRIPTS)
def test_ollamas_words_ask_the_same(url: str, shared: Any, script: str) -> None:
    engine = shared[0]
    engine.reset()
    engine.script = script
    chat = httpx.post(
        f"{url}/v1/chat/completions", json={**CHAT, **SAMPLING, "parallel_tool_calls": True}, timeout=20
    )
    ollama = httpx.post(f"{url}/api/chat", json=OLLAMA, timeout=20)
    check(engine.requests, [read(chat.json()), read(ollama.json())])


def check(requests: list[Any], answers: list[Any]) -> None:
    """All requests and all answers are the same."""
    first, *others = requests
    assert len(others) == len(answers) - 1
    for other in others:
        for field in ("prompt", "max_tokens", "stop", "sampling", "constraint", "shown"):
            assert getattr(other, field) == getattr(first, field), field
    assert all(answer == answers[0] for answer in answers)
    assert answers[0] != ("", "", [])
