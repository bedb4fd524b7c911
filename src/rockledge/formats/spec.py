"""The integer core's specification: exact sums of int8 products, and the epilogue that makes them floats.

Every kernel must give these integers bit for bit, and this epilogue's floats.
"""

import numpy as np
import numpy.typing as npt

from rockledge.formats.packing import PackedLinear, unpack

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def integer_sums(q: Int8, w8: Int8) -> Int64:
    """sum_k q[t, p, k] * w8[n, k]: int64 [T, planes, N] of `q` int8 [T, planes, K], `w8` int8 [N, K].

    Each plane's sum fits int32 for K below 130000. The product runs in float64, where sums of that size are
    exact, because NumPy has no fast integer product.
    """
    rows, planes, cols = q.shape
    flat = q.reshape(rows * planes, cols).astype(np.float64)
    sums = np.empty((rows * planes, w8.shape[0]), np.float64)
    step = max(1, (1 << 22) // max(1, cols))
    for first in range(0, w8.shape[0], step):
        sums[:, first : first + step] = flat @ w8[first : first + step].astype(np.float64).T
    return sums.astype(np.int64).reshape(rows, planes, w8.shape[0])


def epilogue(
    sums: Int64,
    scale: Float32,
    x_scale: Float32,
    bias: Float32 | None = None,
    residual: Float32 | None = None,
) -> Float32:
    """fp32 [T, N] of sums int64 [T, planes, N], row scales [N] and token scales [T].

    Exactly: planes combine as 256 * high + low in int64 and round once to fp32; then times (scale * x_scale),
    then + bias, then + residual, each step rounded to fp32.
    """
    whole = sums[:, 0] if sums.shape[1] == 1 else 256 * sums[:, 0] + sums[:, 1]
    y = whole.astype(np.float32) * (scale[None, :] * x_scale[:, None])
    if bias is not None:
        y = y + bias[None, :]
    if residual is not None:
        y = y + residual
    return np.asarray(y, np.float32)


def linear(q: Int8, x_scale: Float32, packed: PackedLinear, residual: Float32 | None = None) -> Float32:
    """A whole linear: fp32 [T, rows] of quantised activations int8 [T, planes, cols] and their scales."""
    return epilogue(integer_sums(q, unpack(packed)), packed.scale, x_scale, packed.bias, residual)
