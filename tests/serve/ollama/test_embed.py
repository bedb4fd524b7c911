"""`/api/embed` and `/api/embeddings`, over an engine whose states can be read off their inputs."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.conftest import CONTEXT
from tests.serve.scripted_engine import BOS, ScriptedEngine, scripted_state


def unit(text: bytes) -> Any:
    state = np.array(scripted_state((BOS, *text)))
    return state / np.linalg.norm(state)


@pytest.fixture(scope="module")
def pooling(start_server: Callable[..., str]) -> Iterator[httpx.Client]:
    engine: Any = ScriptedEngine()
    with httpx.Client(base_url=start_server(engine, pools=True), timeout=20) as client:
        yield client


def ask(client: httpx.Client, path: str = "/api/embed", **body: Any) -> httpx.Response:
    return client.post(path, json={"model": "scripted", **body})


def test_texts_become_embeddings_of_length_one(pooling: httpx.Client) -> None:
    answer = ask(pooling, input=["hello", "x"]).json()
    np.testing.assert_allclose(answer["embeddings"], [unit(b"hello"), unit(b"x")], rtol=1e-6)
    assert answer["model"] == "scripted"
    assert answer["prompt_eval_count"] == 6 + 2
    assert answer["total_duration"] > answer["load_duration"] >= 0
    np.testing.assert_allclose(ask(pooling, input="hello").json()["embeddings"], [unit(b"hello")], rtol=1e-6)


def test_a_text_as_it_was_asked_before(pooling: httpx.Client) -> None:
    answer = ask(pooling, "/api/embeddings", prompt="hello", options={"num_ctx": 2048}, keep_alive=-1).json()
    assert list(answer) == ["embedding"]
    np.testing.assert_allclose(answer["embedding"], unit(b"hello"), rtol=1e-6)


def test_a_text_that_is_too_long_is_cut_at_its_end_unless_the_request_says_otherwise(
    pooling: httpx.Client,
) -> None:
    found = ask(pooling, input="x" * 500).json()
    assert found["prompt_eval_count"] == CONTEXT
    np.testing.assert_allclose(found["embeddings"], [unit(b"x" * (CONTEXT - 1))], rtol=1e-6)
    refused = ask(pooling, input="x" * 500, truncate=False)
    assert refused.status_code == 400
    assert "maximum context length" in refused.json()["error"]


@pytest.mark.parametrize(("keep_alive", "loaded"), [(0, False), (60, True)])
def test_without_texts_a_model_is_loaded_or_unloaded(
    pooling: httpx.Client, keep_alive: int, loaded: bool
) -> None:
    for given in ([], "", None):
        answer = ask(pooling, input=given, keep_alive=keep_alive).json()
        assert answer == {"model": "scripted", "embeddings": []}
        assert bool(pooling.get("/api/ps").json()["models"]) == loaded
    assert ask(pooling, "/api/embeddings", keep_alive=keep_alive).json() == {"embedding": []}
    # A client that unloads whatever there is asks so.
    assert ask(pooling, "/api/generate", keep_alive=0).json()["done_reason"] == "unload"


def test_models_are_asked_for_what_they_can(pooling: httpx.Client, http: httpx.Client) -> None:
    assert pooling.post("/api/show", json={"model": "scripted"}).json()["capabilities"] == ["embedding"]
    for path, body in (
        ("/api/generate", {"prompt": "Hi"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    ):
        refused = ask(pooling, path, **body)
        assert refused.status_code == 400
        assert "has no language head" in refused.json()["error"]
    refused = ask(http, input="Hi")
    assert refused.status_code == 400
    assert "was not made for embeddings" in refused.json()["error"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"input": ["a", ""]}, "'input[1]' must be text that is not empty"),
        ({"input": [1, 2]}, "'input' must be a string or a list of strings"),
        ({"input": {"a": 1}}, "'input' must be a string or a list of strings"),
        ({"input": ["a"] * 3000}, "'input' must be at most 2048 texts"),
        ({"input": "a", "dimensions": 3}, "'dimensions' is 3"),
        ({"input": "a", "truncate": 1}, "'truncate' must be true or false"),
    ],
)
def test_what_is_wrong_is_refused_by_name(pooling: httpx.Client, body: Any, sentence: str) -> None:
    response = ask(pooling, **body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(sentence)
