"""The metadata of a GGUF file: the way back from a `ModelConfig`, for the architectures of llama.cpp.

Facts: load_arch_hparams and load_arch_tensors in llama.cpp's src/models/*.cpp, load_hparams in its
src/llama-model.cpp. What is written is read again by our own reader and compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError
from rockledge.export.hf_settings import functional, same
from rockledge.export.rope_words import rope_words
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES
from rockledge.model.gguf_rope import FACTORS
from rockledge.model.rope_scaling import yarn_magnitude

Metadata = dict[str, Any]

_QKV: Final = ("qkv_bias",)
_ALL: Final = ("qkv_bias", "o_bias", "mlp_bias")


@dataclass(frozen=True)
class Architecture:
    """What one of llama.cpp's can hold: `biases`, divisors of single rotary pairs as a tensor (`factors`),
    `windows`. `square`: the heads together are as wide as the stream. `own_head`: the head is stored even
    where it is the embedding. `tied`: no head is stored ever."""

    biases: tuple[str, ...] = _QKV
    factors: bool = False
    windows: bool = False
    square: bool = False
    own_head: bool = False
    tied: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(_ALL, factors=True),
    "granite": Architecture(_ALL, factors=True),
    "minicpm": Architecture(_ALL, factors=True),
    "mistral3": Architecture(_ALL, factors=True),
    "qwen2": Architecture(square=True),
    "qwen3": Architecture(),
    "gemma2": Architecture(windows=True, tied=True),
    "gemma3": Architecture(windows=True),
    "olmo2": Architecture(square=True, own_head=True),
    "phi3": Architecture((), factors=True, square=True),
    "smollm3": Architecture(),
}

# Where llama.cpp stores a family under the name of another one.
_UNDER: Final = {"mistral": "llama", "granitemoehybrid": "granite"}
_POOLING: Final = {"mean": 1, "last": 3}  # enum llama_pooling_type in include/llama.h
_ELSEWHERE: Final = ("bos", "eos", "tied", "headless", "pooling")


@dataclass(frozen=True)
class Described:
    """A model as GGUF has it: `config` names the family under which it is stored, `metadata` are keys after
    the architecture's name, `factors` tensors of divisors by name. `notes`: what was cut."""

    architecture: str
    holds: Architecture
    config: ModelConfig
    metadata: Metadata
    factors: Mapping[str, npt.NDArray[np.float32]]
    notes: tuple[str, ...]

    @property
    def interleaved(self) -> bool:
        """Whether rotary pairs of Q and K are neighbours in the file."""
        return FAMILIES[self.config.family].gguf_interleaved

    def metadata_keys(self) -> Metadata:
        """The metadata under their whole keys."""
        return {f"{self.architecture}.{key}": value for key, value in self.metadata.items()}


def described(config: ModelConfig) -> Described:
    """UsageError names the first thing that llama.cpp's architecture cannot hold."""
    family = _UNDER.get(config.family, config.family)
    config = replace(config, family=family)
    architecture = str(FAMILIES[family].gguf)
    holds = ARCHITECTURES.get(architecture)
    if holds is None:
        raise UsageError(f"llama.cpp's {architecture} is not a target yet; export to hf instead")

    def refused(what: str) -> UsageError:
        return UsageError(
            f"llama.cpp's architecture {architecture} has no place for {what}; export to hf instead"
        )

    for bias in _ALL:
        if getattr(config, bias) and bias not in holds.biases:
            raise refused(f"{bias} (biases of {_BIAS_OF[bias]})")
    if holds.square and config.heads * config.head_dim != config.hidden:
        raise refused(f"{config.heads} heads of {config.head_dim} beside {config.hidden} channels")
    if holds.tied and not config.tied:
        raise refused("a head that is not the embedding")
    config, notes = _within_reach(config, holds, architecture)
    metadata: Metadata = {
        "context_length": config.context,
        "embedding_length": config.hidden,
        "block_count": config.layers,
        "feed_forward_length": config.ffn,
        "vocab_size": config.vocab,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_theta,
        "rope.dimension_count": config.rotary_channels or config.head_dim,
    }
    scaling, factors = _rope(config, holds)
    if scaling is None:
        raise refused("divisors of single rotary pairs")
    metadata |= scaling
    if config.headless:
        metadata["pooling_type"] = _POOLING[config.pooling]
    if holds.windows and config.windows:
        metadata["attention.sliding_window"] = max(config.windows)
        metadata["attention.sliding_window_pattern"] = [bool(window) for window in config.windows]
        if config.window_rope_theta:
            metadata["rope.freq_base_swa"] = config.window_rope_theta
    if architecture == "gemma2":
        metadata["attn_logit_softcapping"] = config.attention_softcap
    if architecture in ("gemma2", "gemma3"):
        metadata["final_logit_softcapping"] = config.logit_softcap
    if architecture in ("granite", "minicpm"):
        metadata |= {
            "embedding_scale": config.embedding_scale,
            "residual_scale": config.residual_scale,
            "logit_scale": 1 / config.logit_scale,
        }
    if architecture == "granite":
        metadata["attention.scale"] = config.attention_scale or config.head_dim**-0.5
        metadata["rope.scaling.finetuned"] = not config.unturned  # llama.cpp's switch for the turns
    if config.query_growth:
        metadata["attention.temperature_scale"] = config.query_growth
        metadata["rope.scaling.original_context_length"] = config.query_growth_length
    return Described(architecture, holds, config, metadata, factors, notes)


