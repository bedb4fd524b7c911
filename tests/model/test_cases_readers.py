"""Checkpoints that went wrong once, and their kind: each gives the logits of transformers, or one sentence.

The directories and files in `cases/` are random models of one layer.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.checkpoints import random_model, save, write_gguf
from transformers import AutoModelForCausalLM

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.reference import forward

CASES = Path(__file__).parent / "cases"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENS = torch.arange(1, 257).reshape(2, 128)  # longer than the window of `f15_window`
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def agree(path: Path, **options: Any) -> Checkpoint:
    """Opens `path` here and with transformers, and compares the logits."""
    checkpoint = open_checkpoint(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options)
    with torch.no_grad():
        expected, found = model(TOKENS).logits, forward(checkpoint, TOKENS)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    return checkpoint


def changed(
    case: str,
    tmp_path: Path,
    config: Mapping[str, object] | None = None,
    *,
    without: tuple[str, ...] = (),
    weights: Any = None,
) -> Path:
    """A copy of a case with keys of config.json set and removed, and its tensors put through `weights`."""
    path = tmp_path / case
    shutil.copytree(CASES / case, path)
    stored = json.loads((path / "config.json").read_text())
    kept = {key: value for key, value in stored.items() if key not in without}
    (path / "config.json").write_text(json.dumps({**kept, **(config or {})}))
    if weights is not None:
        save_file(weights(load_file(path / WEIGHTS)), path / WEIGHTS, metadata={"format": "pt"})
    return path


def refused(path: Path, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not sentence.endswith(".")


def token(case: str, name: str) -> int:
    tokenizer = json.loads((CASES / case / "tokenizer.json").read_text())
    return next(int(t["id"]) for t in tokenizer["added_tokens"] if t["content"] == name)


# f2_eos: ends of a turn, wherever they stand


@pytest.mark.parametrize("case", ["f2_eos", "f2_eos.gguf"])
def test_both_readers_find_every_end_of_a_turn(case: str) -> None:
    ends = [token("f2_eos", name) for name in ("<|endoftext|>", "<|im_end|>")]
    assert open_checkpoint(CASES / case).config.eos == tuple(ends)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"eos_token": "b"}),
        ("tokenizer_config.json", {"eos_token": {"content": "b", "special": True}}),
        ("special_tokens_map.json", {"eos_token": "b"}),
        ("special_tokens_map.json", {"eos_token": {"content": "b", "lstrip": False}}),
        ("generation_config.json", {"eos_token_id": [7, 8]}),
        ("generation_config.json", {"eos_token_id": 7}),
    ],
)
def test_an_end_of_a_turn_is_found_in_every_file(file: str, content: object, tmp_path: Path) -> None:
    path = changed("f2_eos", tmp_path)
    ids = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    (path / file).write_text(json.dumps(content))
    found = open_checkpoint(path).config.eos
    assert set(found) > {7} if file == "generation_config.json" else ids["b"] in found
    assert {token("f2_eos", name) for name in ("<|endoftext|>", "<|im_end|>")} < set(found)


def test_bos_is_named_by_the_tokenizers_files_where_no_id_is_given(tmp_path: Path) -> None:
    path = changed("f2_eos", tmp_path)
    assert open_checkpoint(path).config.bos is None
    (path / "special_tokens_map.json").write_text('{"bos_token": "<|im_start|>"}')
    assert open_checkpoint(path).config.bos == token("f2_eos", "<|im_start|>")


def test_a_name_that_the_tokenizer_lacks_is_refused(tmp_path: Path) -> None:
    path = changed("f2_eos", tmp_path)
    (path / "special_tokens_map.json").write_text('{"eos_token": "<nope>"}')
    refused(path, "eos_token '<nope>' the id 300, but the model has rows for 0 to 299 only")


# f3: metadata that change the arithmetic


def test_a_linear_factor_needs_no_type() -> None:
    untyped, typed = (open_checkpoint(CASES / f"f3_{name}.gguf") for name in ("notype", "type"))
    assert untyped.config == typed.config
    torch.testing.assert_close(forward(untyped, TOKENS), forward(typed, TOKENS), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({"llama.rope.scaling.factor": 4.0}, 4.0),
        ({"llama.rope.scale_linear": 4.0}, 4.0),
        ({"llama.rope.scale_linear": 2.0, "llama.rope.scaling.factor": 4.0}, 4.0),
        ({"llama.rope.scale_linear": 2.0, "llama.rope.scaling.type": "linear"}, 2.0),
        ({"llama.rope.scaling.factor": 0.0}, 1.0),
        ({"llama.rope.scaling.factor": 4.0, "llama.rope.scaling.type": "none"}, 1.0),
    ],
)
def test_the_factor_is_found_where_llama_cpp_finds_it(
    metadata: dict[str, Any], factor: float, tmp_path: Path
) -> None:
    model = random_model("llama2")
    checkpoint = open_checkpoint(write_gguf(tmp_path / "a.gguf", model, metadata=metadata))
    twin = random_model("llama2", rope_parameters={**LINEAR, "factor": factor, "rope_theta": 10000.0})
    twin.load_state_dict(model.state_dict())
    tokens = TOKENS % 80
    with torch.no_grad():
        torch.testing.assert_close(forward(checkpoint, tokens), twin(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.dimension_sections", [4, 2, 2, 0]),
        ("rope.scaling.beta_fast", 32.0),
        ("rope.freq_base_swa", 1e4),
        ("logit_scale", 8.0),
        ("residual_scale", 0.2),
        ("embedding_scale", 12.0),
        ("attention.scale", 0.01),
        ("attention.causal", False),
        ("attention.clamp_kqv", 8.0),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("expert_used_count", 2),
        ("use_parallel_residual", True),
        ("tensor_data_layout", "transposed"),
        ("a_key_of_tomorrow", 3),
    ],
)
def test_metadata_that_are_not_understood_are_refused_by_name(
    key: str, value: object, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={f"llama.{key}": value})
    refused(path, rf"a\.gguf has llama\.{key}: .*not supported; expected")


def test_metadata_that_do_not_change_the_results_are_taken(tmp_path: Path) -> None:
    metadata = {
        "llama.rope.scaling.finetuned": True, "llama.rope.scaling.original_context_length": 64,
        "llama.rope.scaling.attn_factor": 1.0, "llama.attention.scale": 0.25, "llama.logit_scale": 0.0,
        "llama.expert_count": 0, "llama.expert_used_count": 0, "llama.attention.causal": True,
        "llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": 1,
        "llama.tensor_data_layout": "Meta AI original pth", "llama.vocab_size": 80, "general.name": "x",
        "quantize.imatrix.entries_count": 3,
    }  # fmt: skip
    model = random_model("llama2")
    checkpoint = open_checkpoint(write_gguf(tmp_path / "a.gguf", model, metadata=metadata))
    assert checkpoint.notes == ()
    assert checkpoint.config.context == 256
    with torch.no_grad():
        expected = model(TOKENS % 80).logits
    torch.testing.assert_close(forward(checkpoint, TOKENS % 80), expected, rtol=1e-4, atol=1e-4)


def test_metadata_of_other_tools_are_told(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={"mradermacher.run": "7"})
    assert open_checkpoint(path).notes == (
        "a.gguf has metadata that are not known and not used: mradermacher.run.",
    )


@pytest.mark.parametrize(
    ("pattern", "windows"),
    [(None, (64, 64)), (1, ()), (False, ()), (2, (64, 0)), ([False, True], (0, 64)), ([False, False], ())],
)
def test_a_window_in_a_gguf_file_is_read(pattern: object, windows: tuple[int, ...], tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"llama.attention.sliding_window": 64}
    if pattern is not None:
        metadata["llama.attention.sliding_window_pattern"] = pattern
    config = open_checkpoint(
        write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=metadata)
    ).config
    assert (config.windows, config.context) == (windows, 256)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"attention.sliding_window_pattern": 4}, "pattern is 4, expected a window"),
        ({"attention.sliding_window": 8, "attention.sliding_window_pattern": [True]}, "expected 2 flags"),
        ({"attention.sliding_window": 8, "attention.sliding_window_pattern": "all"}, "pattern is all"),
    ],
)
def test_a_pattern_of_windows_that_makes_no_sense_is_refused(
    metadata: dict[str, Any], said: str, tmp_path: Path
) -> None:
    named = {f"llama.{key}": value for key, value in metadata.items()}
    refused(write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=named), said)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lm_head_bias", True), ("logits_soft_cap", 30.0),
        ("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0), ("query_pre_attn_scalar", 256),
        ("attention_multiplier", 0.5), ("embedding_multiplier", 12.0), ("residual_multiplier", 0.2),
        ("logits_scaling", 8.0), ("logit_scale", 0.06), ("scale_emb", 12), ("scale_depth", 1.4),
        ("partial_rotary_factor", 0.5), ("rotary_pct", 0.25), ("rope_interleaved", True), ("use_mrope", True),
        ("no_rope_layers", [1, 0]), ("no_rope_layer_interval", 4), ("attention_chunk_size", 8192),
        ("layer_types", ["sliding_attention"]), ("use_qk_norm", True), ("qk_layernorm", True),
        ("clip_qkv", 8.0), ("num_local_experts", 8), ("num_experts", 4), ("norm_type", "layernorm"),
        ("hidden_act", "gelu"), ("hidden_activation", "gelu_pytorch_tanh"), ("alibi", True),
        ("is_causal", False), ("num_kv_shared_layers", 2), ("pruned_heads", {"0": [1]}),
        ("some_new_scale", 3.0), ("qkv_norm_kind", "l2"), ("my_softcap", 20), ("layer_norm_eps", 0.5),
    ],
)  # fmt: skip
def test_keys_that_change_the_arithmetic_are_refused_by_name(key: str, value: object, tmp_path: Path) -> None:
    refused(changed("f16_both", tmp_path, {key: value}), key)


def test_keys_that_do_not_change_the_arithmetic_are_taken(tmp_path: Path) -> None:
    harmless = {
        "attention_dropout": 0.1, "pretraining_tp": 4, "use_cache": False, "mlp_bias": False,
        "rope_interleaved": False,
        "layer_norm_eps": json.loads((CASES / "f16_both/config.json").read_text())["rms_norm_eps"],
        "use_mrope": False, "is_llama_config": True, "unsloth_version": "2025.1", "torch_dtype": "bfloat16",
        "transformers.js_config": {"dtype": "q4"}, "partial_rotary_factor": 1.0, "logits_scaling": 1.0,
        "attn_logit_softcapping": None, "no_rope_layers": [1], "sep_token_id": 5, "id2label": {"0": "x"},
    }  # fmt: skip
    path = changed("f16_both", tmp_path, harmless, without=("rope_scaling",))
    assert agree(path).notes == ()


def test_keys_that_nobody_knows_are_told(tmp_path: Path) -> None:
    path = changed("f16_both", tmp_path, {"author": "x", "auto_map": {"A": "b.C"}}, without=("rope_scaling",))
    notes = " ".join(open_checkpoint(path).notes)
    assert "keys that are not known and not used: author" in notes
    assert "code of its own (auto_map), which is not run" in notes


# f4_head, f11_tied: the head


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


# f5_vocab: the vocabulary


def test_tokens_beyond_the_rows_of_the_embedding_are_refused_when_opened() -> None:
    refused(CASES / "f5_vocab", "the id 301, but the model has rows for 0 to 299 only")


def test_a_vocabulary_that_contradicts_the_embedding_is_refused(tmp_path: Path) -> None:
    refused(changed("f4_head", tmp_path, {"vocab_size": 301}), r"embed_tokens.weight has shape \[300, 32\]")
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={"llama.vocab_size": 81})
    refused(path, "vocab_size is 81, but token_embd.weight has 80 rows")


# f7_split: GGUF in parts


def test_a_split_gguf_loads_from_its_first_part_or_directory() -> None:
    directory = CASES / "f7_split"
    opened = [open_checkpoint(path) for path in (directory, directory / "m-00001-of-00002.gguf")]
    stored = {
        tensor.name: np.array(tensor.data)
        for part in sorted(directory.iterdir())
        for tensor in gguf.GGUFReader(part).tensors
    }
    for checkpoint in opened:
        assert len(checkpoint.names()) == len(stored) == 12
        for name, part in {
            "embed": "token_embd",
            "layers.0.attn.v": "blk.0.attn_v",
            "head": "output",
        }.items():
            np.testing.assert_array_equal(checkpoint.tensor(name), stored[part + ".weight"])
        assert forward(checkpoint, TOKENS).isfinite().all()


def test_the_second_part_of_a_split_gguf_names_the_first() -> None:
    refused(CASES / "f7_split/m-00002-of-00002.gguf", r"part 2 of 2 .*give m-00001-of-00002\.gguf or its")


@pytest.mark.parametrize("opened", ["", "m-00001-of-00002.gguf"])
def test_a_missing_part_is_named(opened: str, tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path)
    refused(tmp_path / opened, r"m-00002-of-00002\.gguf is missing beside it; fetch all parts")


def test_a_missing_first_part_is_named(tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00002-of-00002.gguf", tmp_path)
    refused(tmp_path, r"but not m-00001-of-00002\.gguf")


def test_parts_that_lost_their_names_are_refused(tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path / "model.gguf")
    refused(tmp_path / "model.gguf", r"does not end in -00001-of-00002\.gguf")


def test_parts_of_other_models_are_refused(tmp_path: Path) -> None:
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path / name)
    refused(tmp_path, r"m-00002-of-00002\.gguf says that it is part 0 of 2, expected 1 of 2")


def test_a_part_that_is_cut_short_is_named(tmp_path: Path) -> None:
    shutil.copytree(CASES / "f7_split", tmp_path, dirs_exist_ok=True)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(second.read_bytes()[:-64])
    refused(tmp_path, r"m-00002-of-00002\.gguf is cut short")


# f9_bias and scalings


def test_biases_of_llama_are_read() -> None:
    config = agree(CASES / "f9_bias").config
    assert (config.qkv_bias, config.o_bias) == (True, True)


@pytest.mark.parametrize("kind", ["proportional", "axial"])
@pytest.mark.parametrize("spelling", ["type", "rope_type"])
def test_scalings_are_refused_by_name(kind: str, spelling: str, tmp_path: Path) -> None:
    refused(
        changed("f16_both", tmp_path, {"rope_scaling": {spelling: kind, "factor": 2.0}}), f'"{kind}" is not'
    )


# f15: windows, and advice that fits


def test_a_window_that_no_layer_uses_does_not_cut_the_context() -> None:
    checkpoint = agree(CASES / "f15_window")
    assert checkpoint.config.context == 1024
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("case", "config", "without", "windows"),
    [
        ("f15_window", {"max_window_layers": 0}, ("layer_types",), (64,)),
        ("f15_window", {"max_window_layers": 0}, (), ()),  # layer_types decides
        ("f15_window", {"max_window_layers": 0, "use_sliding_window": False}, ("layer_types",), ()),
        ("f15_window", {}, ("layer_types", "max_window_layers"), ()),  # 28 layers without one by default
        ("f16_both", {"sliding_window": 64, "use_sliding_window": True}, ("rope_scaling",), ()),
    ],
)
def test_windows_are_those_of_the_family(
    case: str, config: dict[str, Any], without: tuple[str, ...], windows: tuple[int, ...], tmp_path: Path
) -> None:
    found = agree(changed(case, tmp_path, config, without=without)).config
    assert (found.windows, found.context) == (windows, 1024)


@pytest.mark.parametrize(
    ("layer_types", "windows"), [(None, (64,)), (["full_attention"], ()), (["sliding_attention"], (64,))]
)
def test_mistral_has_its_window_in_every_layer_unless_their_types_say_otherwise(
    layer_types: list[str] | None, windows: tuple[int, ...], tmp_path: Path
) -> None:
    changes = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 64}
    if layer_types is not None:
        changes["layer_types"] = layer_types
    path = changed("f16_both", tmp_path, changes, without=("rope_scaling", "mlp_bias", "attention_bias"))
    config = agree(path).config
    assert (config.windows, config.context) == (windows, 1024)


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


def test_shards_without_an_index_are_named() -> None:
    refused(CASES / "f15c_no_index", r"such as model-00001-of-00001.safetensors, but no .*; fetch the index")


def test_an_adapter_is_named_as_one() -> None:
    refused(CASES / "f15e_lora", r"holds an adapter \(LoRA\) of some/base, not a whole model; merge it into")
    refused(CASES / "f15e_lora/adapter_model.safetensors", "the weights of an adapter")


def test_an_adapter_beside_a_model_is_named_as_one(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    shutil.copy(CASES / "f15e_lora/adapter_config.json", path)
    refused(path, r"holds an adapter \(LoRA\)")


def test_an_adapter_under_a_models_name_is_named_as_one(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    shutil.copy(CASES / "f15e_lora/adapter_model.safetensors", path / WEIGHTS)
    refused(path, r"tensors of an adapter \(LoRA\)")


def test_an_adapter_in_a_gguf_file_is_named_as_one(tmp_path: Path) -> None:
    metadata = {"general.type": "adapter", "adapter.type": "lora"}
    refused(
        write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=metadata), r"is an adapter \(LoRA\)"
    )


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "generation_config.json", INDEX])
def test_a_git_lfs_pointer_is_named_as_one(name: str, tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    if name == INDEX:
        (path / WEIGHTS).unlink()
    (path / name).write_text(LFS)
    refused(path, rf"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` in")


def test_a_gguf_file_may_be_a_git_lfs_pointer_too(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text(LFS)
    refused(tmp_path / "a.gguf", r"a\.gguf is a Git LFS pointer")
    refused(tmp_path, r"a\.gguf is a Git LFS pointer")


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


def test_a_gguf_file_beside_a_bare_config_json_is_opened(tmp_path: Path) -> None:
    path = changed("f4_head", tmp_path)
    (path / WEIGHTS).unlink()
    shutil.copy(CASES / "f3_type.gguf", path)
    assert open_checkpoint(path).stored.startswith("GGUF")
    shutil.copy(CASES / "f3_notype.gguf", path)
    refused(path, r"holds 2 GGUF models \(f3_notype.gguf, f3_type.gguf\); name one of them")


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


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "is empty; give a GGUF file"),
        (
            ["tokenizer.json", "tokenizer_config.json"],
            "holds a tokenizer but neither a config.json nor weights",
        ),
        (["config.json"], r"a config.json but no weights; fetch model.safetensors"),
        ([WEIGHTS], "weights but no config.json; copy it"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin: pickled PyTorch weights.*save_pretrained"),
        (["config.json", "pytorch_model.bin.index.json"], "pickled PyTorch weights"),
        (["params.json", "consolidated.00.pth"], "consolidated.00.pth: weights in Meta's own format"),
        (["params.json", "consolidated.safetensors"], "Mistral's own format"),
        (
            ["config.json", "model.fp16.safetensors"],
            "model.fp16.safetensors, but no model.safetensors; rename it",
        ),
        (["inner/config.json"], "in inner there may be one"),
        (["README.md"], "neither a config.json nor a .gguf file"),
    ],
)
def test_advice_fits_what_a_directory_holds(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    refused(tmp_path, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (WEIGHTS, "give the directory that holds the safetensors"),
        ("config.json", "give the directory"),
        ("pytorch_model.bin", "is pickled PyTorch weights, which is not read"),
        ("model.txt", "not a GGUF file"),
    ],
)
def test_advice_fits_what_a_file_is(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(64))
    refused(tmp_path / name, said)


# f16_both: two spellings of one setting


def test_rope_scaling_counts_before_rope_parameters() -> None:
    checkpoint = agree(CASES / "f16_both")
    assert set(checkpoint.config.rope_divisors) == {4.0}
    assert "both rope_scaling and rope_parameters; rope_scaling counts" in checkpoint.notes[0]


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},  # the base is replaced too
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rope_theta": 7e5},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": None, "rope_theta": 7e5},
        {"rope_scaling": {**LINEAR, "rope_theta": 3e5}, "rope_theta": 7e5},
        {"rope_scaling": {}},
        {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 4.0}},
        {"rope_parameters": YARN},
        {"rope_scaling": YARN},
        {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 8.0, "beta_slow": 2.0}},
        {"rope_scaling": {**YARN, "attention_factor": 1.3, "truncate": False}},
        {"rope_scaling": None, "rope_parameters": {**YARN, "rope_theta": 1e4}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 64},
        {"rope_scaling": LLAMA3},
        {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}},
        {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32},
         "original_max_position_embeddings": 64},
    ],
)  # fmt: skip
def test_the_order_of_rotary_settings_is_that_of_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    agree(changed("f16_both", tmp_path, config))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rope_scaling": {}, "rope_parameters": {"full_attention": LINEAR}}, "an entry 'full_attention'"),
        ({"rope_scaling": {**LINEAR, "attention_factor": 1.3}}, "attention_factor: 1.3"),
        ({"rope_scaling": {**LINEAR, "partial_rotary_factor": 0.5}}, "partial_rotary_factor: 0.5"),
        ({"rope_scaling": [4.0]}, "rope_scaling in config.json is not an object"),
    ],
)
def test_rotary_settings_that_are_not_understood_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(changed("f16_both", tmp_path, config), said)


def test_entries_that_a_scaling_does_not_use_are_told(tmp_path: Path) -> None:
    path = changed("f16_both", tmp_path, {"rope_scaling": {**LINEAR, "beta_fast": 32}})
    assert "rope_scaling has keys that its type does not use: beta_fast" in " ".join(agree(path).notes)


# Which family it is


@pytest.mark.parametrize(
    ("config", "without"),
    [({}, ("architectures",)), ({"architectures": ["Qwen2ForCausalLM"]}, ()), ({"architectures": None}, ())],
)
def test_the_model_type_says_the_family(
    config: dict[str, Any], without: tuple[str, ...], tmp_path: Path
) -> None:
    assert agree(changed("f4_head", tmp_path, config, without=without)).config.family == "llama"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "'LlamaForSequenceClassification' is not supp",
        ),
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox', which is not supported"),
    ],
)
def test_models_of_another_kind_are_refused_by_name(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(changed("f4_head", tmp_path, config), said)
