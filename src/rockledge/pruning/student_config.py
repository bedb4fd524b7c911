"""The `config.json` of a pruned model, and by how much its weights make up for scales that depend on sizes.

Some families compute a scale from a size: Gemma's embedding by the square root of the hidden size, MiniCPM's
branches by the number of layers. A pruned model is to compute as its teacher does, so the difference goes
into weights that are multiplied with the scale anyway. Nothing here knows which family does what: the written
configuration is read back, and compared with the one that is wanted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from rockledge.errors import CheckpointError
from rockledge.model.block import Decoder, decoder, layer_name
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES
from rockledge.model.hf_config import config_from_hf, language_model
from rockledge.model.windows import FULL, SLIDING

_BY_LAYER: Final = ("layer_types", "layers_block_type", "no_rope_layers")
"""Keys of lists with an entry for each layer."""
_FFN: Final = ("intermediate_size", "shared_intermediate_size")
_UNUSED: Final = {"mamba_n_heads": 1, "mamba_d_head": "auto"}
"""Keys that say nothing about a dense model, but that transformers compares with the hidden size
(`validate_architecture` of GraniteMoeHybridConfig)."""
_EPSILON: Final = re.compile(r"(layer_?norm|norm)_(eps|epsilon)")  # notes of tools beside rms_norm_eps
_SCALES: Final = ("embedding_scale", "residual_scale", "logit_scale")
_SPECIAL: Final = ("bos", "eos")  # also from generation_config.json and the tokenizer


@dataclass(frozen=True)
class Compensation:
    """What stored weights are multiplied with: the embedding, the gain of the last norm, and what a branch
    adds to the stream."""

    embedding: float = 1.0
    final_gain: float = 1.0
    branch: float = 1.0

    def factor(self, name: str, tree: Decoder) -> float:
        """For the tensor with this canonical name."""
        if name == tree.embed.role:
            return self.embedding
        if name == tree.final_norm.role:
            return self.final_gain
        return self.branch if name in _last_of_branches(tree) else 1.0


def _last_of_branches(tree: Decoder) -> set[str]:
    """Tensors that what branches add is proportional to: those of their last linear, or the norm after it."""
    found = set()
    for number, layer in enumerate(tree.layers):
        for branch in layer.branches:
            last = branch.body.groups[1].first
            roles = (last.role, last.role + ".bias") if branch.after is None else (branch.after.role,)
            found |= {layer_name(number, role) for role in roles}
    return found


def student_config(
    teacher: Mapping[str, Any], wanted: ModelConfig, layers: Sequence[int], teacher_layers: int
) -> tuple[dict[str, Any], ModelConfig, Compensation]:
    """The `config.json` of a model with the configuration `wanted`, made of these `layers` of the teacher,
    whose own is given; what is read from it; and how weights make up for the difference.

    CheckpointError where the family's files cannot say what is wanted.
    """
    text, part = language_model(teacher)
    written: dict[str, Any] = {key: value for key, value in text.items() if not (part and value is None)}
    if part:
        written["architectures"] = [FAMILIES[wanted.family].hf_architecture]
    for key in _BY_LAYER:
        if isinstance(entries := written.get(key), list) and len(entries) == teacher_layers:
            written[key] = [entries[layer] for layer in layers]
    written |= {
        "hidden_size": wanted.hidden,
        "num_hidden_layers": wanted.layers,
        "num_attention_heads": wanted.heads,
        "num_key_value_heads": wanted.kv_heads,
        "head_dim": wanted.head_dim,
        "rms_norm_eps": wanted.norm_eps,
        "tie_word_embeddings": wanted.tied,
    }
    written |= dict.fromkeys([key for key in _FFN if key in written], wanted.ffn)
    written |= {key: value for key, value in _UNUSED.items() if key in written}
    for key in [key for key in written if _EPSILON.fullmatch(key) and key != "rms_norm_eps"]:
        del written[key]
    read = config_from_hf(written)
    if read.windows != wanted.windows:
        written["layer_types"] = [SLIDING if window else FULL for window in wanted.windows] or (
            [FULL] * wanted.layers
        )
    if read.unturned != wanted.unturned:
        written["no_rope_layers"] = [int(layer not in wanted.unturned) for layer in range(wanted.layers)]
    read = config_from_hf(written)
    wrong = [
        f.name
        for f in fields(ModelConfig)
        if f.name not in (*_SCALES, *_SPECIAL) and getattr(read, f.name) != getattr(wanted, f.name)
    ]
    if wrong:
        raise CheckpointError(
            f"a config.json of the family {wanted.family} cannot say that {wrong[0]} is "
            f"{getattr(wanted, wrong[0])!s:.60}; prune in another way, such as --by width"
        )
    return written, read, _compensation(wanted, read)


def _compensation(wanted: ModelConfig, read: ModelConfig) -> Compensation:
    embedding, branch, logits = (
        getattr(wanted, scale) / getattr(read, scale)
        for scale in ("embedding_scale", "residual_scale", "logit_scale")
    )
    # A tied embedding is the head too, whose products must stay.
    return Compensation(embedding, logits / (embedding if decoder(wanted).tied else 1.0), branch)
