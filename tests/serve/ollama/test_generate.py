"""`/api/generate`: prompts through the chat template or as they are, and earlier turns as token ids."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.ollama.conftest import CONTEXT, lines, prompt
from tests.serve.scripted_engine import BOS, ScriptedEngine


def ask(client: httpx.Client, text: str = "Why?", **body: Any) -> httpx.Response:
    return client.post("/api/generate", json={"model": "scripted", "prompt": text, **body})


def whole(client: httpx.Client, text: str = "Why?", **body: Any) -> dict[str, Any]:
    response = ask(client, text, stream=False, **body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refusal(client: httpx.Client, **body: Any) -> str:
    response = ask(client, **body)
    assert response.status_code == 400
    return str(response.json()["error"])


def test_a_prompt_is_the_message_of_a_user(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    answer = whole(qwen, system="Be kind.")
    assert answer["response"] == "Hello, world"
    assert answer["done_reason"] == "stop"
    assert prompt(engine) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer["context"] == [*engine.requests[0].prompt, *b"Hello, world"]
    assert answer["prompt_eval_count"] == len(engine.requests[0].prompt)


def test_a_stream_ends_with_what_it_took(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    *chunks, last = lines(ask(qwen))
    assert "".join(chunk["response"] for chunk in chunks) == "Hello, world"
    assert last["response"] == ""
    assert last["context"] == [*engine.requests[0].prompt, *b"Hello, world"]
    assert last["total_duration"] > 0
    assert last["eval_count"] == 12


def test_thoughts_are_apart(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    engine.script = "<think>Hm.</think>Yes."
    answer = whole(qwen, think=True)
    assert (answer["thinking"], answer["response"]) == ("Hm.", "Yes.")


def test_a_raw_prompt_is_continued_as_it_is(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    engine.script = "<think>Hm.</think>Yes."
    answer = whole(qwen, "<|im_start|>user", raw=True)
    assert answer["response"] == engine.script
    assert "context" not in answer
    assert engine.requests[0].prompt == (BOS, *b"<|im_start|>user")
    whole(qwen, "<s>Once", raw=True)
    assert engine.requests[1].prompt == (BOS, *b"Once")
    assert refusal(qwen, raw=True, system="Be kind.") == "'system' must be left out with 'raw'"
    assert refusal(qwen, raw=True, context=[1]) == "'context' must be left out with 'raw'"
    assert refusal(qwen, raw=True, think=True) == "'think' must be left out with 'raw'"
    assert ask(qwen, raw=True, think=False).status_code == 200


def test_a_model_without_a_chat_template_continues(
    start_server: Callable[..., str], engine: ScriptedEngine
) -> None:
    url = start_server(engine, chat=None, context=CONTEXT)
    with httpx.Client(base_url=url, timeout=20) as client:
        answer = whole(client, "Once")
        assert engine.requests[-1].prompt == (BOS, *b"Once")
        whole(client, " more", context=answer["context"])
        assert engine.requests[-1].prompt == (BOS, *b"OnceHello, world more")
        assert "without a chat template" in refusal(client, system="Be kind.")
        response = client.post(
            "/api/chat", json={"messages": [{"role": "user", "content": "Hi"}], "model": "scripted"}
        )
        assert "no chat template" in response.json()["error"]


def test_earlier_turns_come_back_as_token_ids(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    first = whole(qwen, "Why?", system="Be kind.")
    before = prompt(engine) + "Hello, world"
    second = whole(qwen, "And how?", context=first["context"], system="Be kind.")
    expected = f"{before}<|im_end|>\n<|im_start|>user\nAnd how?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(engine) == expected
    whole(qwen, "Where?", context=second["context"])
    assert prompt(engine).startswith(f"{expected}Hello, world<|im_end|>\n<|im_start|>user\nWhere?")
    assert refusal(qwen, context=first["context"], system="Be rude.").startswith("'system' must be left out")
    assert refusal(qwen, context=[1 << 40]).startswith("'context' must be the 'context'")
    assert "maximum context length" in refusal(qwen, context=[65] * CONTEXT)


def test_without_a_prompt_a_model_is_loaded_or_unloaded(qwen: httpx.Client, engine: ScriptedEngine) -> None:
    for keep_alive, reason in ((None, "load"), (0, "unload"), (60, "load")):
        for text in ("", None):
            response = qwen.post(
                "/api/generate", json={"model": "scripted", "prompt": text, "keep_alive": keep_alive}
            )
            answer = response.json()
            assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, reason)
    assert engine.requests == []


def test_what_is_not_supported_is_refused_by_name(qwen: httpx.Client) -> None:
    assert refusal(qwen, template="{{ .Prompt }}").startswith("'template' is not supported")
    assert refusal(qwen, images=["aGk="]).startswith("'images' is not supported")
    assert ask(qwen, images=[], template="").status_code == 200
    assert refusal(qwen, prompt=["a"]) == "'prompt' must be a string"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 5}', b'{"prompt": "x"}', b'{"model": ""}'])
def test_bodies_that_ask_for_nothing_are_refused(qwen: httpx.Client, body: bytes) -> None:
    response = qwen.post("/api/generate", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert isinstance(response.json()["error"], str)
