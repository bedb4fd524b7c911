"""Which operations of a program the NPU can take, by their sizes alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rockledge.formats.bands import STRIP, TILE
from rockledge.npu.programs.matmul import LARGEST_INPUTS
from rockledge.runtime.native import Band, OpCode
from rockledge.runtime.program import ProgramPlan

_CODES_AND_SCALE = 2
"""Inputs of a linear; one more is what it adds to."""


@dataclass(frozen=True)
class Linear:
    """A linear operation, all its bands together: int8 [rows * planes, inputs] x [outputs, inputs].

    `inputs` is padded to a tile's 32. `weights` counts the stored weights by code width; `stored_bytes` are
    those of codes, indices and scales. `adds`: its results are added to floats that are there.
    """

    op: int
    outputs: int
    inputs: int
    planes: int
    weights: Mapping[int, int]
    stored_bytes: int
    adds: bool = False


def linears_of(plan: ProgramPlan) -> tuple[Linear, ...]:
    """The linears of every layer that the NPU can take, in the order of the program.

    Embedding and head stay on the CPU: one is a lookup, the other has a row or two in a step. So does a
    linear whose bands' strips of 8 columns do not follow each other without a gap: lanes are cut by strips.
    """
    return tuple(_linears(plan))


def _linears(plan: ProgramPlan) -> Iterator[Linear]:
    for number, op in enumerate(plan.ops):
        if op.code is not OpCode.LINEAR or op.on_logits:
            continue
        bands = plan.bands[op.first_band : op.first_band + op.bands]
        source = plan.buffers[op.inputs[0]]
        inputs = -(-source.width // TILE) * TILE
        if inputs > LARGEST_INPUTS or not _gapless(bands):
            continue
        weights: dict[int, int] = {}
        for band in bands:
            weights[band.bits] = weights.get(band.bits, 0) + band.rows * band.cols
        arrays = (array for band in bands for array in (band.codes, band.index, band.scale))
        yield Linear(
            op=number,
            outputs=max(band.out_column + band.rows for band in bands),
            inputs=inputs,
            planes=source.planes,
            weights=weights,
            stored_bytes=sum(array.nbytes for array in arrays if array is not None),
            adds=len(op.inputs) > _CODES_AND_SCALE,
        )


def _gapless(bands: Sequence[Band]) -> bool:
    column = 0
    for band in bands:
        if band.out_column != column:
            return False
        column += -(-band.rows // STRIP) * STRIP
    return True
