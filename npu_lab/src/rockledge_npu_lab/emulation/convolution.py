"""CNA and CORE at work: from a checked setup to the accumulators, 1 x 1 and depthwise 1 x 1 convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge_npu_lab.emulation.conv_operands import Buffer, read_features, read_weights
from rockledge_npu_lab.emulation.conv_setup import Convolution
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.products import float_products, integer_products
from rockledge_npu_lab.emulation.register_file import Snapshot


@dataclass(frozen=True)
class Accumulators:
    """[pixels, channels] int32 or fp32, and the sums of each pixel's inputs where they are asked for.

    `input_sums` is [pixels, 1] (one for all kernels) or [pixels, channels] when depthwise; None for floats.
    """

    values: NDArray[Any]
    input_sums: NDArray[np.int64] | None


def convolve(
    setup: Convolution, registers: Snapshot, memory: Memory, buffer: Buffer, sums_wanted: bool
) -> Accumulators:
    """The accumulators. Raises StreamError when operands lie outside the memory that was given."""
    channels = setup.channels if setup.depthwise else setup.kernels
    integer = setup.kind.name in ("int8", "int4")
    if setup.zeros:
        shape = (setup.pixels, channels)
        return Accumulators(np.zeros(shape, np.int32 if integer else np.float32), None)
    features = read_features(setup, registers, memory, buffer)
    weights = read_weights(setup, registers, memory, buffer)
    input_sums: NDArray[np.int64] | None = None
    if setup.depthwise:
        wide = _pixels_first(features).astype(np.int32)
        values: NDArray[Any] = wide * weights[: setup.channels].astype(np.int32)
        input_sums = wide.astype(np.int64) if sums_wanted else None
    elif integer:
        values = integer_products(features, weights)
        if sums_wanted:
            input_sums = features.sum(axis=(0, 2), dtype=np.int64)[:, None]
    else:
        fp16 = setup.kind.name == "fp16"
        kernels = weights.transpose(0, 2, 1, 3).reshape(setup.kernels, setup.channels)
        values = float_products(_pixels_first(features), kernels, registers.options, fp16)
    if setup.corrupt:
        random = np.random.default_rng(registers.options.seed)
        values = random.integers(-(1 << 20), 1 << 20, values.shape).astype(values.dtype)
    return Accumulators(values, input_sums)


def _pixels_first(features: NDArray[Any]) -> NDArray[Any]:
    surfaces, pixels, atom = features.shape
    return features.transpose(1, 0, 2).reshape(pixels, surfaces * atom)
