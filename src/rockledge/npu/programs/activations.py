"""Elementwise operators of a feed-forward block: SiLU, GELU and exp by table, gate x up, residual addition.

All run on the DPU alone. Activations are two passes, as GRN found them right: the gate by table, then a
product with x; one pass would need a signed table, which has spikes. Bounds are against float64 of the same
fp16 inputs and hold for either rounding of the interpolation (`lut.look_up`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.lut import FP16_END, LARGEST_HALF, Table, gauss_table, half_exp_table, sigmoid_table
from rockledge.npu.programs.elementwise import PIXEL, Combine, FirstStage
from rockledge.npu.programs.operator import Builder, Operator, Tensor

Halves = NDArray[np.float16]


def silu(rows: int, columns: int, low: float, high: float) -> Operator:
    """x / (1 + e^-x) of the input "x" in the calibrated range [low, high]; |error| <= 7e-4 + |y| / 1024.

    Where the range reaches -12 or 12 the table covers [-12, 12], and any other finite input is safe too:
    below, x is clamped at -12, above, the gate is 1. A narrower range has a finer table, and inputs beyond it
    are refused. Two programs for each 32,768 elements.
    """
    return _activation("SiLU", rows, columns, sigmoid_table(low, high))


def gelu(rows: int, columns: int, low: float, high: float) -> Operator:
    """x times the normal distribution's share below x (exact, with erf); |error| <= 3.5e-4 + |y| / 1024.

    As `silu`, with a table of [-5, 5] at most.
    """
    return _activation("GELU", rows, columns, gauss_table(low, high))


def exp(rows: int, columns: int) -> Operator:
    """e^x of the input "x" <= 0, exactly 1 at 0; |error| <= e^x / 256 + 3e-7.

    Any finite input up to 0 is safe: below -16 it counts as -16, whose e^x is 1.1e-7. One above 0 is refused.
    Two programs for each 32,768 elements.
    """
    builder = Builder("exp", rows)
    x = builder.input("x", columns, PIXEL)
    builder.check(_inside(half_exp_table(), "x"))
    return builder.finish(exp_of(builder, x), columns)


def exp_of(builder: Builder, x: Tensor) -> Tensor:
    """e^x for x <= 0, as the square of a table's e^(x / 2)."""
    half = builder.look_up(half_exp_table(), x)
    return builder.pair(Combine.MULTIPLY, half, half)


def multiply(rows: int, columns: int) -> Operator:
    """Gate times up: the inputs "gate" and "up", rounded once; |error| <= |y| / 2048 (2^-25 below 2^-14).

    Inputs whose product leaves fp16 (65,504) are refused.
    """
    return _two(rows, columns, "gate times up", ("gate", "up"), Combine.MULTIPLY)


def residual_add(rows: int, columns: int) -> Operator:
    """The residual: the inputs "x" and "delta" added, rounded once; |error| <= |y| / 2048.

    Inputs whose sum leaves fp16 are refused.
    """
    return _two(rows, columns, "the residual addition", ("x", "delta"), Combine.ADD)


def gated(builder: Builder, x: Tensor, table: Table) -> Tensor:
    """x times table(x); a safe table's clamp goes for the product as well, so that no tail is multiplied."""
    gate = builder.look_up(table, x)
    first = None if table.least is None else FirstStage("max", table.least)
    return builder.pair(Combine.MULTIPLY, x, gate, first)


def _activation(name: str, rows: int, columns: int, table: Table) -> Operator:
    builder = Builder(name, rows)
    x = builder.input("x", columns, PIXEL)
    builder.check(_inside(table, "x"))
    return builder.finish(gated(builder, x, table), columns)


def _two(rows: int, columns: int, name: str, names: tuple[str, str], combine: Combine) -> Operator:
    builder = Builder(name, rows)
    one, other = (builder.input(each, columns, PIXEL) for each in names)

    def fits(arrays: Mapping[str, Halves]) -> None:
        x, y = (arrays[each].astype(np.float64) for each in names)
        result = x * y if combine is Combine.MULTIPLY else x + y
        if not (np.abs(result) < FP16_END).all():
            raise NpuError(
                f"a result of {name} is beyond {LARGEST_HALF:g}, the largest fp16, or an input is not a "
                "number; scale the inputs, or leave this layer to the CPU"
            )

    builder.check(fits)
    return builder.finish(builder.pair(combine, one, other), columns)


def _inside(table: Table, name: str) -> Callable[[Mapping[str, Halves]], None]:
    return lambda arrays: table.check(arrays[name])
