"""Decode that others published on RK3588, RK3576 and Raspberry Pi 5, as runs that a formula can predict.

`published_decode.csv` has every row that was found, each with its source. A row becomes a run where the
model's shape is known and it is a dense transformer; whatever is left out is left out for a reason that is
named, and which does not depend on how it is predicted.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.npu_published import SHAPES as OTHER_SHAPES
from rockledge.board.memory import DecoderShape
from rockledge.model.known_shapes import KNOWN_SHAPES

TABLE = Path(__file__).with_name("published_decode.csv")
LEAST_ROWS = 4
"""Of a backend: with fewer, nothing is left to test a fit on."""


@dataclass(frozen=True)
class Run:
    """`weights`: those that a token is multiplied with; `bits`: of one, scales included; `layers`; `cache`:
    bytes of keys and values that are read, in fp16, after the prompt; `group`: weights that share a scale in
    the vendor's grouped formats, 0 for the others."""

    model: str
    backend: str
    source: str
    quant: str
    weights: int
    bits: float
    layers: int
    cache: int
    tok_s: float
    group: int = 0

    @property
    def bytes(self) -> float:
        """Read for a token."""
        return self.weights * self.bits / 8 + self.cache


@dataclass(frozen=True)
class LeftOut:
    """A row that is not a run, and why."""

    model: str
    backend: str
    reason: str


_MODELS: dict[str, str] = {
    "Qwen2-0.5B": "qwen2.5-0.5b",
    "Qwen2.5-0.5B": "qwen2.5-0.5b",
    "Qwen2-1.5B": "qwen2.5-1.5b",
    "DeepSeek-R1-1.5B": "qwen2.5-1.5b",
    "Qwen2-VL-2B": "qwen2.5-1.5b",
    "Qwen2.5-VL-3B": "qwen2.5-3b",
    "MiniCPM-V-2_6": "qwen2.5-7b",
    "Qwen2.5-VL-7B": "qwen2.5-7b",
    "DeepSeek-R1-Distill-7B": "qwen2.5-7b",
    "Qwen3-VL-2B": "qwen3-1.7b",
    "Qwen3-1.7B": "qwen3-1.7b",
    "Qwen3-4B": "qwen3-4b",
    "TinyLLAMA-1.1B": "tinyllama-1.1b",
    "llama3-8B": "llama-3-8b",
    "Llama-3.1-8B": "llama-3-8b",
    "Llama-3.2-3B": "llama-3.2-3b",
    "Llama-2-7B": "llama-2-7b",
    "Llama-2-13B": "llama-2-13b",
    "Phi-4-14B": "phi-4",
    "Phi-4-mini": "phi-4-mini",
    "SmolVLM2-2.2B": "smollm2-1.7b",
    "Gemma3-1B": "gemma-3-1b",
    "Gemma3-4B": "gemma-3-4b",
}
"""The language model of what rows name; Qwen2 and Qwen2.5 have the same shapes."""
_OTHERS = {
    "InternLM2-1.8B": "InternLM2-1.8B",
    "ChatGLM3-6B": "ChatGLM3-6B",
    "MiniCPM4-0.5B": "MiniCPM4-0.5B",
    "SmolVLM-256M": "SmolVLM-256M",
    "Granite4-350M": "Granite4-350M",
    "Ministral-3-8B": "Ministral-3-8B",
}

_BITS: tuple[tuple[str, float], ...] = (
    ("w8a8_g", 8.25),
    ("w4a16_g", 4.25),
    ("w8a8", 8.0),
    ("w4a16", 4.0),
    ("W16A16", 16.0),
    ("alternating", 6.0),
    ("W8A8", 8.0),
    ("W4A4", 4.0),
    ("F16", 16.0),
    ("Q8_0", 8.5),
    ("Q6_K", 6.5625),
    ("Q4_K_M", 4.85),
    ("IQ4_XS", 4.25),
    ("Q4_0", 4.5),
    ("Q4 (ollama)", 4.85),
    ("W4 T-MAC", 4.5),
    ("W2 T-MAC", 2.5),
    ("W4 llama.cpp", 4.5),
)
"""Bits a weight of what a quantisation's name ends with or has in it, the most telling first: block sizes of
ggml-common.h, for Q4_K_M the mixture of its files; w8a8 and w4a16 without scales, which are a row's."""

