"""The feed-forward block of a Llama as one submit: down(SiLU(gate(x)) * up(x)).

The intermediate columns are cut into parts for which one product of `down` fits the convolution buffer. For
each part:

| step | programs | where |
| --- | --- | --- |
| gate = x times its weights | 1 | a product |
| sigmoid(gate) | 1 for each 32,768 elements | DPU: a table |
| a = max(gate, -12) times that | 1 for each 32,768 elements | DPU |
| h = x times the weights of up, times a, scaled | 1 | a product, multiplied in its one rounding |
| y = h times the weights of down, scaled, plus the y of earlier parts | 1 | a product with an addition |

What lies between products is rounded to fp16, not to int8: requantising is known only as the end of an int8
product (`requantised_product.py`), and int8 around SiLU's table was found unusable (ORK). A table behind a
product in the same program would save a pass, but reports differ (it times out at ORK, works at GRU).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, isfinite, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.layout import padded
from rockledge.npu.lut import LARGEST_HALF, SIGMOID_TAIL, sigmoid_table
from rockledge.npu.programs.activations import gated
from rockledge.npu.programs.elementwise import Combine, FirstStage
from rockledge.npu.programs.float_product import LARGEST_COLUMNS, float_banks
from rockledge.npu.programs.operator import Builder, Operator, Tensor

Halves = NDArray[np.float16]
_RUN: Final = 32
_GROUP: Final = 16
_LARGEST_SHIFT: Final = 14  # powers of two down to 2^-14 are normal fp16, as the first stage takes them
_SLACK: Final = 1.01  # more than roundings and the table add to a product of norms
_TABLE_ERROR: Final = 1e-3


@dataclass(frozen=True)
class FeedForward:
    """The operator, whose output is `scale` (1 or a smaller power of two) times the block's result.

    Between the products the intermediate columns are multiplied by `hidden_scale`, also a power of two, and
    come in `parts`.
    """

    operator: Operator
    scale: float
    hidden_scale: float
    parts: int


def feed_forward(rows: int, gate: Halves, up: Halves, down: Halves, largest_norm: float) -> FeedForward:
    """Of the input "x" fp16 [rows, inputs].

    `gate` and `up` are fp16 [intermediate, inputs], `down` is fp16 [outputs, intermediate].
    `largest_norm` is the largest Euclidean norm of a row that calibration saw. By it no sum can leave fp16
    (Cauchy and Schwarz), whatever the row: h and y are scaled by powers of two for that, and longer rows are
    refused.

    Error of y against float64 of the same x and weights, with g, u, h, y of the exact block (s = SiLU(g), h
    and y unscaled), G = |gate| |x|, U = |up| |x|, H = |down| |h| (sums of magnitudes):

        dg = |g| / 2048 + G / 2^16 + 2^-25
        ds = 1.1 dg + |s| / 1024 + 7e-4
        dh = |u| ds + (|s| + ds) U / 2^16 + (|h| + |u| ds) / 1024 + 2^-25 / hidden_scale
        |error| <= sum(|down| dh) + parts (H + sum(|down| dh)) / 2048 + H / 2^16 + parts 2^-25 / scale

    Raises NpuError for shapes that do not belong together or do not fit (`float_product_program`: up to 4,096
    outputs, and inputs that leave room for weights beside the rows), for weights that are no numbers, and for
    norms that a scale of 2^-14 does not bring into fp16.
    """
    _check(rows, gate, up, down, largest_norm)
    intermediate, inputs = gate.shape
    h_shift, y_shift = _shifts(gate, up, down, largest_norm)
    builder = Builder("feed-forward", rows)
    x = builder.input("x", inputs, _RUN)
    builder.check(_short_rows(largest_norm))
    table = sigmoid_table(-SIGMOID_TAIL, SIGMOID_TAIL)
    result: Tensor | None = None
    width = _part(builder.padded_rows, intermediate)
    for first in range(0, intermediate, width):
        part = slice(first, first + width)
        gates = builder.product(x, _wide(gate[part], width, x.columns))
        active = gated(builder, gates, table)
        hidden = builder.product(
            x, _wide(up[part], width, x.columns), _scaled(-h_shift), (Combine.MULTIPLY, active)
        )
        weights = _wide(down[:, part], padded(len(down), _GROUP), width)
        before = None if result is None else (Combine.ADD, result)
        result = builder.product(hidden, weights, _scaled(h_shift - y_shift), before)
    assert result is not None
    return FeedForward(
        operator=builder.finish(result, len(down)),
        scale=2.0**-y_shift,
        hidden_scale=2.0**-h_shift,
        parts=ceil(intermediate / width),
    )


def _shifts(gate: Halves, up: Halves, down: Halves, norm: float) -> tuple[int, int]:
    """The powers of two that h and y are divided by, so that neither leaves fp16 for a row of that norm."""
    gates, ups = (norm * np.sqrt((w.astype(np.float64) ** 2).sum(axis=1)) for w in (gate, up))
    hidden = _SLACK * (gates + _TABLE_ERROR) * ups
    # Sums of magnitudes, so that what lies between two parts fits as well.
    sums = _SLACK * np.abs(down.astype(np.float64)) @ hidden
    h_shift, y_shift = (max(0, ceil(log2(max(b.max(), 1.0) / LARGEST_HALF))) for b in (hidden, sums))
    if gates.max() * _SLACK > LARGEST_HALF or max(h_shift, y_shift) > _LARGEST_SHIFT:
        raise NpuError(
            f"rows of norm {norm:g} can reach {gates.max():.3g} in the gate and {sums.max():.3g} in the "
            f"result of this feed-forward block, expected up to {LARGEST_HALF:g} and "
            f"{LARGEST_HALF * 2.0**_LARGEST_SHIFT:.3g}; leave it to the CPU"
        )
    return h_shift, y_shift


def _part(rows: int, intermediate: int) -> int:
    """Intermediate columns of a part: as few parts as fit, of about equal width, a multiple of 32."""
    parts = ceil(padded(intermediate, _RUN) / LARGEST_COLUMNS)
    while True:
        width = padded(ceil(intermediate / parts), _RUN)
        try:
            float_banks(rows, width)
        except NpuError:
            if width == _RUN:
                raise
            parts += 1
        else:
            return width


def _scaled(exponent: int) -> FirstStage | None:
    return FirstStage(multiplier=2.0**exponent) if exponent else None


def _wide(weights: Halves, columns: int, inputs: int) -> Halves:
    wide = np.zeros((columns, inputs), np.float16)
    wide[: weights.shape[0], : weights.shape[1]] = weights
    return wide


def _check(rows: int, gate: Halves, up: Halves, down: Halves, norm: float) -> None:
    named = {"gate": gate, "up": up, "down": down}
    if any(w.dtype != np.float16 or w.ndim != 2 or not w.size for w in named.values()) or not (
        gate.shape == up.shape and down.shape[1] == len(gate)
    ):
        found = ", ".join(f"{name} {w.dtype} {list(w.shape)}" for name, w in named.items())
        raise NpuError(
            f"a feed-forward block has weights {found}, expected float16, two alike of [intermediate, "
            "inputs] and one of [outputs, intermediate]"
        )
    for name, weights in named.items():
        if not np.isfinite(weights).all():
            raise NpuError(f"the weights {name} of a feed-forward block hold an infinity or no number")
    if rows < 1:
        raise NpuError(f"a feed-forward block has {rows} rows, expected at least 1")
    if not (isfinite(norm) and norm > 0):
        raise NpuError(f"the largest norm of a row is {norm:g}, expected a positive number; calibrate")


def _short_rows(largest_norm: float) -> Callable[[Mapping[str, Halves]], None]:
    def check(arrays: Mapping[str, Halves]) -> None:
        norms = np.sqrt((arrays["x"].astype(np.float64) ** 2).sum(axis=1))
        if not (norms <= largest_norm).all():
            row = int(np.argmin(norms <= largest_norm))
            raise NpuError(
                f"row {row} of a feed-forward block has a norm of {norms[row]:g}, expected at most "
                f"{largest_norm:g}, for which its scales were chosen; calibrate on text that reaches it"
            )

    return check
