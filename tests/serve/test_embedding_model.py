"""Embeddings through a server from real models: against transformers, and whatever else is in the batch."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quantization.embedder import TEXTS, embeddings, write_embedder
from tests.runtime.test_embed import headless

from rockledge.conversion.convert import convert
from rockledge.model.checkpoint import open_checkpoint
from rockledge.runtime.engine import Engine


@pytest.fixture(scope="module", params=["last", "mean"])
def random_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    path = headless(tmp_path_factory.mktemp("embedder") / "random", "rotated-tied", request.param)
    with Engine.load(path, threads=2, ctx=160, parallel=4) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(random_engine: Engine, start_server: Callable[..., str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=start_server(random_engine), timeout=60) as client:
        yield client


def embed(client: httpx.Client, texts: list[str]) -> list[bytes]:
    answer = client.post("/v1/embeddings", json={"input": texts, "encoding_format": "base64"})
    assert answer.status_code == 200, answer.text
    return [one["embedding"] for one in answer.json()["data"]]


@pytest.mark.parametrize("pooling", ["lasttoken", "mean_tokens"])
def test_embeddings_are_those_of_transformers(
    pooling: str, serving: Callable[..., str], tmp_path: Path
) -> None:
    model = write_embedder(tmp_path / "model", pooling)
    texts = [text for text in TEXTS if text]
    expected = embeddings(tmp_path / "model", model, texts, mean=pooling == "mean_tokens")
    convert(open_checkpoint(tmp_path / "model"), tmp_path / "artifact", bits=8.5)
    with (
        Engine.load(tmp_path / "artifact", threads=1) as engine,
        httpx.Client(base_url=serving(engine), timeout=60) as client,
    ):
        body = client.post("/v1/embeddings", json={"input": texts}).json()
        wanted = {"query": texts[0], "documents": texts[1:]}
        ranked = client.post("/rerank", json=wanted).json()["results"]
    found = np.array([one["embedding"] for one in body["data"]])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (found * expected).sum(axis=1).min() > 0.99
    cosines = expected[1:] @ expected[0]
    for result in ranked:
        assert result["relevance_score"] == pytest.approx(cosines[result["index"]], abs=0.1)


texts = st.lists(st.text("ab ,é\n", min_size=1, max_size=60), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(texts=texts, order=st.randoms(use_true_random=False))
def test_an_embedding_has_the_same_bits_in_every_batch(
    texts: list[str], order: Any, client: httpx.Client
) -> None:
    found = embed(client, texts)
    numbers = list(range(len(texts)))
    order.shuffle(numbers)
    assert embed(client, [texts[i] for i in numbers]) == [found[i] for i in numbers]
    assert embed(client, [texts[0]]) == [found[0]]


def test_calls_at_once_do_not_change_a_bit(client: httpx.Client) -> None:
    batches = [[f"text {i} of {j}" * (i % 5 + 1) for i in range(8)] for j in range(4)]
    alone = [embed(client, batch) for batch in batches]
    found: dict[int, list[bytes]] = {}

    def run(number: int) -> None:
        found[number] = embed(client, batches[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == alone
