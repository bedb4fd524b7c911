"""The requests of Open WebUI's connection to Ollama.

Source: backend/open_webui/routers/ollama.py and utils/payload.py in https://github.com/open-webui/open-webui.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
from tests.serve.ollama.conftest import lines, prompt
from tests.serve.scripted_engine import ScriptedEngine

HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer sk-none",
    "X-OpenWebUI-User-Name": "Ada%20L",
    "X-OpenWebUI-User-Id": "1",
    "X-OpenWebUI-User-Email": "ada@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "7",
}


def test_a_connection_is_verified_by_its_version(qwen: httpx.Client) -> None:
    version = qwen.get("/api/version", headers=HEADERS).json()["version"]
    assert len(tuple(map(int, re.sub(r"^v|-.*", "", version).split(".")))) == 3


def test_loaded_models_are_matched_with_listed_ones(qwen: httpx.Client) -> None:
    qwen.post("/api/generate", json={"model": "scripted", "keep_alive": "5m"})
    listed = {model["model"]: model for model in qwen.get("/api/tags", headers=HEADERS).json()["models"]}
    loaded = qwen.get("/api/ps", headers=HEADERS).json()["models"]
    assert {model["name"] for model in loaded} <= listed.keys()
    for model in loaded:
        assert datetime.fromisoformat(model["expires_at"]).utcoffset() is not None
        assert int(datetime.fromisoformat(model["expires_at"]).timestamp()) > 0


def test_a_chat_has_its_options_beside_what_the_client_adds(
    qwen: httpx.Client, engine: ScriptedEngine
) -> None:
    body = {
        "stream": True,
        "model": "scripted:latest",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi", "images": []},
        ],
        "options": {
            "temperature": 0.8,
            "num_ctx": 2048,
            "num_keep": 24,
            "repeat_last_n": 64,
            "mirostat": 0,
            "mirostat_eta": 0.1,
            "mirostat_tau": 5.0,
            "top_k": 40,
            "top_p": 0.9,
            "stop": ["</done>"],
            "num_gpu": 0,
            "use_mmap": True,
        },
        "keep_alive": "5m",
        "think": None,
        "session_id": "3",
        "chat_id": "7",
    }
    response = qwen.post("/api/chat", json=body, headers=HEADERS)
    *chunks, last = lines(response)
    assert "".join(chunk["message"]["content"] for chunk in chunks) == "Hello, world"
    # Its statistics divide by these.
    for name in ("total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration"):
        assert isinstance(last[name], int)
    assert engine.requests[-1].stop == ("</done>",)
    assert "Be kind." in prompt(engine)


def test_texts_are_embedded_by_a_model_that_can(serving: Callable[..., str], qwen: httpx.Client) -> None:
    engine: Any = ScriptedEngine()
    url = serving(engine, pools=True)
    found = httpx.post(f"{url}/api/embed", json={"model": "scripted", "input": ["a", "bb"], "truncate": True})
    assert len(found.json()["embeddings"]) == 2
    refused = qwen.post("/api/embed", json={"model": "scripted", "input": ["a"]}, headers=HEADERS)
    assert refused.status_code == 400
    assert "was not made for embeddings" in refused.json()["error"]


def test_a_model_is_unloaded_by_hand(qwen: httpx.Client) -> None:
    body = {"model": "scripted:latest", "keep_alive": 0, "prompt": ""}
    assert qwen.post("/api/generate", json=body, headers=HEADERS).json()["done_reason"] == "unload"
    assert qwen.get("/api/ps").json()["models"] == []
