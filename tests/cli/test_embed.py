"""`rockledge embed`, and what the other commands do with a model that makes embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.quantization.embedder import TEXTS, embeddings, write_embedder

from rockledge.quantization.pipeline import quantize

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("embedder") / "model"
    return path, write_embedder(path)


@pytest.fixture(scope="module")
def embedder(source: tuple[Path, Any]) -> Path:
    out = source[0].with_name("artifact")
    quantize(source[0], out, bits=9.5, fast=True, tokens=2048)
    return out


def test_embed(rockledge: Run, embedder: Path, source: tuple[Path, Any]) -> None:
    done = rockledge("embed", embedder, *TEXTS[:3], "--threads", 1, "--json")
    assert done.code == 0
    body, expected = done.json, embeddings(*source, TEXTS[:3])
    assert body["dimensions"] == 64
    assert body["prompt_tokens"][0] > 5
    assert (np.array(body["embeddings"]) * expected).sum(axis=1).min() > 0.999
    people = rockledge("embed", embedder, *TEXTS[:2], "--dimensions", 32).out.splitlines()
    assert people[0] == "32 dimensions; cosines between the texts:"
    cut = expected[:2, :32] / np.linalg.norm(expected[:2, :32], axis=1, keepdims=True)
    assert float(people[2].split()[2]) == pytest.approx(cut[0] @ cut[1], abs=0.02)


def test_eval_compares_embeddings(
    rockledge: Run, embedder: Path, source: tuple[Path, Any], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20)
    words = ["eval", embedder, "--reference", source[0], "--text", text, "--window", 64]
    body = rockledge(*words, "--windows", 2, "--json").json
    assert 0 < body["cosine_distance_mean"] < body["cosine_distance_max"] < 0.01
    assert (body["windows"], body["scored_tokens"]) == (2, 2 * 31)
    assert "1 - cosine" in rockledge(*words).out
    probes = rockledge(*words, "--probes", 1)
    assert (probes.code, "no language head" in probes.err) == (2, True)


def test_a_model_with_a_head_is_no_reference_for_one_without(
    rockledge: Run, embedder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some words " * 50)
    done = rockledge("eval", embedder, "--reference", checkpoint, "--text", text)
    assert (done.code, "artifact has no language head and the reference has one" in done.err) == (2, True)


@pytest.mark.parametrize("words", [("run", "hi"), ("chat",), ("bench", "--prompt", 8)])
def test_what_needs_a_head_says_so(words: tuple[str, ...], rockledge: Run, embedder: Path) -> None:
    done = rockledge(words[0], embedder, *words[1:], "--threads", 1)
    assert done.code == 2
    assert "artifact has no language head: it can neither generate nor score" in done.err.splitlines()[-1]


def test_an_ordinary_model_makes_no_embeddings(rockledge: Run, artifact: Path) -> None:
    done = rockledge("embed", artifact, "hi", "--threads", 1)
    assert (done.code, "was not made for embeddings" in done.err) == (2, True)


def test_inspect_says_that_there_is_no_head(rockledge: Run, embedder: Path) -> None:
    assert "(no language head)" in rockledge("inspect", embedder).out
    assert rockledge("inspect", embedder, "--json").json["headless"]


def test_it_is_served_beside_a_model_that_generates(
    serving: Callable[..., Any], rockledge: Run, embedder: Path, artifact: Path
) -> None:
    alone = rockledge("embed", embedder, *TEXTS[:2], "--threads", 1, "--json").json["embeddings"]
    with (
        serving(artifact=embedder, beside=[artifact]) as served,
        httpx.Client(base_url=served.ready["url"], timeout=60) as http,
    ):
        found = http.post("/v1/embeddings", json={"model": "artifact", "input": TEXTS[:2]}).json()["data"]
        assert [one["embedding"] for one in found] == alone
        refused = http.post("/v1/completions", json={"model": "artifact", "prompt": "a"})
        assert "no language head" in refused.json()["error"]["message"]
        body = {"model": artifact.name, "prompt": "a", "max_tokens": 2, "temperature": 0}
        written = http.post("/v1/completions", json=body)
        assert written.json()["usage"]["completion_tokens"] == 2
        other = http.post("/v1/embeddings", json={"model": artifact.name, "input": "a"})
        assert "was not made for embeddings" in other.json()["error"]["message"]
