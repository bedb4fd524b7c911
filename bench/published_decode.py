"""Decode that others published on RK3588, RK3576 and Raspberry Pi 5, as runs that a formula can predict.

`published_decode.csv` has every row that was found, each with its source, and `published_batches.csv` what a
step of several rows costs. A row becomes a run where the model's shape is known and it is a dense
transformer; whatever is left out is left out for a reason that is named, and which does not depend on how it
is predicted.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.gguf_types import Matrix, matrices
from bench.npu_published import SHAPES as OTHER_SHAPES
from rockledge.board.memory import DecoderShape
from rockledge.model.known_shapes import KNOWN_SHAPES

TABLE = Path(__file__).with_name("published_decode.csv")
BATCHES = Path(__file__).with_name("published_batches.csv")
CHIPS: Final = {"RK3576": "rk3576", "Raspberry Pi 5": "rpi5"}
"""The chip that a board's name has in it; any other is an RK3588."""
LEAST_ROWS = 4
"""Of a backend: with fewer, nothing is left to test a fit on."""


@dataclass(frozen=True)
class Run:
    """`weights`: those that a token is multiplied with; `bits`: of one on average, scales and padding
    included; `layers`; `cache`: bytes of keys and values that are read, in fp16; `tok_s`: of all `rows`, the
    sequences or tokens that a step takes, together; `group`: weights that share a scale in the vendor's
    grouped formats, 0 for the others, and `input_groups`: of the inputs of all layers; `threads`: of the
    processor, 0 where the NPU multiplies; `chip`: whose board."""

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
    input_groups: int = 0
    rows: int = 1
    threads: int = 0
    chip: str = "rk3588"

    @property
    def bytes(self) -> float:
        """Read in a step."""
        return self.weights * self.bits / 8 + self.cache

    @property
    def seconds(self) -> float:
        """Of a step, as published."""
        return self.rows / self.tok_s


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
    "Ministral-3-3B": "Ministral-3-3B",
    "Ministral-3-8B": "Ministral-3-8B",
}

_BITS: tuple[tuple[str, float], ...] = (
    ("w8a8_g", 8.25),
    ("w4a16_g", 4.25),
    ("w8a8", 8.0),
    ("w4a16", 4.0),
    ("W4 T-MAC", 4.5),
    ("W2 T-MAC", 2.5),
)
"""Bits a weight of the vendor's and of T-MAC's formats, the most telling first; w8a8 and w4a16 without
scales, which are a row's."""
FILES: tuple[tuple[str, str], ...] = (
    ("F16", "F16"),
    ("Q8_0", "Q8_0"),
    ("Q6_K", "Q6_K"),
    ("Q4_K_M", "Q4_K_M"),
    ("IQ4_XS", "IQ4_XS"),
    ("Q4_0", "Q4_0"),
    ("Q4 (ollama)", "Q4_K_M"),
    ("W4 llama.cpp", "Q4_0"),
)
"""The type of a GGUF file by what a quantisation's name has in it. Ollama's default is Q4_K_M; T-MAC compares
with Q4_0."""
NPU_BITS: Final = {"F16": (16.0,), "Q8_0": (8.0,), "Q6_K": (8.0, 4.0), "Q4_0": (4.0,)}
"""Bits of what rk-llama.cpp's NPU multiplies for a type, in turn where there are two (its README, "Default
Mappings")."""
LLAMA_BENCH: Final = re.compile(r"\btg(\d+)")
"""In a source: decode was measured from an empty context, so many tokens of it."""

# What a name says, and why such a row is no run.
REASONS: tuple[tuple[str, str], ...] = (
    (r"MoE|A\d+[BM]\)", "experts: what a token reads is not the whole model"),
    (r"RWKV|Qwen3\.[56]", "recurrent layers"),
    (r"MiniCPM3", "keys and values are compressed (MLA)"),
    (r"Gemma-?3n|Gemma-?4-E", "embeddings in every layer, of which a part is read"),
    (r"Gemma-4-12B|xLAM|RedPajama", "the shape is not in our tables"),
    (r"class$", "no model is named"),
    (r"BitNet", "weights of 1.58 bits with kernels of their own"),
)
NPU: Final = "rk-llama.cpp NPU"
_BACKENDS: tuple[tuple[str, str], ...] = (
    (r"MLC-LLM|Vulkan", ""),
    (r"CPU.*\+ MTP|\+ MTP", ""),
    (r"T-MAC", "T-MAC on Raspberry Pi 5"),
    (r"RKLLM|librkllmrt", "RKLLM"),
    (r"^rk-llama.cpp NPU|^ggml-ork NPU", NPU),
    (r"llama\.cpp CPU|rk-llama\.cpp CPU|CPU decode|Ollama CPU", "llama.cpp CPU"),
)


def published() -> tuple[list[Run], list[LeftOut]]:
    """All runs and what is left out. A figure of llama-bench is one run, however many lengths of prompt its
    table repeats it for; others measured it with each prompt."""
    runs: dict[tuple[str, ...], Run] = {}
    left: list[LeftOut] = []
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = _run(row)
            if isinstance(found, Run):
                repeated = {"prompt_tokens"} if LLAMA_BENCH.search(row["source"]) else set()
                runs.setdefault(tuple(v for k, v in row.items() if k not in repeated), found)
            else:
                left.append(found)
    every = [*runs.values(), *batches()]
    counted = Counter(run.backend for run in every)
    kept = [run for run in every if counted[run.backend] >= LEAST_ROWS]
    few = f"fewer than {LEAST_ROWS} rows of its backend"
    left += [LeftOut(r.model, r.backend, few) for r in every if counted[r.backend] < LEAST_ROWS]
    return kept, left


