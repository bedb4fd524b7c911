"""Adapters merged by Rockledge are peft's own merge."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rockledge.errors import CheckpointError, RockledgeError, UsageError
from rockledge.model import adapter
from rockledge.model.adapter import with_adapter
from rockledge.model.checkpoint import open_checkpoint
from rockledge.synth import model_files, shape_config

peft = pytest.importorskip("peft")

VOCAB = 300


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name a small random model in float32: tied or not, and with fused projections (Phi-3)."""
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Phi3Config,
        Phi3ForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    made: dict[str, Any] = {
        "untied": LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False)),
        "tied": LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)),
        "fused": Phi3ForCausalLM(Phi3Config(**sizes, tie_word_embeddings=False)),
        "biased": Qwen2ForCausalLM(Qwen2Config(**sizes, tie_word_embeddings=False)),
    }
    found = {}
    for name, model in made.items():
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        for file, data in model_files(shape_config("toy")).items():
            (found[name] / file).write_bytes(data)
    return found


def adapter_of(base: Path, place: Path, **settings: Any) -> Any:
    """An adapter with random numbers in all of its tensors, saved to `place`; returns peft's merged model."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    config = peft.LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings})
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    model.save_pretrained(place)
    again = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(again, place).merge_and_unload()


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rank and alpha": ("untied", {"r": 3, "lora_alpha": 11}),
    "rank-stabilised": ("untied", {"use_rslora": True, "lora_alpha": 6}),
    "patterns": (
        "untied",
        {
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 7},
            "alpha_pattern": {"k_proj": 1, "down_proj": 20},
            "use_rslora": True,
        },
    ),
    "some modules": ("untied", {"target_modules": ["q_proj", "down_proj"]}),
    "saved modules": ("untied", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "embedding and head": ("untied", {"target_modules": ["embed_tokens", "lm_head", "v_proj"]}),
    "saved head of a tied model": ("tied", {"modules_to_save": ["lm_head"]}),
    "saved embedding of a tied model": ("tied", {"modules_to_save": ["embed_tokens"]}),
    "saved matrix that stays tied": (
        "tied",
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "saved head that stays tied": ("tied", {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
    "saved norm": ("untied", {"modules_to_save": ["input_layernorm"]}),
    "fused projections": ("fused", {}),
    "biases of the base": ("biased", {"bias": "all"}),
    "bias of the adapter": ("biased", {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_merging_is_pefts(case: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, settings = CASES[case]
    merged = adapter_of(bases[name], tmp_path, **settings)
    base = open_checkpoint(bases[name])
    adapted = with_adapter(base, tmp_path)
    expected = {key: value.numpy() for key, value in merged.state_dict().items()}
    changed = 0
    for tensor in adapted.names():
        stored = adapted.tensors[tensor]
        rows = slice(stored.in_hf.first, stored.in_hf.first + stored.shape[0])
        wanted = expected[stored.hf][rows]
        np.testing.assert_allclose(adapted.tensor(tensor), wanted, rtol=0, atol=1e-6)
        if len(stored.shape) == 2:
            np.testing.assert_array_equal(adapted.rows(tensor, 3, 5), adapted.tensor(tensor)[3:8])
        if tensor in base.names():
            changed += not np.array_equal(adapted.tensor(tensor), base.tensor(tensor))
        else:
            changed += 1
    assert changed >= len(adapted.adapter.changes)
    untied = not torch.equal(merged.get_output_embeddings().weight, merged.get_input_embeddings().weight)
    assert adapted.config.tied == (not untied)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
    ],
)
def test_what_is_not_merged_is_refused_by_name(
    settings: dict[str, Any], said: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter_of(bases["untied"], tmp_path, target_modules=["q_proj"], **settings)
    with pytest.raises(UsageError, match=said):
        with_adapter(open_checkpoint(bases["untied"]), tmp_path)


def test_adapting_the_matrix_of_a_tied_model_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter_of(bases["tied"], tmp_path, target_modules=["embed_tokens"])
    with pytest.raises(UsageError, match="one matrix"):
        with_adapter(open_checkpoint(bases["tied"]), tmp_path)


def test_a_tied_matrix_that_is_saved_as_two_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter_of(bases["tied"], tmp_path, modules_to_save=["lm_head"], ensure_weight_tying=True)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights["base_model.model.lm_head.weight"] += 1
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="head and embedding that differ"):
        with_adapter(open_checkpoint(bases["tied"]), tmp_path)


def test_an_adapter_of_another_model_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter_of(bases["untied"], tmp_path)
    with pytest.raises(UsageError, match=r"gate_proj|q_proj|k_proj|v_proj|up_proj"):
        with_adapter(open_checkpoint(bases["fused"]), tmp_path)


def _change_config(place: Path, **values: Any) -> None:
    file = place / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"r": 0}, "rank 0"),
        ({"lora_alpha": "x"}, "alpha x"),
        ({"lora_alpha": True}, "alpha True"),
        ({"lora_alpha": 10**400}, "alpha 1000"),
        ({"r": 10**400}, "rank 1000"),
        ({"r": 7}, "the rank 7, but base_model"),  # peft does not load it: sizes differ
        ({"rank_pattern": {"a{99999999999}": 3}}, "regular expression"),
        ({"rank_pattern": {"(" * 3000 + ")" * 3000: 3}}, "regular expression"),
        ({"use_rslora": "no"}, "use_rslora is neither true nor false"),
        ({"rank_pattern": {"(": 3}}, "regular expression"),
        ({"rank_pattern": [1]}, "not an object"),
        ({"rank_pattern": {"a)|(b": 3}}, "regular expression"),
        ({"rank_pattern": {"(?=q_proj)q_proj": 3}}, "merge it by peft"),
        ({"peft_type": "IA3"}, "type IA3"),
        ({"some_future_key": 3}, "some_future_key"),
    ],
)
def test_a_wrong_configuration_is_said(
    values: dict[str, Any], said: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter_of(bases["untied"], tmp_path, target_modules=["q_proj"])
    _change_config(tmp_path, **values)
    with pytest.raises(RockledgeError, match=re.escape(said)):
        with_adapter(open_checkpoint(bases["untied"]), tmp_path)


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_would_never_end_is_matched(key: str, bases: dict[str, Path], tmp_path: Path) -> None:
    adapter_of(bases["untied"], tmp_path, target_modules=["q_proj"])
    _change_config(tmp_path, **{key: {r"([a-z_.0-9]+)+!": 9, r"((\w|\.)*)*\.k_proj": 9}})
    base = open_checkpoint(bases["untied"])
    begun = time.process_time()
    with_adapter(base, tmp_path).tensor("layers.0.attn.q")
    assert time.process_time() - begun < 2


def test_as_many_patterns_as_modules_take_no_time(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter_of(bases["untied"], tmp_path, target_modules=["q_proj"])
    names = [f"model.layers.{n}.{part}" for n in range(32) for part in ("self_attn.k_proj", "mlp.up_proj")]
    _change_config(tmp_path, rank_pattern=dict.fromkeys(names, 2))
    begun = time.process_time()
    with_adapter(open_checkpoint(bases["untied"]), tmp_path).tensor("layers.0.attn.q")
    assert time.process_time() - begun < 2


def test_patterns_that_take_too_long_are_refused(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter_of(bases["untied"], tmp_path, target_modules=["q_proj"])
    _change_config(tmp_path, rank_pattern={f"{n}.*": 2 for n in range(100)})
    monkeypatch.setattr(adapter, "_SECONDS", 0.0)
    with pytest.raises(UsageError, match="more than 0 seconds to match; merge it by peft"):
        with_adapter(open_checkpoint(bases["untied"]), tmp_path)


def test_wrong_weights_are_said(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter_of(bases["untied"], tmp_path, target_modules=["q_proj"])
    file, base = tmp_path / "adapter_model.safetensors", open_checkpoint(bases["untied"])
    tensors = load_file(file)
    first = sorted(name for name in tensors if "lora_A" in name)[0]
    save_file({**tensors, first: tensors[first][:, :-1].contiguous()}, file)
    with pytest.raises(UsageError, match="shape"):
        with_adapter(base, tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    with pytest.raises(CheckpointError, match="one half"):
        with_adapter(base, tmp_path)
    save_file({**tensors, first: torch.full_like(tensors[first], torch.nan)}, file)
    with pytest.raises(CheckpointError, match="finite"):
        with_adapter(base, tmp_path).tensor("layers.0.attn.q")
    save_file({**tensors, "base_model.model.model.norm.lora_C.weight": torch.zeros(4)}, file)
    with pytest.raises(UsageError, match="lora_C"):
        with_adapter(base, tmp_path)
    save_file({}, file)
    with pytest.raises(CheckpointError, match="holds no tensors"):
        with_adapter(base, tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        with_adapter(base, tmp_path)
    with pytest.raises(UsageError, match="not an adapter"):
        with_adapter(base, bases["tied"])
