"""What a family's test needs: a random transformers model, its twin as GGUF under the names of the gguf
package, and the comparison of logits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from tests.model.checkpoints import SIZES, interleave, save

from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model.forward import forward

TOKENS = torch.arange(96).reshape(2, 48) * 7 % 80  # longer than the windows and original contexts of tests


def random_twin(name: str, **changes: Any) -> Any:
    """A transformers causal model of `{name}Config`, float32, of the small sizes, everything in it random."""
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changes})
    kind = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")
    return randomised(kind(config))


def randomised(model: Any) -> Any:
    """The same model with random weights: gains near one (or zero where 1 + w is used), biases too."""
    torch.manual_seed(11)
    with torch.no_grad():
        for key, values in model.named_parameters():
            if values.dim() == 1:
                values.add_(torch.randn_like(values) * 0.3) if "norm" in key else values.normal_(0, 0.3)
            else:
                values.normal_(0.0, 0.15)
    return model.eval()


def compare(path: Path, model: Any, tokens: torch.Tensor = TOKENS) -> Checkpoint:
    """Opens `path` and compares its logits with those of the transformers model, to 1e-4."""
    checkpoint = open_checkpoint(path)
    with torch.no_grad():
        expected, found = model(tokens).logits, forward(checkpoint, tokens)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    return checkpoint


def read_back(model: Any, tmp_path: Path, tokens: torch.Tensor = TOKENS) -> Checkpoint:
    """Saves a transformers model, and compares what is read with it."""
    return compare(save(model, tmp_path / "hf"), model, tokens)


def gguf_twin(
    path: Path,
    model: Any,
    architecture: str,
    metadata: Mapping[str, Any],
    *,
    gain_offset: float = 0.0,
    interleaved: bool = False,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A GGUF file of the model without a tokenizer: names from the gguf package's map; gains plus
    `gain_offset`; rotary pairs of q and k side by side where `interleaved`, as llama.cpp's converter does."""
    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool,
           list: writer.add_array}  # fmt: skip
    for key, value in metadata.items():
        add[type(value)](f"{architecture}.{key}", value)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, values in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = values.numpy() + np.float32(gain_offset if values.dim() == 1 and "norm" in key else 0)
        part = key.split(".")[-2]
        if interleaved and part in heads:
            array = interleave(array, heads[part])
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name is not None, key
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    for key, array in (extra or {}).items():
        writer.add_tensor(key, np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
