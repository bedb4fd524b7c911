"""The time of a prompt in an engine that is not ours: so many seconds for each of what the engine does, at
most four of them fitted and the others facts of the board.

- A product of a weight and an input. On a processor rows go by themselves (`row_mac_s`) or in fours, which
  are ggml's repacked kernels (`fours_mac_s`, and of super-blocks `k_fours_mac_s`). rk-llama.cpp's in 16 and
  8 bits are counted by the byte (`mac_byte_s`); those in 4 bits need a Hadamard transform of their inputs
  (`int4_mac_s`). Else `mac_s`.
- A byte of weights that the NPU reads: `byte_s`. Inputs of the rows have to fit its buffer, and weights are
  read again for the next rows. Of 14,336 inputs 25 rows fit. `read_s` counts every weight once, for a chip
  whose buffer is not published.
- An input or output of a linear, which a processor rounds or converts: `activation_s`.
- A partial sum of a group of weights, which a processor adds: `partial_s`.
- A score of attention, of which there are half of the square of the prompt's length: `score_s`.
- A weight that is unpacked to fp16 once for so many rows: `unpack_s`.
- What a layer does for a row beside them: `layer_row_s`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bench.engine_time import REFERENCE
from bench.published_prefill import CPU, NPU, ROCKET, Prompt

ROWS_BUFFER: Final = int((REFERENCE.value("npu_cbuf_banks") - 1) * REFERENCE.value("npu_cbuf_bank_bytes"))
"""Bytes of a core's buffer for rows of int8 inputs: all banks but one, which weights need."""
Q6_TIMES: Final = 2
"""Time of a product in Q6_K beside the other types: putting 6 bits together takes about as many vector
instructions as multiplying (ggml_vec_dot_q6_K_q8_K beside ggml_vec_dot_q8_0_q8_0 of ggml-org/llama.cpp
ggml/src/ggml-cpu/arch/arm/quants.c)."""
_INT8_SHARE: Final = 1.8 / 2.05
"""Of its peak that a core reached in the closed API (clehaxze's benchmark in allbilly/rk3588)."""
_MACS: Final = (
    REFERENCE.value("npu_cores") * REFERENCE.value("npu_hz") * REFERENCE.value("npu_int8_macs_per_cycle")
)
_BYTES: Final = REFERENCE.value("npu_read_bandwidth")
_SUM_BYTES: Final = 16
"""Of a partial sum: int32 written by the NPU and read by the processor, a float32 sum read and written."""


def streamed(prompt: Prompt) -> float:
    """Bytes of weights that are read, of layers as often as rows fill the buffer."""
    total = float(prompt.head)
    for inputs, outputs in prompt.linears:
        times = -(-prompt.tokens // max(1, ROWS_BUFFER // inputs))
        total += prompt.layers * inputs * outputs * times
    return total * prompt.bits / 8


def _kernel(kind: str) -> str:
    """The term of a type of ggml."""
    if not kind.endswith("in fours"):
        return "row_mac_s"
    return "k_fours_mac_s" if "_K" in kind else "fours_mac_s"


def _by_kernel(prompt: Prompt, term: str) -> float:
    """Products of the types that `term` is of, each of Q6_K as the times that it takes."""
    return prompt.tokens * sum(
        float(weights * (Q6_TIMES if kind.startswith("Q6_K") else 1))
        for kind, weights in prompt.weights.items()
        if _kernel(kind) == term
    )


def _npu_bytes(prompt: Prompt) -> float:
    return float(
        prompt.tokens * sum(int(kind[:2]) // 8 * n for kind, n in prompt.weights.items() if kind != "4 bits")
    )


TERMS: Final[dict[str, Callable[[Prompt], float]]] = {
    "mac_s": lambda prompt: prompt.macs,
    "byte_s": streamed,
    "read_s": lambda prompt: (prompt.of_layers + prompt.head) * prompt.bits / 8,
    "activation_s": lambda prompt: prompt.activations,
    "partial_s": lambda prompt: prompt.tokens * prompt.of_layers / prompt.group if prompt.group else 0.0,
    "score_s": lambda prompt: prompt.scores,
    "unpack_s": lambda prompt: prompt.unpacked,
    "layer_row_s": lambda prompt: prompt.layers * prompt.tokens,
    **{term: partial(_by_kernel, term=term) for term in ("row_mac_s", "fours_mac_s", "k_fours_mac_s")},
    "mac_byte_s": _npu_bytes,
    "int4_mac_s": lambda prompt: prompt.tokens * prompt.weights.get("4 bits", 0),
}
"""How many of each a prompt takes."""


@dataclass(frozen=True)
class Known:
    """Seconds of a term that a fact of the board gives, and which."""

    seconds: float
    source: str


@dataclass(frozen=True)
class Engine:
    """Terms whose seconds are `fitted`, and those that are `known`; `instead`: another whose seconds a term
    takes where no prompt tells its own."""

    fitted: tuple[str, ...]
    known: dict[str, Known] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)


ENGINES: Final[dict[str, Engine]] = {
    "RKLLM": Engine(
        ("activation_s",),
        {
            "mac_s": Known(
                1 / (_MACS * _INT8_SHARE), "three cores at 1.8 Top/s, one core's best in the closed API"
            ),
            "byte_s": Known(1 / _BYTES, "the NPU's read bandwidth, as measured without a model"),
            "partial_s": Known(_SUM_BYTES / _BYTES, f"{_SUM_BYTES} bytes in memory for each"),
        },
    ),
    "RKLLM on RK3576": Engine(("mac_s", "read_s", "activation_s", "partial_s")),
    CPU: Engine(
        ("row_mac_s", "fours_mac_s", "k_fours_mac_s", "score_s"), instead={"k_fours_mac_s": "fours_mac_s"}
    ),
    ROCKET: Engine(("mac_s", "activation_s", "unpack_s", "score_s")),
    NPU: Engine(("mac_byte_s", "int4_mac_s", "layer_row_s")),
}


@dataclass(frozen=True)
class PrefillConstants:
    """Seconds of each term by name."""

    seconds_of: dict[str, float]

    def seconds(self, prompt: Prompt) -> float:
        """Until all tokens are read, modelled."""
        return sum(each * TERMS[name](prompt) for name, each in self.seconds_of.items())

    def tok_s(self, prompt: Prompt) -> float:
        """Modelled."""
        return prompt.tokens / self.seconds(prompt)