# What a name says, and why such a row is no run.
_REASONS: tuple[tuple[str, str], ...] = (
    (r"MoE|A\d+[BM]\)", "experts: what a token reads is not the whole model"),
    (r"RWKV|Qwen3\.[56]", "recurrent layers"),
    (r"MiniCPM3", "keys and values are compressed (MLA)"),
    (r"Gemma-?3n|Gemma-?4-E", "embeddings in every layer, of which a part is read"),
    (r"Gemma-4-12B|xLAM|RedPajama", "the shape is not in our tables"),
    (r"class$", "no model is named"),
    (r"BitNet", "weights of 1.58 bits with kernels of their own"),
)
_BACKENDS: tuple[tuple[str, str], ...] = (
    (r"MLC-LLM|Vulkan", ""),
    (r"CPU.*\+ MTP|\+ MTP", ""),
    (r"T-MAC", "T-MAC on Raspberry Pi 5"),
    (r"RKLLM|librkllmrt", "RKLLM"),
    (r"^rk-llama.cpp NPU|^ggml-ork NPU", "rk-llama.cpp NPU"),
    (r"llama\.cpp CPU|rk-llama\.cpp CPU|CPU decode|Ollama CPU", "llama.cpp CPU"),
)


def published() -> tuple[list[Run], list[LeftOut]]:
    """All runs, one for each figure (many are repeated for every length of prompt), and what is left out."""
    runs: dict[tuple[object, ...], Run] = {}
    left: list[LeftOut] = []
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = _run(row)
            if isinstance(found, Run):
                runs.setdefault((found.model, found.backend, found.source, found.quant, found.tok_s), found)
            else:
                left.append(found)
    counted = Counter(run.backend for run in runs.values())
    kept = [run for run in runs.values() if counted[run.backend] >= LEAST_ROWS]
    few = f"fewer than {LEAST_ROWS} rows of its backend"
    left += [LeftOut(r.model, r.backend, few) for r in runs.values() if counted[r.backend] < LEAST_ROWS]
    return kept, left


def _run(row: dict[str, str]) -> Run | LeftOut:
    model, quant = row["model"].removesuffix(" (LLM part)").removesuffix(" (LLM half)"), row["quant"]
    backend = _backend(row)
    for pattern, reason in _REASONS:
        if re.search(pattern, model):
            return LeftOut(model, row["backend"], reason)
    if "MTP" in quant:
        return LeftOut(model, row["backend"], "speculative decoding")
    if "DDR governor parked" in row["source"]:
        return LeftOut(model, row["backend"], "memory is parked at a quarter of its clock")
    if not backend:
        return LeftOut(model, row["backend"], "it runs on the GPU, or partly on two processors")
    shape = _shape(model)
    bits = next((bits for name, bits in _BITS if name in quant), None)
    if shape is None or bits is None:
        return LeftOut(model, row["backend"], "the shape or the quantisation is not in our tables")
    prompt = int(row["prompt_tokens"] or 0)
    cache = 4 * prompt * shape.layers * shape.kv_heads * shape.head_dim
    grouped = re.search(r"_g(\d+)$", quant)
    return Run(
        model=model,
        backend=backend,
        source=row["source"].split(" ")[0],
        quant=quant,
        weights=_weights(shape),
        bits=bits,
        layers=shape.layers,
        cache=cache,
        tok_s=float(row["decode_tok_s"]),
        group=int(grouped[1]) if grouped else 0,
    )


def _backend(row: dict[str, str]) -> str:
    name = next((name for pattern, name in _BACKENDS if re.search(pattern, row["backend"])), "")
    if not name:
        return ""
    if "RK3576" in row["board"]:
        return f"{name} on RK3576"
    pi = "Raspberry Pi 5" in row["board"] and "Raspberry Pi 5" not in name
    return f"{name} on Raspberry Pi 5" if pi else name


def _shape(model: str) -> DecoderShape | None:
    if model in _MODELS:
        return KNOWN_SHAPES[_MODELS[model]].config
    return OTHER_SHAPES.get(_OTHERS.get(model, ""))


def _weights(shape: DecoderShape) -> int:
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * attention + 2 * kv + 3 * shape.ffn)
    return shape.layers * layer + shape.vocab * shape.hidden


def by_backend(runs: list[Run]) -> Iterator[tuple[str, list[Run]]]:
    """The runs of each backend."""
    for backend in dict.fromkeys(run.backend for run in runs):
        yield backend, [run for run in runs if run.backend == backend]
