"""Checkpoints that went wrong once: sliding windows, and the context that they leave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.checkpoints import random_model, write_gguf
from tests.model.opened_cases import CASES, TOKENS, agree, changed, refused
from transformers import AutoModelForCausalLM

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.reference import forward


def test_a_window_that_no_layer_uses_does_not_cut_the_context() -> None:
    checkpoint = agree(CASES / "f15_window")
    assert checkpoint.config.context == 1024
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("case", "config", "without", "context"),
    [
        ("f15_window", {"max_window_layers": 0}, ("layer_types",), 64),
        ("f15_window", {"max_window_layers": 0}, (), 1024),  # layer_types decides
        ("f15_window", {"max_window_layers": 0, "use_sliding_window": False}, ("layer_types",), 1024),
        ("f15_window", {}, ("layer_types", "max_window_layers"), 1024),  # 28 layers without one by default
        ("f16_both", {"sliding_window": 64, "use_sliding_window": True}, ("rope_scaling",), 1024),
    ],
)
def test_windows_are_those_of_the_family(
    case: str, config: dict[str, Any], without: tuple[str, ...], context: int, tmp_path: Path
) -> None:
    path = changed(case, tmp_path, config, without=without)
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.context == context
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        expected, found = model(TOKENS).logits, forward(checkpoint, TOKENS)
    torch.testing.assert_close(found[:, :context], expected[:, :context], rtol=1e-4, atol=1e-4)
    if context < 128:  # past the window the models differ, which is why the context is cut, and told
        assert (found[:, 127] - expected[:, 127]).abs().max() > 1e-3
        assert "attend to a window of 64 tokens; the context is cut to it from 1024" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("layer_types", "context"), [(None, 64), (["full_attention"], 1024), (["sliding_attention"], 64)]
)
def test_mistral_has_its_window_in_every_layer_unless_their_types_say_otherwise(
    layer_types: list[str] | None, context: int, tmp_path: Path
) -> None:
    changes = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 64}
    if layer_types is not None:
        changes["layer_types"] = layer_types
    path = changed("f16_both", tmp_path, changes, without=("rope_scaling", "mlp_bias", "attention_bias"))
    checkpoint = open_checkpoint(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        expected, found = model(TOKENS).logits, forward(checkpoint, TOKENS)
    same = torch.isclose(found, expected, rtol=1e-4, atol=1e-4).all(-1)[0]
    assert same[:64].all()
    assert bool(same.all()) is (context == 1024)
    assert checkpoint.config.context == context


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer_types": ["sliding_attention"], "use_sliding_window": False}, "no sliding_window is in use"),
        ({"layer_types": ["chunked_attention"]}, "layers of type 'chunked_attention'"),
        ({"layer_types": ["full_attention"] * 2}, "not a list of 1 names"),
        ({"layer_types": 3}, "not a list of 1 names"),
    ],
)
def test_layer_types_that_make_no_sense_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(changed("f15_window", tmp_path, config), said)


def test_a_window_in_a_gguf_file_is_told(tmp_path: Path) -> None:
    metadata = {"llama.attention.sliding_window": 64}
    checkpoint = open_checkpoint(write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=metadata))
    assert checkpoint.config.context == 64
    assert "the context is cut to it from 256" in checkpoint.notes[0]
