"""Checkpoints that went wrong once: the head, the vocabulary, and where tensors are stored."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.model.checkpoints import random_model, save, write_gguf
from tests.model.opened_cases import CASES, INDEX, TOKENS, WEIGHTS, agree, changed, refused

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import forward


def test_a_stored_head_of_its_own_is_used() -> None:
    checkpoint = agree(CASES / "f4_head")
    assert not checkpoint.config.tied
    assert "a head that differs from the embedding is stored" in checkpoint.notes[0]


def test_a_stored_head_that_repeats_the_embedding_is_tied(tmp_path: Path) -> None:
    def repeat(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        embedding = held["model.embed_tokens.weight"].bfloat16()
        return {**held, "model.embed_tokens.weight": embedding, "lm_head.weight": embedding.float()}

    checkpoint = agree(changed("f4_head", tmp_path, weights=repeat))
    assert checkpoint.config.tied
    assert checkpoint.notes == ()


def test_a_tied_model_may_hold_its_matrix_as_the_head_only(tmp_path: Path) -> None:
    def only_head(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: values for name, values in held.items() if name != "model.embed_tokens.weight"}

    assert agree(changed("f4_head", tmp_path, weights=only_head)).config.tied


@pytest.mark.parametrize("same", [True, False])
def test_a_head_in_a_gguf_file_is_tied_only_if_it_repeats_the_embedding(same: bool, tmp_path: Path) -> None:
    model = random_model("smollm")
    head = model.model.embed_tokens.weight.detach().numpy() + (0 if same else 1)
    path = write_gguf(tmp_path / "a.gguf", model, extra={"output.weight": head})
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.tied is same
    assert ("head" in checkpoint.names()) is not same


def test_a_head_that_is_nowhere_is_refused_with_the_key_that_says_where() -> None:
    refused(CASES / "f11_tied", "tie_word_embeddings is missing in config.json, which means false for Llama")


def test_a_head_that_is_nowhere_is_the_embedding_once_config_json_says_so(tmp_path: Path) -> None:
    assert agree(changed("f11_tied", tmp_path, {"tie_word_embeddings": True})).config.tied
    refused(changed("f11_tied", tmp_path / "b", {"tie_word_embeddings": False}), "is false: fetch the head's")


def test_tokens_beyond_the_rows_of_the_embedding_are_refused_when_opened() -> None:
    refused(CASES / "f5_vocab", "the id 301, but the model has rows for 0 to 299 only")


def test_a_vocabulary_that_contradicts_the_embedding_is_refused(tmp_path: Path) -> None:
    refused(changed("f4_head", tmp_path, {"vocab_size": 301}), r"embed_tokens.weight has shape \[300, 32\]")
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={"llama.vocab_size": 81})
    refused(path, "vocab_size is 81, but token_embd.weight has 80 rows")


def test_a_whole_file_counts_before_a_stale_index(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    stale = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (path / INDEX).write_text(json.dumps(stale))
    assert f"{INDEX}; the whole file is read" in " ".join(agree(path).notes)


def test_a_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    shutil.move(path / WEIGHTS, path / "a.safetensors")
    shutil.copy(path / "a.safetensors", path / "b.safetensors")
    names = load_file(path / "a.safetensors")
    weight_map = {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(names)}
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(path, r"is in a\.safetensors too; the parts do not belong together")


def test_tensors_without_the_prefix_of_the_model_are_found(tmp_path: Path) -> None:
    def bare(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.removeprefix("model."): values for name, values in held.items()}

    agree(changed("f4_head", tmp_path, weights=bare))


def test_a_model_saved_without_its_head_is_found(tmp_path: Path) -> None:
    model = random_model("qwen3-tied")
    save(model.model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Qwen3Model"]
    with torch.no_grad():
        expected = model(TOKENS % 80).logits
    torch.testing.assert_close(
        forward(open_checkpoint(tmp_path), TOKENS % 80), expected, rtol=1e-4, atol=1e-4
    )
