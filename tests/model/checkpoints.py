"""Tiny random checkpoints for tests: transformers models with everything random, and GGUF files of the same
weights."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 80, "max_position_embeddings": 256, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
# One entry for every way in which the families differ from each other.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "llama3": ("Llama", {"tie_word_embeddings": False, "rope_parameters": {"rope_theta": 500000.0}}),
    "llama3.1-scaled": ("Llama", {"tie_word_embeddings": False, "rope_parameters": LLAMA3}),
    "llama3.2-tied-scaled": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", {"rope_parameters": LINEAR}),
    "smollm": ("Llama", {"tie_word_embeddings": True, "hidden_size": 48, "num_attention_heads": 3,
                         "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
                         "rope_parameters": {"rope_theta": 1e5}}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "qwen2.5-tied": ("Qwen2", {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1e6}}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": False, "head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 16, "num_key_value_heads": 4}),
}  # fmt: skip


def random_model(name: str, **changes: Any) -> Any:
    """The transformers model of `MODELS[name]`, float32, with norms and biases random too."""
    torch.manual_seed(7)
    family, own = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **own, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for key, values in model.named_parameters():
            if values.dim() == 1:
                values.normal_(0.0 if key.endswith("bias") else 1.0, 0.3)
            else:
                values.normal_(0.0, 0.15)
    return model


def save(model: Any, path: Path, **options: Any) -> Path:
    """As a Hugging Face directory without a tokenizer."""
    model.save_pretrained(path, **options)
    return path


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Q or K as llama.cpp stores them for architecture llama: rotary pairs become neighbours."""
    half = rows.shape[0] // heads // 2
    order = [h * 2 * half + part * half + i for h in range(heads) for i in range(half) for part in range(2)]
    return rows[order]


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
ALL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names, Q and K interleaved where the architecture is llama."""
    config, found = model.config, {}
    for key, values in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, kind = key.rsplit(".", 1)
        if stem in ALL:
            name = ALL[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            name = f"blk.{layer}.{GGUF_NAMES[part]}"
        array = values.numpy()
        sharing = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        heads = sharing.get(name.split(".")[-1])
        if heads and config.model_type == "llama":
            array = interleave(array, heads)
        found[f"{name}.{kind}"] = array
    return found


def write_gguf(
    path: Path,
    model: Any,
    kinds: Mapping[str, gguf.GGMLQuantizationType] | None = None,
    *,
    tokenizer: bool = True,
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A GGUF file of the model: float32, or by name (without "blk.0.") as `kinds` says."""
    config = model.config
    arch = config.model_type
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if tokenizer:
        tokens, types, merges = byte_vocabulary(config.vocab_size)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for key, value in (metadata or {}).items():
        add = {
            int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
            bool: writer.add_bool, list: writer.add_array,
        }[type(value)]  # fmt: skip
        add(key, value)
    for name, array in {**gguf_tensors(model), **(extra or {})}.items():
        short = name.split(".", 2)[-1] if name.startswith("blk.") else name
        kind = (kinds or {}).get(short)
        array = np.ascontiguousarray(array, np.float32)
        if kind is None:
            writer.add_tensor(name, array)
        elif kind == gguf.GGMLQuantizationType.Q4_K:
            writer.add_tensor(name, random_q4_k(array.shape), raw_dtype=kind)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_vocabulary(size: int) -> tuple[list[str], list[int], list[str]]:
    """`size` tokens: three control tokens, printable ASCII as room allows, one merge at the end."""
    controls = ["<unk>", "<|im_start|>", "<|im_end|>"]
    letters = [chr(c) for c in range(0x61, 0x7B)] + [chr(c) for c in range(0x21, 0x61)]
    tokens = [*controls, *letters[: size - 4], "th"]
    return tokens, [3] * 3 + [1] * (size - 3), ["t h"]


def random_q4_k(shape: tuple[int, ...]) -> np.ndarray:
    """Random Q4_K blocks of 256 weights in 144 bytes: two float16 scales, 12 scale bytes, 128 of codes."""
    random = np.random.default_rng(3)
    blocks = int(np.prod(shape)) // 256
    block = struct.pack("<ee", 0.01, 0.02)
    raw = [np.frombuffer(block + random.bytes(140), np.uint8) for _ in range(blocks)]
    return np.concatenate(raw).reshape(shape[0], -1)
