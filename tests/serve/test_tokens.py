"""Tokens of texts and conversations, names of the model, and the document of the API."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.serve.dialects import QWEN
from tests.serve.scripted_engine import BOS, ScriptedEngine

from rockledge.model.chat import ChatTemplate

HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def client(start_server: Callable[..., str]) -> Any:
    """A client of a server whose model has two names."""
    engine = ScriptedEngine()
    url = start_server(
        engine, chat=ChatTemplate(QWEN, {}), context=4096, aliases=("gpt-4o", "llama3.2:latest")
    )
    with httpx.Client(base_url=url, timeout=20) as http:
        http.engine = engine  # type: ignore[attr-defined]
        yield http


@pytest.mark.parametrize(
    "body, ids",
    [
        ({"prompt": "Hi"}, [BOS, 72, 105]),
        ({"prompt": "Hi", "add_special_tokens": False}, [72, 105]),
        ({"content": "Hi"}, [72, 105]),
        ({"content": "Hi", "add_special": True}, [BOS, 72, 105]),
        ({"content": ""}, []),
    ],
)
def test_texts_become_tokens(client: httpx.Client, body: dict[str, Any], ids: list[int]) -> None:
    answer = client.post("/tokenize", json=body).json()
    assert answer == {"tokens": ids, "count": len(ids), "max_model_len": 4096, "token_strs": None}


def test_a_conversation_becomes_the_tokens_of_its_prompt(client: Any) -> None:
    body = {"messages": HELLO, "tools": [{"type": "function", "function": {"name": "f"}}]}
    client.post("/v1/chat/completions", json=body)
    answer = client.post("/tokenize", json={**body, "return_token_strs": True}).json()
    assert answer["tokens"] == list(client.engine.requests[-1].prompt)
    assert "".join(answer["token_strs"]) == bytes(answer["tokens"]).decode()


def test_pieces_come_with_their_ids(client: httpx.Client) -> None:
    answer = client.post("/tokenize", json={"content": "Hi", "with_pieces": True}).json()
    assert answer["tokens"] == [{"id": 72, "piece": "H"}, {"id": 105, "piece": "i"}]


def test_tokens_become_text(client: httpx.Client) -> None:
    answer = client.post("/detokenize", json={"tokens": [BOS, *"é".encode()]}).json()
    assert answer == {"prompt": "<s>é", "content": "<s>é"}


@pytest.mark.parametrize(
    "path, body, param",
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "content": "b"}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"content": "a", "model": "other"}, "model"),
        ("/detokenize", {"tokens": [258]}, "tokens"),
        ("/detokenize", {"tokens": "1"}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_mistakes_are_named(client: httpx.Client, path: str, body: Any, param: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == (404 if param == "model" else 400)
    assert answer.json()["error"]["param"] == param


def test_a_model_has_its_names_and_its_context(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["scripted", "gpt-4o", "llama3.2:latest"]
    assert {(model["context_length"], model["max_model_len"]) for model in listed} == {(4096, 4096)}
    assert client.get("/v1/models/gpt-4o").json()["id"] == "gpt-4o"
    assert client.get("/v1/models/other").status_code == 404
    for path, body in (("/v1/chat/completions", {"messages": HELLO}), ("/v1/completions", {"prompt": "Hi"})):
        assert client.post(path, json={"model": "gpt-4o", **body}).json()["model"] == "gpt-4o"
        assert client.post(path, json=body).json()["model"] == "scripted"


def continue_with(client: Any, script: str, content: str, **body: Any) -> Any:
    client.engine.reset()
    client.engine.script = script
    turns = [*HELLO, {"role": "assistant", "content": content, **body.pop("message", {})}]
    return client.post("/v1/chat/completions", json={"messages": turns, **body})


@pytest.mark.parametrize(
    "how", [{"continue_final_message": True, "add_generation_prompt": False}, {"message": {"prefix": True}}]
)
def test_an_answer_can_be_begun(client: Any, how: dict[str, Any]) -> None:
    [choice] = continue_with(client, "blue", "The sky is ", **how).json()["choices"]
    assert choice["message"]["content"] == "blue"
    assert bytes(client.engine.requests[0].prompt).endswith(b"<|im_start|>assistant\nThe sky is ")


def test_thoughts_can_be_begun(client: Any) -> None:
    answer = continue_with(client, "m</think>Yes", "<think>H", continue_final_message=True)
    message = answer.json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("m", "Yes")
    answer = continue_with(client, "<think>", "I say ", continue_final_message=True)
    assert answer.json()["choices"][0]["message"]["content"] == "<think>"


@pytest.mark.parametrize(
    "body, param",
    [
        ({"messages": HELLO, "continue_final_message": True}, "messages[0]"),
        (
            {
                "messages": [{"role": "assistant", "content": "a"}],
                "continue_final_message": True,
                "add_generation_prompt": True,
            },
            "add_generation_prompt",
        ),
        ({"messages": [{**HELLO[0], "prefix": True}, *HELLO]}, "messages[0].prefix"),
        ({"messages": HELLO, "documents": [{"title": "a", "text": "b"}]}, "documents"),
        ({"messages": HELLO, "documents": ["a"]}, "documents"),
    ],
)
def test_what_cannot_be_continued_is_named(client: httpx.Client, body: Any, param: str) -> None:
    answer = client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_document_has_every_route_and_every_field(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    schemas = document["components"]["schemas"]
    for path, name in (("/v1/chat/completions", "ChatBody"), ("/v1/completions", "CompletionBody")):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{name}"}
        assert {"200", "400", "404", "503"} <= operation["responses"].keys()
    assert schemas["ChatBody"]["properties"]["temperature"]["maximum"] == 2.0
    assert {"messages", "tools", "tool_choice", "stop", "seed"} <= schemas["ChatBody"]["properties"].keys()
    assert {"/health", "/metrics", "/v1/models", "/tokenize", "/detokenize"} <= document["paths"].keys()
    names = [o["operationId"] for path in document["paths"].values() for o in path.values()]
    assert len(set(names)) == len(names)
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
