"""SmolLM3: Llama, of which some layers have no rotary embedding.

Facts: transformers' modeling_smollm3.py; llama.cpp's src/models/smollm3.cpp, where it is every fourth layer.
"""

from rockledge.model.families.declaration import DEFAULTS, Family, Fields
from rockledge.model.families.llama import gguf_biases, hf_biases
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_values import HfValues
from rockledge.model.windows import gguf_windows, hf_windows

_INTERVAL = 4


def _hf(values: HfValues) -> Fields:
    interval = values.count("no_rope_layer_interval")
    turned = values.entries("no_rope_layers", int, values.layers)  # 1 where the layer turns
    if turned is None:
        turned = [number % interval != interval - 1 for number in range(values.layers)]
    unturned = tuple(number for number, there in enumerate(turned) if not there)
    used = values.flag("use_sliding_window")
    windowed = [number in unturned for number in range(values.layers)]
    values.ignore("max_window_layers")
    return {**hf_biases(values), "unturned": unturned, "windows": hf_windows(values, windowed, used=used)}


def _gguf(values: GgufValues) -> Fields:
    unturned = tuple(range(_INTERVAL - 1, values.layers, _INTERVAL))
    return {**gguf_biases(values), "unturned": unturned, "windows": gguf_windows(values)}


SMOLLM3 = Family(
    "smollm3",
    "SmolLM3ForCausalLM",
    "smollm3",
    from_hf=_hf,
    from_gguf=_gguf,
    hf_defaults={
        **DEFAULTS,
        "num_key_value_heads": 4,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": _INTERVAL,
    },
    gguf_interleaved=True,
)
