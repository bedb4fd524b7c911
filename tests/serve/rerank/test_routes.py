"""Reranking over a scripted engine whose embeddings can be read off the texts."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.conftest import CONTEXT
from tests.serve.scripted_engine import BOS, ScriptedEngine, scripted_state

from rockledge.model.embedding_facts import EmbeddingFacts

FACTS = EmbeddingFacts(query="query: ", document="doc: ", lengths=(2,))
DOCUMENTS = ["alpha", "b", "the third of them", "b"]


def unit(text: str) -> Any:
    state = np.array(scripted_state((BOS, *text.encode())), np.float32)
    return state / np.linalg.norm(state)


@pytest.fixture(scope="module")
def pooling(start_server: Callable[..., str]) -> Iterator[tuple[ScriptedEngine, httpx.Client]]:
    engine = ScriptedEngine()
    url = start_server(engine, pools=True, embedding=FACTS, hidden=4)
    with httpx.Client(base_url=url, timeout=20) as client:
        yield engine, client


@pytest.fixture
def client(pooling: tuple[ScriptedEngine, httpx.Client]) -> httpx.Client:
    pooling[0].reset()
    return pooling[1]


def rerank(client: httpx.Client, path: str = "/v1/rerank", **body: Any) -> Any:
    answer = client.post(path, json={"query": "which?", "documents": DOCUMENTS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_documents_come_by_their_cosine_with_the_query(client: httpx.Client) -> None:
    body = rerank(client, model="scripted")
    scores = [float(unit("doc: " + text) @ unit("query: which?")) for text in DOCUMENTS]
    order = sorted(range(4), key=lambda i: (-scores[i], i))
    assert [result["index"] for result in body["results"]] == order
    found = [result["relevance_score"] for result in body["results"]]
    np.testing.assert_allclose(found, [scores[i] for i in order], rtol=1e-5)
    assert [result["document"]["text"] for result in body["results"]] == [DOCUMENTS[i] for i in order]
    lengths = [len("query: which?"), *(len("doc: " + text) for text in DOCUMENTS)]
    assert body["usage"] == {"prompt_tokens": sum(lengths) + 5, "total_tokens": sum(lengths) + 5}
    assert body["id"].startswith("rerank-")
    assert body["model"] == "scripted"


def test_no_cosine_is_above_1(serving: Callable[..., str]) -> None:
    """Embeddings of 32-bit numbers have a length of 1 only up to rounding: that of "b c" is longer."""
    url = serving(ScriptedEngine(), pools=True, hidden=4)
    body = {"query": "b c", "documents": ["b c", "c b"]}
    results = httpx.post(f"{url}/v1/rerank", json=body, timeout=20).json()["results"]
    assert results[0]["index"] == 0
    assert results[0]["relevance_score"] == 1


def test_the_other_address_and_objects_as_documents(client: httpx.Client) -> None:
    whole = rerank(client)["results"]
    assert rerank(client, "/rerank", documents=[{"text": text} for text in DOCUMENTS])["results"] == whole
    assert rerank(client, rank_fields=["text"], top_n=0)["results"] == whole
    assert rerank(client, top_n=2)["results"] == whole[:2]
    assert rerank(client, top_n=9)["results"] == whole
    bare = rerank(client, return_documents=False)["results"]
    assert bare == [{"index": r["index"], "relevance_score": r["relevance_score"]} for r in whole]


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"query": ""}, "query", "not empty"),
        ({"query": None}, "query", "missing"),
        ({"documents": []}, "documents", "1 to 2047 documents"),
        ({"documents": "a"}, "documents", "1 to 2047 documents"),
        ({"documents": ["a", 1]}, "documents", "made of strings"),
        ({"documents": [{"text": "a", "title": "b"}]}, "documents", "have a 'text' and nothing else"),
        ({"rank_fields": ["title"]}, "rank_fields", "the only field"),
        ({"top_n": -1}, "top_n", "whole number"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc", "not a parameter"),
    ],
)
def test_wrong_fields_are_named(change: Any, param: str, said: str, client: httpx.Client) -> None:
    answer = client.post("/rerank", json={"query": "a", "documents": ["b"], **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert said in answer.json()["error"]["message"]


def test_long_documents(client: httpx.Client, pooling: tuple[ScriptedEngine, httpx.Client]) -> None:
    documents = ["short", "x" * CONTEXT]
    error = client.post("/rerank", json={"query": "a", "documents": documents}).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "documents[1]")
    rerank(client, documents=documents, max_tokens_per_doc=6)
    assert sorted(len(request.prompt) for request in pooling[0].requests) == [6, 6, 14]
    pooling[0].reset()
    rerank(client, documents=documents, truncate_prompt_tokens=-1)
    assert max(len(request.prompt) for request in pooling[0].requests) == CONTEXT


def test_a_model_that_generates_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", json={"query": "a", "documents": ["b"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


def test_embeddings_are_cut_where_the_model_was_trained_for_it(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": "alpha", "dimensions": 2}).json()
    kept = unit("alpha")[:2]
    np.testing.assert_allclose(answer["data"][0]["embedding"], kept / np.linalg.norm(kept), rtol=1e-6)
    whole = client.post("/v1/embeddings", json={"input": "alpha", "dimensions": 4}).json()
    np.testing.assert_allclose(whole["data"][0]["embedding"], unit("alpha"), rtol=1e-6)
    for dimensions in (1, 3, 5):
        error = client.post("/v1/embeddings", json={"input": "a", "dimensions": dimensions}).json()["error"]
        assert error["param"] == "dimensions"
        assert "makes embeddings of 4, or cut to 2" in error["message"]
