"""Activation planes: fp32 rows as one int8 plane, or as two that carry sixteen bits between them.

Every step is fp32, so that the native kernels reproduce the integers exactly.
"""

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError

LARGEST = {1: 127, 2: 32512}  # 32512 = 256 * 127: the high plane of the largest value is 127


def quantize_activations(
    x: npt.NDArray[np.float32], planes: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantises each row of `x` fp32 [T, K] symmetrically; returns (q int8 [T, planes, K], scale fp32 [T]).

    One plane: x ~ scale * q. Two planes: x ~ scale * (256 * q[:, 0] + q[:, 1]). Rounding is half to even. A
    row of zeros, or one so small that its inverse scale is not finite, becomes zeros with scale 0.
    """
    if planes not in LARGEST:
        raise UsageError(f"activations in {planes} planes, expected 1 or 2")
    top = np.float32(LARGEST[planes])
    largest = np.abs(x).max(axis=1, initial=0.0).astype(np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = top / largest
    usable = np.isfinite(inverse)
    inverse = np.where(usable, inverse, np.float32(0))
    scale = np.where(usable, largest / top, np.float32(0)).astype(np.float32)
    rounded = np.rint(x * inverse[:, None]).astype(np.int32)
    if planes == 1:
        return rounded.astype(np.int8)[:, None, :], scale
    high = (rounded + 128) >> 8
    low = rounded - 256 * high
    return np.stack([high, low], axis=1).astype(np.int8), scale


def dequantize_activations(
    q: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """fp32 [T, K] of the planes int8 [T, planes, K] and the scales fp32 [T]."""
    whole = q[:, 0].astype(np.int32)
    if q.shape[1] == 2:
        whole = 256 * whole + q[:, 1]
    return whole.astype(np.float32) * scale[:, None]