def batches() -> Iterator[Run]:
    """Steps of 1 to 8 rows, with what they read as the source has it."""
    with BATCHES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            weights, rows = int(row["weights"]), int(row["rows"])
            yield Run(
                model=row["model"],
                backend=_backend(row),
                source=row["source"].split(" ")[0],
                quant=row["quant"],
                weights=weights,
                bits=8 * int(row["bytes"]) / weights,
                layers=int(row["layers"]),
                cache=0,
                tok_s=1e3 * rows / float(row["milliseconds"]),
                rows=rows,
                threads=int(row["threads"]),
            )


def _run(row: dict[str, str]) -> Run | LeftOut:
    model, quant = row["model"].removesuffix(" (LLM part)").removesuffix(" (LLM half)"), row["quant"]
    backend = _backend(row)
    for pattern, reason in REASONS:
        if re.search(pattern, model):
            return LeftOut(model, row["backend"], reason)
    if "MTP" in quant:
        return LeftOut(model, row["backend"], "speculative decoding")
    if "DDR governor parked" in row["source"]:
        return LeftOut(model, row["backend"], "memory is parked at a quarter of its clock")
    if not backend:
        return LeftOut(model, row["backend"], "it runs on the GPU, or partly on two processors")
    shape = shape_of(model)
    bits = None if shape is None else _bits(shape, quant, backend)
    if shape is None or bits is None:
        return LeftOut(model, row["backend"], "the shape or the quantisation is not in our tables")
    grouped = re.search(r"_g(\d+)$", quant)
    group = int(grouped[1]) if grouped else 0
    return Run(
        model=model,
        backend=backend,
        source=row["source"].split(" ")[0],
        quant=quant,
        weights=matrix_weights(shape),
        bits=bits,
        layers=shape.layers,
        cache=4 * _context(row) * shape.layers * shape.kv_heads * shape.head_dim,
        tok_s=float(row["decode_tok_s"]),
        group=group,
        input_groups=_input_groups(shape, group) if group else 0,
        threads=_threads(row["backend"]) if "CPU" in backend else 0,
        chip=chip_of(row),
    )


def _context(row: dict[str, str]) -> int:
    """Tokens whose keys and values a step reads: half of what llama-bench writes, or the prompt."""
    empty = LLAMA_BENCH.search(row["source"])
    return int(empty[1]) // 2 if empty else int(row["prompt_tokens"] or 0)


def _bits(shape: DecoderShape, quant: str, backend: str) -> float | None:
    """Of a weight on average, None for a format that is not known."""
    vendor = next((bits for name, bits in _BITS if name in quant), None)
    if vendor is not None:
        return vendor
    file_type = next((file for name, file in FILES if name in quant), None)
    if file_type is None:
        return None
    found = list(matrices(shape, file_type))
    size = sum(map(_npu_bytes, found)) if backend == NPU else sum(matrix.bytes for matrix in found)
    return 8 * size / sum(matrix.weights for matrix in found)


def _npu_bytes(matrix: Matrix) -> float:
    """Of what rk-llama.cpp's NPU reads. For a Hadamard transform, rows of int4 are padded to a power of two
    (unimatrix099/rk-llama.cpp docs/backend/RKNPU2-decode-research.md 3b)."""
    padded: int = 1 << (matrix.inputs - 1).bit_length()
    kinds = NPU_BITS[matrix.type]
    return sum(matrix.outputs * (padded if bits == 4 else matrix.inputs) * bits / 8 for bits in kinds) / len(
        kinds
    )


def _input_groups(shape: DecoderShape, group: int) -> int:
    """Of q|k|v, o, gate|up and down of all layers."""
    inputs = 2 * shape.hidden + shape.heads * shape.head_dim + shape.ffn
    return shape.layers * inputs // group


def _threads(backend: str) -> int:
    """Of llama.cpp: as the row says; all eight cores beside ggml-rocket; else the four A76, as
    invisiofficial/rk-llama.cpp and oRKLLM/ork-driver ran it and as a Raspberry Pi has."""
    said = re.search(r"(\d+) threads", backend)
    return int(said[1]) if said else 8 if "ggml-rocket" in backend else 4


def chip_of(row: dict[str, str]) -> str:
    return next((chip for name, chip in CHIPS.items() if name in row["board"]), "rk3588")


def _backend(row: dict[str, str]) -> str:
    name = next((name for pattern, name in _BACKENDS if re.search(pattern, row["backend"])), "")
    return f"{name} on RK3576" if name and "RK3576" in row["board"] else name


def shape_of(model: str) -> DecoderShape | None:
    if model in _MODELS:
        return KNOWN_SHAPES[_MODELS[model]].config
    return OTHER_SHAPES.get(_OTHERS.get(model, ""))


def matrix_weights(shape: DecoderShape) -> int:
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * attention + 2 * kv + 3 * shape.ffn)
    return shape.layers * layer + shape.vocab * shape.hidden


def by_backend(runs: list[Run]) -> Iterator[tuple[str, list[Run]]]:
    """The runs of each backend."""
    for backend in dict.fromkeys(run.backend for run in runs):
        yield backend, [run for run in runs if run.backend == backend]