_BIAS_OF: Final = {"qkv_bias": "Q, K and V", "o_bias": "O", "mlp_bias": "gate, up and down"}


def check_read(wanted: ModelConfig, found: ModelConfig, architecture: str) -> None:
    """UsageError names the first field that did not come back from the written file."""
    one, other = functional(wanted), functional(found)
    for field in fields(ModelConfig):
        if field.name not in _ELSEWHERE and not same(getattr(one, field.name), getattr(other, field.name)):
            raise UsageError(
                f"llama.cpp's architecture {architecture} cannot hold a model whose {field.name} is "
                f"{str(getattr(wanted, field.name))[:60]}; export to hf instead"
            )


def _within_reach(
    config: ModelConfig, holds: Architecture, architecture: str
) -> tuple[ModelConfig, tuple[str, ...]]:
    """The same model with a context within which what llama.cpp does not have changes nothing."""
    notes = []
    if config.windows and not holds.windows:
        least = min(window for window in config.windows if window)
        notes.append(
            f"llama.cpp's {architecture} has no sliding windows, so the context is cut to {least} tokens, "
            "within which they hide nothing."
        )
        config = replace(config, windows=(), context=min(config.context, least))
    if config.rope_dynamic:
        notes.append(
            "llama.cpp has no dynamic rotary scaling, so the context is cut to the "
            f"{config.rope_original} tokens before it begins."
        )
        config = replace(config, rope_dynamic=0.0, context=min(config.context, config.rope_original))
        config = replace(config, rope_original=0)
    return config, tuple(notes)


def _rope(
    config: ModelConfig, holds: Architecture
) -> tuple[Metadata | None, Mapping[str, npt.NDArray[np.float32]]]:
    """Keys and tensors of the rotary scaling; None where there is no place for it."""
    words = rope_words(config)
    if words.kind == "none":
        return {}, {}
    if words.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": words.settings["factor"]}, {}
    if words.kind == "yarn" and not config.query_growth:
        factor = float(words.settings["factor"])
        keys: Metadata = {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": factor,
            "rope.scaling.original_context_length": words.settings["original_max_position_embeddings"],
        }
        if config.rope_factor != yarn_magnitude(factor):
            keys["rope.scaling.attn_factor"] = config.rope_factor / yarn_magnitude(factor)
        return keys, {}
    if not holds.factors:
        return None, {}
    magnitude = {} if config.rope_factor == 1 else {"rope.scaling.attn_factor": config.rope_factor}
    plain, short, long = FACTORS
    if not config.rope_long_divisors and config.family != "phi3":
        return magnitude, {plain: np.array(config.rope_divisors, np.float32)}
    return {
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": config.rope_original or config.context,
        **magnitude,
    }, {
        short: np.array(config.rope_divisors, np.float32),
        long: np.array(config.rope_long_divisors or config.rope_divisors, np.float32),
    }
