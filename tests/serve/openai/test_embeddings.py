"""Embeddings over a scripted engine, whose states can be read off their inputs."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.conftest import CONTEXT
from tests.serve.scripted_engine import BOS, VOCAB, ScriptedEngine, scripted_state
from tests.serve.test_app import until

from rockledge.errors import NativeError
from rockledge.serve.safety.checks import Safety
from rockledge.serve.safety.key_file import KeyLimits, add_key
from rockledge.serve.safety.keys import Keys

HELLO = (BOS, *b"hello")


def unit(ids: Any) -> Any:
    state = np.array(scripted_state(tuple(ids)))
    return state / np.linalg.norm(state)


@pytest.fixture(scope="module")
def pooling(start_server: Callable[..., str]) -> Iterator[tuple[ScriptedEngine, httpx.Client]]:
    engine = ScriptedEngine()
    with httpx.Client(base_url=start_server(engine, pools=True), timeout=20) as client:
        yield engine, client


@pytest.fixture
def embedder(pooling: tuple[ScriptedEngine, httpx.Client]) -> ScriptedEngine:
    pooling[0].reset()
    return pooling[0]


@pytest.fixture
def client(embedder: ScriptedEngine, pooling: tuple[ScriptedEngine, httpx.Client]) -> httpx.Client:
    return pooling[1]


def embed(client: httpx.Client, **body: Any) -> Any:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_answer_is_openais_list(client: httpx.Client) -> None:
    body = embed(client, input="hello", model="scripted", user="me")
    assert (body["object"], body["model"]) == ("list", "scripted")
    assert body["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    (one,) = body["data"]
    assert (one["object"], one["index"]) == ("embedding", 0)
    np.testing.assert_allclose(one["embedding"], unit(HELLO), rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        (["hello", "x"], [HELLO, (BOS, ord("x"))]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([[1, 2, 3], [9]], [(1, 2, 3), (9,)]),
    ],
)
def test_inputs_come_in_four_forms(given: Any, ids: Any, client: httpx.Client) -> None:
    body = embed(client, input=given)
    assert [one["index"] for one in body["data"]] == list(range(len(ids)))
    np.testing.assert_allclose([one["embedding"] for one in body["data"]], [unit(i) for i in ids], rtol=1e-6)
    assert body["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_base64_is_of_little_endian_floats(client: httpx.Client) -> None:
    (one,) = embed(client, input="hello", encoding_format="base64")["data"]
    numbers = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
    np.testing.assert_allclose(numbers, unit(HELLO), rtol=1e-6)


def test_inputs_of_one_call_run_at_once_in_order(client: httpx.Client, embedder: ScriptedEngine) -> None:
    texts = [chr(ord("a") + i % 26) * (i % 7 + 1) for i in range(100)]
    body = embed(client, input=texts)
    expected = [unit((BOS, *text.encode())) for text in texts]
    np.testing.assert_allclose([one["embedding"] for one in body["data"]], expected, rtol=1e-6)
    assert embedder.most_active == embedder.parallel
    assert {request.kind for request in embedder.requests} == {"embed"}


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"input": ""}, "input", "not empty"),
        ({"input": ["a", ""]}, "input[1]", "not empty"),
        ({"input": []}, "input", "a string, a list of strings"),
        ({"input": None}, "input", "is missing"),
        ({"input": ["a", 1]}, "input", "a string, a list of strings"),
        ({"input": [[]]}, "input", "a string, a list of strings"),
        ({"input": ["a"] * 2049}, "input", "at most 2048 inputs"),
        ({"input": [VOCAB]}, "input", f"token id {VOCAB} is not in the vocabulary"),
        ({"input": [[1], [-1]]}, "input[1]", "token id -1 is not in the vocabulary"),
        ({"input": "\ud800"}, "input", "surrogate"),
        ({"encoding_format": "int8"}, "encoding_format", "one of float, base64"),
        ({"truncate_prompt_tokens": CONTEXT + 1}, "truncate_prompt_tokens", f"at most {CONTEXT}"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "whole number"),
        ({"colour": "red"}, "colour", "not a parameter"),
    ],
)
def test_wrong_fields_are_named(change: Any, param: str, said: str, client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", content=json.dumps({"input": "a", **change}))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert said in error["message"]


def test_an_input_that_is_too_long_gets_the_context_sentence(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": ["a", "b" * CONTEXT]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "input[1]")
    assert f"maximum context length is {CONTEXT} tokens" in error["message"]
    embed(client, input="b" * (CONTEXT - 1))  # with its beginning exactly the context


def test_longer_inputs_are_cut_where_that_is_asked_for(client: httpx.Client) -> None:
    long = "b" * (10 * CONTEXT)
    for most, kept in ((-1, CONTEXT), (5, 5)):
        body = embed(client, input=[[*long.encode()], [*range(1, 100)], [1]], truncate_prompt_tokens=most)
        whole = [(*long.encode(),)[:kept], (*range(1, 100),)[:kept], (1,)]
        np.testing.assert_allclose(
            [one["embedding"] for one in body["data"]], [unit(i) for i in whole], rtol=1e-6
        )
        (one,) = embed(client, input=long, truncate_prompt_tokens=most)["data"]
        np.testing.assert_allclose(one["embedding"], unit((BOS, *long.encode())[:kept]), rtol=1e-6)


def test_models_are_asked_for_what_they_can_do(client: httpx.Client, http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "hi"}]
    for path, body in (
        ("/v1/chat/completions", {"messages": messages}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": "wrong"}),
    ):
        error = client.post(path, json=body).json()["error"]
        assert (error["param"], "no language head" in error["message"]) == ("model", True)
        assert "/v1/embeddings" in error["message"]
    refused = http.post("/v1/embeddings", json={"input": "hi"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    assert "was not made for embeddings" in refused.json()["error"]["message"]
    assert client.post("/tokenize", json={"prompt": "hi"}).json()["count"] == 3


def test_a_client_that_leaves_ends_the_work(client: httpx.Client, embedder: ScriptedEngine) -> None:
    embedder.pace, embedder.parallel = 0.2, 1
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/embeddings", json={"input": ["a"] * 40}, timeout=1)
    until(lambda: embedder.idle)
    assert 20 < len(embedder.cancelled) < 40
    embedder.pace = 0.0
    embed(client, input="a")


def test_a_failure_of_one_input_fails_the_call(client: httpx.Client, embedder: ScriptedEngine) -> None:
    embedder.failure = NativeError("the step failed")
    answer = client.post("/v1/embeddings", json={"input": ["a", "b"]})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")


def test_what_is_embedded_counts_for_the_key(
    serving: Callable[..., str], embedder: ScriptedEngine, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "home", KeyLimits(tokens_per_day=10, priority=3))
    engine = ScriptedEngine()
    url = serving(engine, pools=True, safety=Safety(keys=Keys(tmp_path / "keys.json")))
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
        first = client.post(
            "/v1/embeddings", json={"input": ["ab", "ab"]}
        )  # with its beginning 3 tokens each
        second = client.post("/v1/embeddings", json={"input": ["abcd"]})
        third = client.post("/v1/rerank", json={"query": "a", "documents": ["b"]})
    assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (200, "4")
    assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert third.status_code == 200
    assert {request.client for request in engine.requests} == {"home"}
    assert min(request.priority for request in engine.requests) > 0


def test_strict_servers_take_the_fields_of_the_api(serving: Callable[..., str]) -> None:
    url = serving(ScriptedEngine(), pools=True, strict=True)
    good = {"input": "a", "model": "scripted", "user": "me", "encoding_format": "float"}
    assert httpx.post(f"{url}/v1/embeddings", json=good, timeout=20).status_code == 200
    bad = httpx.post(f"{url}/v1/embeddings", json={**good, "keep_alive": 5}, timeout=20)
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "keep_alive")


def test_the_openai_client(client: httpx.Client) -> None:
    """It asks for base64 and turns that into numbers itself."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="any") as api:
        found = api.embeddings.create(model="scripted", input=["hello", "x"])
        np.testing.assert_allclose(found.data[0].embedding, unit(HELLO), rtol=1e-6)
        assert found.usage.prompt_tokens == 8
        with pytest.raises(openai.BadRequestError, match="makes embeddings of"):
            api.embeddings.create(model="scripted", input="hello", dimensions=2)
