"""Small random teachers of every family, with a tokenizer of letters, as Hugging Face directories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.model.checkpoints import byte_vocabulary
from tests.model.family_oracle import random_twin
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LAYERS = 4
KINDS = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
GEMMA: dict[str, Any] = {
    "head_dim": 16, "query_pre_attn_scalar": 20, "sliding_window": 8, "tie_word_embeddings": True,
}  # fmt: skip
# Class in transformers, and its own settings: every family, and what can differ by layer or by a size.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 8, "tie_word_embeddings": False}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False, "use_sliding_window": True, "sliding_window": 8,
                        "max_window_layers": 2}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    "gemma2": ("Gemma2", {**GEMMA, "layer_types": KINDS, "attn_logit_softcapping": 2.0,
                          "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3Text", {**GEMMA, "layer_types": KINDS}),
    "olmo2": ("Olmo2", {"tie_word_embeddings": False}),
    "phi3": ("Phi3", {"tie_word_embeddings": False, "partial_rotary_factor": 0.5}),
    "smollm3": ("SmolLM3", {"tie_word_embeddings": True, "no_rope_layers": [1, 0, 1, 0]}),
    "ministral3": ("Ministral3", {"head_dim": 32, "tie_word_embeddings": False}),
    "granitehybrid": ("GraniteMoeHybrid", {"num_local_experts": 0, "shared_intermediate_size": 96,
                                           "layer_types": ["attention"] * LAYERS, "mamba_n_heads": 8,
                                           "position_embedding_type": "rope"}),
    "granite": ("Granite", {"embedding_multiplier": 3.0, "residual_multiplier": 0.4,
                            "attention_multiplier": 0.1, "logits_scaling": 8.0}),
}  # fmt: skip


def teacher(
    name: str, path: Path, change: Callable[[Any], None] | None = None, **own: Any
) -> tuple[Path, Any]:
    """The directory of a random model of `FAMILIES[name]` of four layers, and the model; `change` is called
    with it before it is saved."""
    kind, settings = FAMILIES[name]
    model = random_twin(kind, **{"num_hidden_layers": LAYERS, **settings, **own})
    if change is not None:
        with torch.no_grad():
            change(model)
    return saved(model, path), model


HIDDEN, FFN, GONE = 64, 96, 1


def redundant(model: Any) -> None:
    """Every third channel of the stream, every third one of the feed-forward part, one query head of each
    group and the second layer do nothing; the model is otherwise random."""
    config, layers = model.config, model.model.layers
    size = layers[0].self_attn.head_dim
    stream, ffn = slice(0, HIDDEN, 3), slice(0, FFN, 3)
    each = config.num_attention_heads // config.num_key_value_heads
    for number, layer in enumerate(layers):
        attention, mlp = layer.self_attn, getattr(layer, "shared_mlp", None) or layer.mlp
        down = mlp.output_linear if hasattr(mlp, "output_linear") else mlp.down_proj
        for group in range(config.num_key_value_heads):
            head = group * each + (number + group) % each
            attention.o_proj.weight[:, head * size : (head + 1) * size] = 0
        down.weight[:, ffn] = 0
        for linear in (attention.o_proj, down):
            linear.weight[stream] = 0
            if linear.bias is not None:
                linear.bias[stream] = 0
            if number == GONE:
                linear.weight.zero_()
                if linear.bias is not None:
                    linear.bias.zero_()
    model.model.embed_tokens.weight[:, stream] = 0
    model.lm_head.weight[:, stream] = 0


def saved(model: Any, path: Path) -> Path:
    """A transformers model as a directory, with a tokenizer."""
    model.save_pretrained(path)
    words = [*byte_vocabulary(model.config.vocab_size)[0][:-1], "<last>"]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def letters(path: Path, count: int = 6000) -> Path:
    """A text of random letters."""
    path.write_bytes(np.random.default_rng(1).integers(ord("a"), ord("z") + 1, count, np.uint8).tobytes())
    return path
