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
from rockledge.npu.programs.tile_program import (
    INPUT,
    OUTPUT,
    SCRATCH,
    SUM_BYTES,
    WEIGHT,
    addition_program,
    product_program,
)
from rockledge.npu.programs.tiling import TASKS_IN_KICK, Addition, Kick, Reuse, Span, Sums, Task, Tiling
from rockledge.npu.stream import ADDRESS_LIMIT, Program, chain

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

LARGEST_INPUTS: Final = ((1 << 31) - 1) // (128 * 128)  # a sum of more int8 products can overflow int32


@dataclass(frozen=True)
class Region:
    """A contiguous run of a buffer that holds one matrix in its native layout.

    A region of input is A[rows, inputs], one of weight B[columns, inputs], one of output or scratch C[rows,
    columns], the sums over `inputs`. `offset` and `size` in bytes.
    """

    role: str
    offset: int
    size: int
    rows: Span
    columns: Span
    inputs: Span


@dataclass(frozen=True)
class Launch:
    """One kick, ready to be placed: `chains` has one program chain for each core, None for an idle one.

    `regions` say what lies where in the buffers. A chain also needs the address of "program": where its own
    words lie, a multiple of 16.
    """

    rows: Span
    columns: Span
    chains: tuple[Program | None, ...]
    regions: tuple[Region, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the buffers it needs, by role: input, weight, output and scratch."""
        sizes = dict.fromkeys((INPUT, WEIGHT, OUTPUT, SCRATCH), 0)
        for region in self.regions:
            sizes[region.role] += region.size
        return sizes

    def of(self, role: str) -> Iterator[Region]:
        """The regions of one buffer, in the order of their offsets."""
        return (region for region in self.regions if region.role == role)


@dataclass(frozen=True)
class Matmul:
    """A matmul of int8 [m, k] with int8 [n, k] as launches that can run in any order."""

    tiling: Tiling
    launches: tuple[Launch, ...]

    def input_bytes(self, launch: Launch, a: Int8) -> Int8:
        """The input buffer of a launch for A int8 [m, k]."""
        self._check("A", a, self.tiling.m, self.tiling.k)
        tiles = [
            pack_cube(
                pad(_part(a, region.rows, region.inputs), region.rows.size, region.inputs.size), INT8.atom
            )
            for region in launch.of(INPUT)
        ]
        return np.concatenate(tiles)

    def weight_bytes(self, launch: Launch, b: Int8) -> Int8:
        """The weight buffer of a launch for B int8 [n, k], rows being output channels."""
        self._check("B", b, self.tiling.n, self.tiling.k)
        parts = [
            pack_kernels(
                pad(_part(b, region.columns, region.inputs), region.columns.size, region.inputs.size), INT8
            )
            for region in launch.of(WEIGHT)
        ]
        return np.concatenate(parts)

    def sums(self, launch: Launch, output: Int32) -> Int32:
        """C int32 [launch.rows.size, launch.columns.size] of a launch's output buffer; parts are added here
        when the tiling leaves that to the host.
        """
        total = np.zeros((launch.rows.size, launch.columns.size), np.int32)
        for region in launch.of(OUTPUT):
            rows, columns = region.rows, region.columns
            flat = output[region.offset // SUM_BYTES :]
            first = rows.start - launch.rows.start
            total[first : first + rows.size] += unpack_cube(flat, rows.size, columns.size, SUMS_IN_ATOM)
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
            raise NpuError(f"{name} is {x.dtype} {list(x.shape)}, expected int8 {[rows, cols]}")


def compile_matmul(tiling: Tiling) -> Matmul:
    """The programs of a tiling. Raises NpuError naming the limit where the hardware cannot do it."""
    if tiling.padded_inputs > LARGEST_INPUTS:
        raise NpuError(
            f"a matmul has {tiling.k} inputs, expected at most {LARGEST_INPUTS} "
            "(a sum of more can overflow int32); split the inputs"
        )
    return Matmul(tiling, tuple(_launch(tiling, kick) for kick in tiling.kicks))


def _launch(tiling: Tiling, kick: Kick) -> Launch:
    regions = tuple(_regions(tiling, kick))
    chains = []
    for tasks in kick.cores:
        if len(tasks) > TASKS_IN_KICK:
            raise NpuError(
                f"a kick has {len(tasks)} programs for a core, expected at most {TASKS_IN_KICK}; split it"
            )
        programs = [_program(task, regions, tiling.sums) for task in tasks]
        chains.append(chain(programs) if programs else None)
    launch = Launch(kick.rows, kick.columns, tuple(chains), regions)
    needed = sum(launch.sizes.values()) + sum(c.size_bytes for c in chains if c is not None)
    if needed > ADDRESS_LIMIT:
        raise NpuError(
            f"a launch needs {needed} bytes at once, expected at most {ADDRESS_LIMIT} (32-bit addresses); "
            "split it by rows or columns"
        )
    return launch


def _regions(tiling: Tiling, kick: Kick) -> Iterator[Region]:
    """What the buffers of a kick hold; the regions of a buffer follow each other."""
    tiles = [tile for tile in tiling.row_tiles if kick.rows.start <= tile.start < kick.rows.stop]
    columns, whole = kick.columns, Span(0, tiling.padded_inputs)
    summed = tiling.input_parts if tiling.sums is Sums.HOST else (whole,)
    matrices = [
        *((INPUT, tile, whole, tile.size * whole.size) for tile in tiles),
        *((WEIGHT, kick.rows, part, columns.size * part.size) for part in tiling.input_parts),
        *((OUTPUT, tile, part, tile.size * columns.size * SUM_BYTES) for part in summed for tile in tiles),
    ]
    if tiling.sums is Sums.CHAIN:
        matrices += [(SCRATCH, tile, whole, tile.size * columns.size * SUM_BYTES) for tile in tiles]
    ends: dict[str, int] = {}
    for role, rows, inputs, size in matrices:
        offset = ends.get(role, 0)
        ends[role] = offset + size
        yield Region(role, offset, size, rows, columns, inputs)


def _program(task: Task, regions: tuple[Region, ...], sums: Sums) -> Program:
    """The program of one task with its relocations at the task's place in the launch's buffers."""

    if task.rows not in (region.rows for region in regions if region.role == INPUT):
        raise NpuError(f"rows {task.rows.start} to {task.rows.stop} are not a row tile of the launch")

    def offset(role: str, inputs: Span | None = None) -> int:
        """Of the task's first sum: in the region of its rows that sums over these inputs, or over all."""
        region = next(
            r for r in regions if r.role == role and r.rows == task.rows and inputs in (None, r.inputs)
        )
        return region.offset + (task.columns.start - region.columns.start) * task.rows.size * SUM_BYTES

    if isinstance(task, Addition):
        program = _addition(task.rows.size, task.columns.size)
        return _moved(program, {OUTPUT: offset(OUTPUT), SCRATCH: offset(SCRATCH)})
    to = SCRATCH if sums is Sums.CHAIN and task.part else OUTPUT
    a = next(r for r in regions if r.role == INPUT and r.rows == task.rows)
    b = next(r for r in regions if r.role == WEIGHT and r.inputs == task.inputs)
    offsets = {
        INPUT: a.offset + task.inputs.start * task.rows.size,
        WEIGHT: b.offset + (task.columns.start - b.columns.start) * task.inputs.size,
        OUTPUT: offset(to, task.inputs if sums is Sums.HOST else None),
    }
    program = _product(
        task.rows.size, task.inputs.size, task.columns.size, task.data_banks, task.weight_banks, task.reuse
    )
    return _moved(program, offsets, {OUTPUT: to})


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


def _part(x: Int8, rows: Span, cols: Span) -> Int8:
    return x[rows.start : rows.stop, cols.start : cols.stop]
