"""Models by their well-known names, as what their `config.json` on the Hugging Face Hub says of their shape.

Only the keys that sizes and speed depend on are here, in the names that Hugging Face gives them, so that the
family's own reading applies (windows, tied heads, biases). Rotary scaling is left out: `context` is the
longest that the model was made for. Numbers of parameters are compared with those that the Hub shows
(tests/model/test_known_shapes.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from rockledge.model.config import ModelConfig
from rockledge.model.hf_config import config_from_hf


@dataclass(frozen=True)
class KnownShape:
    """`source`: the repository on the Hub whose config.json has the shape."""

    source: str
    stated: Mapping[str, Any]

    @property
    def config(self) -> ModelConfig:
        """The configuration that it stands for."""
        return config_from_hf(self.stated)


def _shape(
    source: str,
    family: str,
    hidden: int,
    ffn: int,
    layers: int,
    heads: tuple[int, int, int],
    vocab: int,
    context: int,
    *,
    tied: bool = False,
    **more: Any,
) -> KnownShape:
    """`heads`: of queries, of keys and values, and the size of one."""
    query, kv, size = heads
    stated = {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": query,
        "num_key_value_heads": kv,
        "head_dim": size,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        **more,
    }
    return KnownShape(source, stated)


_K: Final = 1024
_GEMMA3: Final = "gemma3_text"

KNOWN_SHAPES: Final[Mapping[str, KnownShape]] = {
    "smollm2-135m": _shape(
        "HuggingFaceTB/SmolLM2-135M", "llama", 576, 1536, 30, (9, 3, 64), 49152, 8 * _K, tied=True
    ),
    "smollm2-360m": _shape(
        "HuggingFaceTB/SmolLM2-360M", "llama", 960, 2560, 32, (15, 5, 64), 49152, 8 * _K, tied=True
    ),
    "smollm2-1.7b": _shape(
        "HuggingFaceTB/SmolLM2-1.7B", "llama", 2048, 8192, 24, (32, 32, 64), 49152, 8 * _K, tied=True
    ),
    "smollm3-3b": _shape(
        "HuggingFaceTB/SmolLM3-3B", "smollm3", 2048, 11008, 36, (16, 4, 128), 128256, 64 * _K, tied=True
    ),
    "tinyllama-1.1b": _shape(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama", 2048, 5632, 22, (32, 4, 64), 32000, 2 * _K
    ),
    "llama-2-7b": _shape("meta-llama/Llama-2-7b-hf", "llama", 4096, 11008, 32, (32, 32, 128), 32000, 4 * _K),
    "llama-2-13b": _shape(
        "meta-llama/Llama-2-13b-hf", "llama", 5120, 13824, 40, (40, 40, 128), 32000, 4 * _K
    ),
    "llama-3-8b": _shape(
        "meta-llama/Meta-Llama-3-8B", "llama", 4096, 14336, 32, (32, 8, 128), 128256, 8 * _K
    ),
    "llama-3-70b": _shape(
        "meta-llama/Meta-Llama-3-70B", "llama", 8192, 28672, 80, (64, 8, 128), 128256, 8 * _K
    ),
    "llama-3.1-8b": _shape(
        "meta-llama/Llama-3.1-8B", "llama", 4096, 14336, 32, (32, 8, 128), 128256, 128 * _K
    ),
    "llama-3.1-70b": _shape(
        "meta-llama/Llama-3.1-70B", "llama", 8192, 28672, 80, (64, 8, 128), 128256, 128 * _K
    ),
    "llama-3.2-1b": _shape(
        "meta-llama/Llama-3.2-1B", "llama", 2048, 8192, 16, (32, 8, 64), 128256, 128 * _K, tied=True
    ),
    "llama-3.2-3b": _shape(
        "meta-llama/Llama-3.2-3B", "llama", 3072, 8192, 28, (24, 8, 128), 128256, 128 * _K, tied=True
    ),
    "mistral-7b": _shape(
        "mistralai/Mistral-7B-v0.3", "mistral", 4096, 14336, 32, (32, 8, 128), 32768, 32 * _K,
        sliding_window=None,
    ),
    "mistral-nemo-12b": _shape(
        "mistralai/Mistral-Nemo-Base-2407", "mistral", 5120, 14336, 40, (32, 8, 128), 131072, 128 * _K,
        sliding_window=None,
    ),
    "qwen2.5-0.5b": _shape(
        "Qwen/Qwen2.5-0.5B", "qwen2", 896, 4864, 24, (14, 2, 64), 151936, 32 * _K, tied=True
    ),
    "qwen2.5-1.5b": _shape(
        "Qwen/Qwen2.5-1.5B", "qwen2", 1536, 8960, 28, (12, 2, 128), 151936, 32 * _K, tied=True
    ),
    "qwen2.5-3b": _shape(
        "Qwen/Qwen2.5-3B", "qwen2", 2048, 11008, 36, (16, 2, 128), 151936, 32 * _K, tied=True
    ),
    "qwen2.5-7b": _shape("Qwen/Qwen2.5-7B", "qwen2", 3584, 18944, 28, (28, 4, 128), 152064, 128 * _K),
    "qwen2.5-14b": _shape("Qwen/Qwen2.5-14B", "qwen2", 5120, 13824, 48, (40, 8, 128), 152064, 128 * _K),
    "qwen2.5-32b": _shape("Qwen/Qwen2.5-32B", "qwen2", 5120, 27648, 64, (40, 8, 128), 152064, 128 * _K),
    "qwen3-0.6b": _shape(
        "Qwen/Qwen3-0.6B", "qwen3", 1024, 3072, 28, (16, 8, 128), 151936, 40 * _K, tied=True
    ),
    "qwen3-1.7b": _shape(
        "Qwen/Qwen3-1.7B", "qwen3", 2048, 6144, 28, (16, 8, 128), 151936, 40 * _K, tied=True
    ),
    "qwen3-4b": _shape("Qwen/Qwen3-4B", "qwen3", 2560, 9728, 36, (32, 8, 128), 151936, 40 * _K, tied=True),
    "qwen3-8b": _shape("Qwen/Qwen3-8B", "qwen3", 4096, 12288, 36, (32, 8, 128), 151936, 40 * _K),
    "qwen3-14b": _shape("Qwen/Qwen3-14B", "qwen3", 5120, 17408, 40, (40, 8, 128), 151936, 40 * _K),
    "qwen3-32b": _shape("Qwen/Qwen3-32B", "qwen3", 5120, 25600, 64, (64, 8, 128), 151936, 40 * _K),
    "gemma-2-2b": _shape(
        "google/gemma-2-2b", "gemma2", 2304, 9216, 26, (8, 4, 256), 256000, 8 * _K, tied=True,
        sliding_window=4096,
    ),
    "gemma-2-9b": _shape(
        "google/gemma-2-9b", "gemma2", 3584, 14336, 42, (16, 8, 256), 256000, 8 * _K, tied=True,
        sliding_window=4096,
    ),
    "gemma-3-270m": _shape(
        "google/gemma-3-270m", _GEMMA3, 640, 2048, 18, (4, 1, 256), 262144, 32 * _K, tied=True,
        sliding_window=512,
    ),
    "gemma-3-1b": _shape(
        "google/gemma-3-1b-pt", _GEMMA3, 1152, 6912, 26, (4, 1, 256), 262144, 32 * _K, tied=True,
        sliding_window=512,
    ),
    "gemma-3-4b": _shape(
        "google/gemma-3-4b-pt", _GEMMA3, 2560, 10240, 34, (8, 4, 256), 262208, 128 * _K, tied=True,
        sliding_window=1024,
    ),
    "gemma-3-12b": _shape(
        "google/gemma-3-12b-pt", _GEMMA3, 3840, 15360, 48, (16, 8, 256), 262208, 128 * _K, tied=True,
        sliding_window=1024,
    ),
    "phi-3-mini": _shape(
        "microsoft/Phi-3-mini-4k-instruct", "phi3", 3072, 8192, 32, (32, 32, 96), 32064, 4 * _K,
        sliding_window=2047,
    ),
    "phi-4-mini": _shape(
        "microsoft/Phi-4-mini-instruct", "phi3", 3072, 8192, 32, (24, 8, 128), 200064, 128 * _K, tied=True,
        partial_rotary_factor=0.75, sliding_window=None,
    ),
    "phi-4": _shape(
        "microsoft/phi-4", "phi3", 5120, 17920, 40, (40, 10, 128), 100352, 16 * _K, sliding_window=None
    ),
    "granite-3.3-2b": _shape(
        "ibm-granite/granite-3.3-2b-base", "granite", 2048, 8192, 40, (32, 8, 64), 49159, 128 * _K, tied=True
    ),
    "granite-3.3-8b": _shape(
        "ibm-granite/granite-3.3-8b-base", "granite", 4096, 12800, 40, (32, 8, 128), 49159, 128 * _K,
        tied=True,
    ),
    "olmo-2-1b": _shape("allenai/OLMo-2-0425-1B", "olmo2", 2048, 8192, 16, (16, 16, 128), 100352, 4 * _K),
    "olmo-2-7b": _shape("allenai/OLMo-2-1124-7B", "olmo2", 4096, 11008, 32, (32, 32, 128), 100352, 4 * _K),
}  # fmt: skip

_FORM: Final = re.compile(r"-(instruct|it|chat|base|pt|hf)$")


def find_shape(name: str) -> KnownShape | None:
    """The shape of the model that is called `name`, in any case, with or without its organisation before it
    or the form after it (-Instruct, -it, ...). None where it is not known: what another organisation calls
    so may be of another shape."""
    organisation, _, short = name.lower().rpartition("/")
    found = KNOWN_SHAPES.get(_FORM.sub("", short).replace("meta-llama", "llama"))
    if found is None or organisation not in ("", found.source.lower().partition("/")[0]):
        return None
    return found


def nearest_shapes(name: str) -> list[str]:
    """The known names that are most like a mistyped one, at most three."""
    return get_close_matches(name.lower(), list(KNOWN_SHAPES), n=3, cutoff=0.6)
