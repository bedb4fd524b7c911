"""Prompts that others published on RK3588 and RK3576, as runs that a formula can predict.

`published_prefill.csv` has every row that was found, each with its source: tok/s of a prompt, or milliseconds
to the first token. A row becomes a prompt where its length is stated, the model's shape is known and it is a
dense transformer; whatever is left out is left out for a reason that is named, and which does not depend on
how it is predicted.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.gguf_types import matrices
from bench.published_decode import (
    FILES,
    LEAST_ROWS,
    NPU_BITS,
    REASONS,
    LeftOut,
    chip_of,
    matrix_weights,
    shape_of,
)
from rockledge.board.memory import DecoderShape

TABLE = Path(__file__).with_name("published_prefill.csv")
ROCKET: Final = "ggml-rocket NPU"
NPU: Final = "rk-llama.cpp NPU"
CPU: Final = "llama.cpp CPU"
_BACKENDS: Final[tuple[tuple[str, str], ...]] = (
    (r"RKLLM|librkllmrt", "RKLLM"),
    (r"^ggml-rocket", ROCKET),
    (r"^rk-llama.cpp NPU", NPU),
    (r"llama\.cpp CPU", CPU),
)
_OTHER_REASONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("prompt_tokens", r"^$", "the length of the prompt is not stated"),
    ("backend", r"Vulkan", "it runs on the GPU, or partly on two processors"),
)
"""Column, what it has, and why such a row is no prompt."""
_STREAMED_ROWS: Final = 2048
"""Rows for which ggml-rocket unpacks quantised weights once: its tables were made with -ub 2048."""


@dataclass(frozen=True)
class Prompt:
    """`tokens` of a prompt and the `seconds` until all are read; `layers` with `linears`, inputs and outputs
    of each; `weights` of all layers by what multiplies them, and `head`: those that only the last token is
    multiplied with; `heads`: of queries; `group`: weights that share a scale in the vendor's grouped formats,
    0 for the others; `bits`: of a weight in the vendor's; `unpacked`: weights that are made fp16 on the way,
    as often as they are; `chip`: whose board."""

    model: str
    backend: str
    source: str
    quant: str
    tokens: int
    seconds: float
    layers: int
    linears: tuple[tuple[int, int], ...]
    weights: dict[str, int]
    head: int
    heads: int
    group: int = 0
    bits: int = 16
    unpacked: int = 0
    chip: str = "rk3588"

    @property
    def tok_s(self) -> float:
        """As published."""
        return self.tokens / self.seconds

    @property
    def of_layers(self) -> int:
        """Weights of all layers."""
        return sum(self.weights.values())

    @property
    def macs(self) -> int:
        """Products with weights."""
        return self.of_layers * self.tokens + self.head

    @property
    def activations(self) -> int:
        """Inputs and outputs of all linears, of all tokens."""
        return self.tokens * self.layers * sum(inputs + outputs for inputs, outputs in self.linears)

    @property
    def scores(self) -> float:
        """Of attention, a query with every token before it."""
        return self.layers * self.heads * self.tokens**2 / 2


def prompts() -> tuple[list[Prompt], list[LeftOut]]:
    """All prompts and what is left out."""
    found: list[Prompt] = []
    left: list[LeftOut] = []
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            one = _prompt(row)
            if isinstance(one, Prompt):
                found.append(one)
            else:
                left.append(one)
    counted = Counter(one.backend for one in found)
    few = f"fewer than {LEAST_ROWS} rows of its backend"
    left += [LeftOut(p.model, p.backend, few) for p in found if counted[p.backend] < LEAST_ROWS]
    return [p for p in found if counted[p.backend] >= LEAST_ROWS], left


def by_backend(found: Sequence[Prompt]) -> Iterator[tuple[str, list[Prompt]]]:
    """The prompts of each backend."""
    for backend in dict.fromkeys(one.backend for one in found):
        yield backend, [one for one in found if one.backend == backend]


def _prompt(row: dict[str, str]) -> Prompt | LeftOut:
    model, quant = row["model"].removesuffix(" (LLM part)").removesuffix(" (LLM half)"), row["quant"]
    backend = next(
        (name for pattern, name in _BACKENDS if re.search(pattern, row["backend"])), row["backend"]
    )
    for pattern, reason in REASONS:
        if re.search(pattern, model):
            return LeftOut(model, backend, reason)
    for column, pattern, reason in _OTHER_REASONS:
        if re.search(pattern, row[column]):
            return LeftOut(model, backend, reason)
    shape = shape_of(model)
    if shape is None:
        return LeftOut(model, backend, "the shape or the quantisation is not in our tables")
    chip, tokens = chip_of(row), int(row["prompt_tokens"])
    grouped = re.search(r"_g(\d+)$", quant)
    weights = _weights(shape, quant, backend, row["backend"])
    streamed = backend == ROCKET and "F16" not in quant
    return Prompt(
        model=model,
        backend=backend if chip == "rk3588" else f"{backend} on {chip.upper()}",
        source=row["source"].split(" ")[0],
        quant=quant,
        tokens=tokens,
        seconds=float(row["ttft_ms"]) / 1e3 if row["ttft_ms"] else tokens / float(row["prefill_tok_s"]),
        layers=shape.layers,
        linears=_linears(shape),
        weights=weights,
        head=shape.vocab * shape.hidden,
        heads=shape.heads,
        group=int(grouped[1]) if grouped else 0,
        bits=int(quant[1]) if backend == "RKLLM" else 16,
        unpacked=sum(weights.values()) * -(-tokens // _STREAMED_ROWS) if streamed else 0,
        chip=chip,
    )


def _linears(shape: DecoderShape) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of q|k|v, o, gate|up and down."""
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return (
        (shape.hidden, attention + 2 * kv),
        (attention, shape.hidden),
        (shape.hidden, 2 * shape.ffn),
        (shape.ffn, shape.hidden),
    )


def _weights(shape: DecoderShape, quant: str, backend: str, engine: str) -> dict[str, int]:
    """Of the layers, by what multiplies them: a format of the vendor, a type of ggml, or bits of the NPU."""
    if backend not in (CPU, NPU):
        return {quant.partition("_")[0]: matrix_weights(shape) - shape.vocab * shape.hidden}
    file_type = next(file for name, file in FILES if name in quant)
    found: Counter[str] = Counter()
    *layers, _ = matrices(shape, file_type)
    for matrix in layers:
        if backend == CPU:
            repacked = matrix.type == "Q4_0" or (engine.endswith("(CPU_REPACK)") and matrix.type != "F16")
            found[f"{matrix.type} in fours" if repacked else matrix.type] += matrix.weights
        else:
            kinds = NPU_BITS[matrix.type]
            for bits in kinds:
                found[f"{bits:g} bits"] += matrix.weights // len(kinds)
    return dict(found)
