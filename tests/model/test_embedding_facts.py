"""Prompts and lengths of embeddings: from the files of a checkpoint, from its name, from an artifact."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.model.checkpoints import random_model, write_gguf
from tests.model.test_embedder import embedder

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.embedding_facts import EMBEDDING, EmbeddingFacts, known_facts, stored_facts

# Of Qwen3-Embedding's config_sentence_transformers.json.
QWEN = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


def facts_of(path: Path, config: dict[str, Any], prompts: Any) -> EmbeddingFacts:
    embedder(path)
    stored = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**stored, **config}))
    (path / "tokenizer.json").write_text("{}")
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return stored_facts(open_checkpoint_files(path))


def open_checkpoint_files(path: Path) -> dict[str, bytes]:
    (path / "tokenizer.json").unlink()  # a real one is needed to open it, and any to have its files
    checkpoint = open_checkpoint(path)
    (path / "tokenizer.json").write_text("{}")
    return checkpoint.files()


@pytest.mark.parametrize(
    ("config", "prompts", "expected"),
    [
        ({}, None, EmbeddingFacts()),
        ({"is_matryoshka": True}, {"query": "q: ", "document": "d: "}, EmbeddingFacts("q: ", "d: ", (), 1)),
        ({"matryoshka_dimensions": [32, 16]}, {"passage": "p: "}, EmbeddingFacts("", "p: ", (32, 16))),
        ({"is_matryoshka": True, "matryoshka_dimensions": [32]}, {}, EmbeddingFacts("", "", (32,))),
        ({"is_matryoshka": False}, {"query": 1}, EmbeddingFacts()),
    ],
)
def test_the_files_of_a_checkpoint_say_it(
    config: dict[str, Any], prompts: Any, expected: EmbeddingFacts, tmp_path: Path
) -> None:
    assert facts_of(tmp_path / "model", config, prompts) == expected


def test_what_the_files_leave_out_comes_from_the_name(tmp_path: Path) -> None:
    found = facts_of(tmp_path / "Qwen3-Embedding-0.6B", {}, {"query": "mine: ", "document": ""})
    assert found == EmbeddingFacts("mine: ", "", (), 32)
    assert known_facts("Qwen3 Embedding 4B") == EmbeddingFacts(QWEN, "", (), 32)
    assert known_facts("my-model") == EmbeddingFacts()


def test_a_gguf_file_says_its_name(tmp_path: Path) -> None:
    metadata = {"qwen3.pooling_type": 3, "general.name": "Qwen3 Embedding 0.6B"}
    path = write_gguf(tmp_path / "a.gguf", random_model("qwen3"), metadata=metadata)
    assert stored_facts(open_checkpoint(path).files()).query == QWEN
    plain = write_gguf(tmp_path / "b.gguf", random_model("qwen3"))
    assert EMBEDDING not in open_checkpoint(plain).files()


def test_lengths() -> None:
    any_from_32 = EmbeddingFacts(least=32)
    assert [any_from_32.may_be(n, 64) for n in (0, 31, 32, 63, 64, 65)] == [False, False, *[True] * 3, False]
    listed = EmbeddingFacts(lengths=(32,))
    assert [listed.may_be(n, 64) for n in (31, 32, 33, 64)] == [False, True, False, True]
    assert [EmbeddingFacts().may_be(n, 64) for n in (32, 64)] == [False, True]


def test_older_artifacts_know_nothing_and_damage_is_said() -> None:
    assert stored_facts({}) == EmbeddingFacts()
    with pytest.raises(CheckpointError, match="not readable JSON"):
        stored_facts({EMBEDDING: b"{"})
