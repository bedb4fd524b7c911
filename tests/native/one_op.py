"""Programs of one operation, and random packed linears, for the tests of the native core."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NativeError
from rockledge.formats.bands import TABLES, Band, groups
from rockledge.formats.packing import PackedLinear, pack
from rockledge.runtime import native

NO_CACHE: dict[str, Any] = {
    "heads": 1, "kv_heads": 1, "head_dim": 8, "page_tokens": 16, "context": 0, "pools": (),
}  # fmt: skip


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that starts on 64 bytes, as mapped tensors do."""
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def random_linear(
    rng: np.random.Generator, cols: int, bands: Sequence[tuple[int, int]], bias: bool = False
) -> PackedLinear:
    """A linear with (rows, bits) bands, random codes, indices and tables."""
    rows = sum(count for count, _ in bands)
    placed, start = [], 0
    codes = np.zeros((rows, cols), np.uint8)
    for count, bits in bands:
        placed.append(Band(start, count, bits))
        if bits == 8:
            codes[start : start + count] = (
                rng.integers(-127, 128, (count, cols)).astype(np.int8).view(np.uint8)
            )
        else:
            codes[start : start + count] = rng.integers(0, 1 << bits, (count, cols))
        start += count
    tables = {
        bits: rng.integers(-127, 128, (TABLES, 1 << bits)).astype(np.int8)
        for bits in {b for _, b in bands if b < 8}
    }
    return pack(
        codes,
        rng.integers(0, TABLES, (rows, groups(cols))).astype(np.uint8),
        tables,
        rng.uniform(0.001, 0.1, rows).astype(np.float32),
        placed,
        rng.normal(0, 1, rows).astype(np.float32) if bias else None,
    )


def native_bands(packed: PackedLinear, column: int = 0) -> list[native.Band]:
    """The bands of a packed linear as the core takes them; its first row lands in output column `column`."""
    codes, index = aligned(packed.codes), aligned(packed.index)
    found = []
    for band, span in zip(packed.bands, packed.spans(), strict=True):
        rows = slice(band.start, band.start + band.rows)
        below_eight = band.bits < 8
        found.append(
            native.Band(
                codes=codes[span.codes : span.codes + span.codes_bytes],
                index=index[span.index : span.index + span.index_bytes] if below_eight else None,
                tables=np.ascontiguousarray(packed.tables_of(band.bits)) if below_eight else None,
                scale=packed.scale[rows],
                bias=None if packed.bias is None else packed.bias[rows],
                rows=band.rows,
                cols=packed.cols,
                bits=band.bits,
                out_column=column + band.start,
            )
        )
    return found


def step_of(rows: int, **fields: Any) -> native.Step:
    """A step of `rows` rows of one sequence from position 0, with single fields replaced."""
    values: dict[str, Any] = {
        "tokens": np.zeros(rows, np.int32),
        "positions": np.arange(rows, dtype=np.int32),
        "sequences": np.zeros(rows, np.int32),
        "block_tables": np.zeros((1, 1), np.int32),
    }
    return native.Step(**{**values, **fields})


def float_buffer(width: int, slot: int) -> native.Buffer:
    return native.Buffer(native.BufferKind.FLOAT, width, slot)


def int8_buffer(width: int, slot: int, planes: int = 1) -> native.Buffer:
    return native.Buffer(native.BufferKind.INT8, width, slot, planes)


def supported_kernels() -> tuple[str, ...]:
    """Names of the kernels this machine can run, portable first."""
    op, shape = native.Op(native.OpCode.GATHER, (0,), (1,)), native.Shape(max_rows=1, **NO_CACHE)
    buffers, found = [float_buffer(8, 0), float_buffer(8, 1)], []
    for name in sorted(set(native.KERNELS) - {"auto"}, key=native.KERNELS.__getitem__):
        with suppress(NativeError):
            native.Program([op], [], buffers, shape, threads=1, kernel=name).close()
            found.append(name)
    return tuple(found)


def run_row_op(
    code: native.OpCode,
    x: NDArray[np.float32],
    outputs: Sequence[native.Buffer],
    *,
    kernel: str,
    threads: int = 1,
    dim: tuple[int, ...] = (),
    real: tuple[float, ...] = (),
    weight: tuple[NDArray[np.float32] | None, ...] = (),
) -> list[NDArray[Any]]:
    """Runs one operation on the rows of `x` fp32 [T, width] and returns its output buffers."""
    rows, width = x.shape
    op = native.Op(code, (0,), tuple(range(1, len(outputs) + 1)), dim=dim, real=real, weight=weight)
    buffers = [float_buffer(width, 0), *outputs]
    program = native.Program(
        [op], [], buffers, native.Shape(max_rows=rows, **NO_CACHE), threads=threads, kernel=kernel
    )
    program.buffer(0)[:] = x
    program.run(step_of(rows))
    results = [program.buffer(i).copy() for i in range(1, len(buffers))]
    program.close()
    return results


def run_linear(
    packed: PackedLinear,
    q: NDArray[np.int8],
    sx: NDArray[np.float32],
    residual: NDArray[np.float32] | None = None,
    *,
    kernel: str,
    threads: int = 1,
) -> NDArray[Any]:
    """One linear of q int8 [T, planes, K] and sx fp32 [T]: fp32 [T, N]."""
    rows, planes, cols = q.shape
    outputs = [float_buffer(packed.rows, slot) for slot in (2, 3)]
    buffers = [int8_buffer(cols, 0, planes), float_buffer(1, 1), *outputs]
    bands = native_bands(packed)
    inputs = (0, 1, -1 if residual is None else 2)
    op = native.Op(native.OpCode.LINEAR, inputs, (3,), bands=len(bands))
    program = native.Program(
        [op], bands, buffers, native.Shape(max_rows=rows, **NO_CACHE), threads=threads, kernel=kernel
    )
    program.buffer(0)[:, :, :cols] = q
    program.buffer(1)[:, 0] = sx
    if residual is not None:
        program.buffer(2)[:] = residual
    program.run(step_of(rows))
    result = program.buffer(3).copy()
    program.close()
    return result
