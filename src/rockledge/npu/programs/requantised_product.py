"""An int8 product whose sums the NPU itself requantises to int8, with scales fitted to its rule.

One program, as GRU's int8 layers and GRN2's scales for each channel [H]: CORE multiplies, the DPU's first
stage adds the bias (and multiplies, with one shift for all channels), the output conversion scales, shifts,
rounds, adds the offset and saturates. `requantise.py` fits the numbers; the result is exact by the rule that
it was fitted to. A tensor of int32 sums in memory is not requantised by itself: no source describes such a
program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.isa import DPU_PRECISION, ENABLE_CONV_RDMA, STAGE_ALU, encode
from rockledge.npu.layout import ATOM_BYTES, INT8, pack_cube, pack_kernels, pad, padded, unpack_cube
from rockledge.npu.programs.operator import UNTOUCHED
from rockledge.npu.programs.tile_program import (
    BANKS,
    INPUT,
    OUTPUT,
    SCRATCH,
    STAGE_OFF,
    WEIGHT,
    Write,
    check_product,
    complete,
    data_banks,
    product_writes,
)
from rockledge.npu.programs.tiling import Reuse
from rockledge.npu.requantise import STANDARD, Fit, Rule, requantised
from rockledge.npu.stream import Address, Program, build

Int8 = NDArray[np.int8]

_INT8_DPU: Final = {precision.name: code for code, precision in DPU_PRECISION.items()}["int8"]
_ATOMS: Final = INT8.group // INT8.atom  # of one pixel and kernel group, SIZE_E + 1
_ADD: Final = {name: code for code, name in STAGE_ALU.items()}["add"]
# What BRDMA reads: the ALU's operand alone, dense int32; or records of eight channels [H: GRN2].
_USE_BIAS: Final = 1
_USE_ALL: Final = 7
_RECORD: Final = np.dtype([("bias", "<i4", 8), ("offset", "<i2", 8), ("multiplier", "<i2", 8)])


@dataclass(frozen=True)
class RequantisedProduct:
    """int8 [rows, columns] = requantise(A [rows, inputs] x B [columns, inputs] transposed).

    `rows`, `columns` and `inputs` without padding. `weights` holds B and the first stage's operands.
    """

    rows: int
    columns: int
    inputs: int
    fit: Fit
    kernels: Int8
    program: Program
    sizes: Mapping[str, int]
    weights: NDArray[np.uint8]

    def packed(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """The input buffer of "x". Raises NpuError for another shape or type."""
        x = self._input(arrays)
        wide = pad(x, _padded_rows(self.rows), padded(self.inputs, INT8.run))
        return pack_cube(wide, INT8.atom).view(np.uint8)

    def taken(self, written: Mapping[str, NDArray[np.uint8]]) -> Int8:
        """The output int8. Raises NpuError when a job left all of it untouched.

        No int8 is impossible as a result, so only an output that is untouched as a whole is known to be.
        """
        flat = written[OUTPUT][: self.sizes[OUTPUT]]
        if (flat == UNTOUCHED).all():
            raise NpuError(
                "a requantised product left its output untouched although the job was reported done; repeat "
                "it "
                "after a reset, or compute it on the CPU"
            )
        rows, columns = _padded_rows(self.rows), padded(self.columns, INT8.group)
        return unpack_cube(flat.view(np.int8), rows, columns, INT8.atom)[: self.rows, : self.columns]

    def twin(self, arrays: Mapping[str, NDArray[Any]], rule: Rule = STANDARD) -> Int8:
        """The same output, computed here by a rule."""
        sums = self._input(arrays).astype(np.float64) @ self.kernels.astype(np.float64).T
        return requantised(sums.astype(np.int64), self.fit, rule)

    def _input(self, arrays: Mapping[str, NDArray[Any]]) -> Int8:
        x = arrays["x"]
        if x.shape != (self.rows, self.inputs) or x.dtype != np.int8:
            raise NpuError(
                f"x of a requantised product is {x.dtype} {list(x.shape)}, expected int8 "
                f"{[self.rows, self.inputs]}"
            )
        return x


def requantised_product(rows: int, kernels: Int8, fit: Fit) -> RequantisedProduct:
    """The operator for B = `kernels` int8 [columns, inputs]; the fit has one channel or as many as columns.

    Raises NpuError naming the limit for a tile that one program cannot take (`product_program`).
    """
    columns, inputs = kernels.shape
    if len(fit.bias) not in (1, columns):
        raise NpuError(
            f"a fit has {len(fit.bias)} channels, but there are {columns} columns; fit each column"
        )
    high, deep, wide = _padded_rows(rows), padded(inputs, INT8.run), padded(columns, INT8.group)
    data = data_banks(high, deep)
    check_product(high, deep, wide, data, BANKS - data)
    packed = pack_kernels(pad(kernels, wide, deep), INT8).view(np.uint8)
    a, b, c = Address(INPUT), Address(WEIGHT), Address(OUTPUT)
    writes = [
        *product_writes(high, deep, wide, (data, BANKS - data), Reuse.NONE, (a, b, c)),
        *_requantising_writes(high, fit, Address(WEIGHT, packed.size)),
    ]
    program = build(complete(writes, ("CNA", "CORE", "DPU", "DPU_RDMA")), ENABLE_CONV_RDMA)
    weights = np.concatenate([packed, _operands(fit, columns, wide)])
    sizes = {INPUT: high * deep, WEIGHT: weights.size, SCRATCH: 0, OUTPUT: high * wide}
    return RequantisedProduct(rows, columns, inputs, fit, kernels, program, sizes, weights)


def _requantising_writes(rows: int, fit: Fit, operands: Address) -> Iterator[Write]:
    """What an int8 output changes of a product's registers."""
    stage = {**STAGE_OFF, "bypass": 0, "alu_bypass": 0, "alu_algorithm": _ADD, "alu_source": 1}
    negative_shift = 0
    if fit.multipliers is not None:
        stage |= {"mul_bypass": 0}
        yield "DPU_BS_MUL_CFG", encode("DPU_BS_MUL_CFG", shift=fit.stage_shift, source=1)
        negative_shift = fit.stage_shift
    yield "DPU_BS_CFG", encode("DPU_BS_CFG", **stage)
    yield (
        "DPU_DATA_FORMAT",
        encode(
            "DPU_DATA_FORMAT",
            in_precision=_INT8_DPU,
            proc_precision=_INT8_DPU,
            out_precision=_INT8_DPU,
            bs_shift_negative=negative_shift,
        ),
    )
    size_e = _ATOMS - 1
    yield "CORE_MISC_CFG", encode("CORE_MISC_CFG", qd_en=1)
    yield "DPU_BS_OW_CFG", encode("DPU_BS_OW_CFG", size_e_0=size_e, size_e_1=size_e, size_e_2=size_e)
    yield "DPU_SURFACE_ADD", _ATOMS * rows * ATOM_BYTES
    yield "DPU_OUT_CVT_OFFSET", fit.offset & 0xFFFFFFFF
    yield "DPU_OUT_CVT_SCALE", encode("DPU_OUT_CVT_SCALE", scale=fit.scale)
    yield "DPU_OUT_CVT_SHIFT", encode("DPU_OUT_CVT_SHIFT", shift=fit.shift, cvt_round=int(fit.ties_away))
    use = _USE_BIAS if fit.multipliers is None else _USE_ALL
    yield "DPU_RDMA_BRDMA_CFG", encode("DPU_RDMA_BRDMA_CFG", data_use=use)
    yield "DPU_RDMA_BS_BASE_ADDR", operands


def _operands(fit: Fit, columns: int, wide: int) -> NDArray[np.uint8]:
    """What BRDMA reads for each channel; padded channels have a bias and a multiplier of 0."""
    bias = np.zeros(wide, np.int32)
    bias[:columns] = fit.bias
    if fit.multipliers is None:
        return bias.view(np.uint8)
    records = np.zeros(wide // 8, _RECORD)
    records["bias"] = bias.reshape(-1, 8)
    multipliers = np.zeros(wide, np.int16)
    multipliers[:columns] = fit.multipliers
    records["multiplier"] = multipliers.reshape(-1, 8)
    return records.view(np.uint8)


def _padded_rows(rows: int) -> int:
    return rows if rows == 1 else padded(rows, 4)
