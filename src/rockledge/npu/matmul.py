"""A whole int8 matmul as register programs: where operands lie, what each core runs, how sums come back.

A tiling (`tiling.py`) says which rows, columns and inputs each program takes. Here its kicks become launches:
one chain of programs for each core, relocatable over four buffers.

| buffer | holds, for one launch |
| --- | --- |
| input | A int8 by row tile, each in the native layout with all padded inputs |
| weight | B int8 by input part, each in the native layout with all columns of the launch |
| output | C int32 by row tile in the native layout; one such plane for each part when the host adds them |
| scratch | one plane of C: the part that is added to the output next, when the NPU adds them |

Padding is zeros: padded inputs add nothing, padded rows and columns are computed and dropped. So the int32
sums are those of the integer specification (`formats/spec.py`) bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.errors import NpuError
from rockledge.npu.layout import INT8, SUMS_IN_ATOM, pack_cube, pack_kernels, pad, unpack_cube
from rockledge.npu.stream import ADDRESS_LIMIT, Program, chain
from rockledge.npu.tile_program import (
    INPUT,
    OUTPUT,
    SCRATCH,
    SUM_BYTES,
    WEIGHT,
    addition_program,
    product_program,
)
from rockledge.npu.tiling import TASKS_IN_KICK, Addition, Kick, Reuse, Span, Sums, Task, Tiling

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

LARGEST_INPUTS: Final = ((1 << 31) - 1) // (128 * 128)  # beyond it a sum of int8 products can leave int32


@dataclass(frozen=True)
class Launch:
    """One kick, ready to be placed: `chains` has one program chain for each core, None for an idle one.

    `sizes` are the bytes of the buffers it needs, by role (input, weight, output, scratch). A chain also
    wants the address of "program": where its own words lie, a multiple of 16.
    """

    rows: Span
    columns: Span
    chains: tuple[Program | None, ...]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Matmul:
    """A matmul of int8 [m, k] with int8 [n, k] as launches that can run in any order."""

    tiling: Tiling
    launches: tuple[Launch, ...]

    def input_bytes(self, launch: Launch, a: Int8) -> Int8:
        """The input buffer of a launch for A int8 [m, k]."""
        cut = self.tiling
        self._check("A", a, cut.m, cut.k)
        tiles = [
            pack_cube(pad(a[tile.start : tile.stop], tile.size, cut.padded_inputs), INT8.atom)
            for tile in _within(cut.row_tiles, launch.rows)
        ]
        return np.concatenate(tiles)

    def weight_bytes(self, launch: Launch, b: Int8) -> Int8:
        """The weight buffer of a launch for B int8 [n, k], rows being output channels."""
        cut, columns = self.tiling, launch.columns
        self._check("B", b, cut.n, cut.k)
        rows = b[columns.start : columns.stop]
        parts = [
            pack_kernels(pad(rows[:, part.start : part.stop], columns.size, part.size), INT8)
            for part in cut.input_parts
        ]
        return np.concatenate(parts)

    def sums(self, launch: Launch, output: Int32) -> Int32:
        """C int32 [launch.rows.size, launch.columns.size] of a launch's output buffer; parts are added here
        when the tiling leaves that to the host.
        """
        rows, columns = launch.rows, launch.columns
        total = np.zeros((rows.size, columns.size), np.int32)
        for plane in output.reshape(-1, rows.size * columns.size):
            for tile in _within(self.tiling.row_tiles, rows):
                first = tile.start - rows.start
                flat = plane[first * columns.size :]
                total[first : first + tile.size] += unpack_cube(flat, tile.size, columns.size, SUMS_IN_ATOM)
        return total

    def multiply(self, a: Int8, b: Int8, run: Callable[[Launch, Int8, Int8], Int32]) -> Int32:
        """C = A x B transposed, int32 [m, n], with `run(launch, input, weight) -> output` as the device."""
        cut = self.tiling
        c = np.empty((cut.padded_rows, cut.padded_columns), np.int32)
        for launch in self.launches:
            output = run(launch, self.input_bytes(launch, a), self.weight_bytes(launch, b))
            rows, columns = launch.rows, launch.columns
            c[rows.start : rows.stop, columns.start : columns.stop] = self.sums(launch, output)
        return c[: cut.m, : cut.n]

    @staticmethod
    def _check(name: str, x: Int8, rows: int, cols: int) -> None:
        if x.shape != (rows, cols) or x.dtype != np.int8:
            raise NpuError(
                f"{name} is {x.dtype} {list(x.shape)}, but the programs were made for int8 {[rows, cols]}"
            )


def planes_as_rows(q: Int8) -> Int8:
    """Activation planes int8 [T, planes, K] as rows [T x planes, K]: two planes are two rows of one token."""
    return q.reshape(-1, q.shape[-1])


def rows_as_planes(sums: Int32, planes: int) -> Int32:
    """The inverse on sums: int32 [T, planes, N] of [T x planes, N]."""
    return sums.reshape(-1, planes, sums.shape[-1])


def compile_matmul(tiling: Tiling) -> Matmul:
    """The programs of a tiling. Raises NpuError naming the limit where the hardware cannot do it."""
    if tiling.padded_inputs > LARGEST_INPUTS:
        raise NpuError(f"{tiling.k} inputs; beyond {LARGEST_INPUTS} a sum of int8 products can leave int32")
    return Matmul(tiling, tuple(_launch(tiling, kick) for kick in tiling.kicks))


def _launch(tiling: Tiling, kick: Kick) -> Launch:
    plane = kick.rows.size * kick.columns.size * SUM_BYTES
    planes = len(tiling.input_parts) if tiling.sums is Sums.HOST else 1
    sizes = {
        INPUT: kick.rows.size * tiling.padded_inputs,
        WEIGHT: kick.columns.size * tiling.padded_inputs,
        OUTPUT: plane * planes,
        SCRATCH: plane if tiling.sums is Sums.CHAIN else 0,
    }
    chains = []
    for tasks in kick.cores:
        if len(tasks) > TASKS_IN_KICK:
            raise NpuError(
                f"{len(tasks)} programs for one core in a kick; it takes {TASKS_IN_KICK}: split the kick"
            )
        programs = [_program(tiling, kick, task) for task in tasks]
        chains.append(chain(programs) if programs else None)
    needed = sum(sizes.values()) + sum(c.size_bytes for c in chains if c is not None)
    if needed > ADDRESS_LIMIT:
        raise NpuError(
            f"a launch needs {needed} bytes at once; an NPU address has 32 bits, so at most {ADDRESS_LIMIT}: "
            "split it by rows or columns"
        )
    return Launch(kick.rows, kick.columns, tuple(chains), sizes)


def _program(tiling: Tiling, kick: Kick, task: Task) -> Program:
    """The program of one task with its relocations at the task's place in the launch's buffers."""
    plane = kick.rows.size * kick.columns.size * SUM_BYTES
    row = task.rows.start - kick.rows.start
    column = task.columns.start - kick.columns.start
    sums = (row * kick.columns.size + column * task.rows.size) * SUM_BYTES
    if isinstance(task, Addition):
        return _moved(_addition(task.rows.size, task.columns.size), {OUTPUT: sums, SCRATCH: sums})
    to_scratch = tiling.sums is Sums.CHAIN and task.part > 0
    if tiling.sums is Sums.HOST:
        sums += task.part * plane
    part = tiling.input_parts[task.part]
    offsets = {
        INPUT: row * tiling.padded_inputs + task.inputs.start * task.rows.size,
        WEIGHT: kick.columns.size * part.start + column * part.size,
        OUTPUT: sums,
    }
    program = _product(
        task.rows.size, task.inputs.size, task.columns.size, task.data_banks, task.weight_banks, task.reuse
    )
    return _moved(program, offsets, {OUTPUT: SCRATCH} if to_scratch else {})


@lru_cache(maxsize=256)
def _product(rows: int, inputs: int, columns: int, data: int, weight: int, reuse: Reuse) -> Program:
    return product_program(rows, inputs, columns, banks=(data, weight), reuse=reuse)


@lru_cache(maxsize=256)
def _addition(rows: int, columns: int) -> Program:
    return addition_program(rows, columns)


def _moved(program: Program, offsets: Mapping[str, int], roles: Mapping[str, str] = {}) -> Program:
    """The program with its relocations at these offsets, roles renamed: equal tiles share their words."""
    return replace(
        program,
        relocations=tuple(
            replace(r, role=roles.get(r.role, r.role), offset=offsets[r.role]) for r in program.relocations
        ),
    )


def _within(spans: tuple[Span, ...], whole: Span) -> Iterator[Span]:
    return (span for span in spans if whole.start <= span.start < whole.stop)
