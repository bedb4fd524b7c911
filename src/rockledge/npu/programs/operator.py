"""Operators of several programs in one submit: steps over fp16 tensors, as a chain, or computed in NumPy.

A step combines two tensors, looks one up in a table, or multiplies one by constant weights. `Builder` gives
every tensor its place; what it finishes is an `Operator`: the chain, what its buffers hold, and the twin,
which gives the same bits on the CPU.

| buffer | holds |
| --- | --- |
| input | the inputs, in the native layout |
| weight | constant weights of products |
| scratch | every tensor between the inputs and the output |
| output | the output |

Rows are padded to a multiple of 4, at least 12 (`float_product.LEAST_ROWS`), and columns as the operator
says, both with the input's `fill`. What padding computes is dropped. Sources of the arithmetic:
`arithmetic.py`, `lut.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.arithmetic import combined, exponents, products, staged, stored, stored_bits
from rockledge.npu.layout import NATIVE, pack_cube, pack_kernels, padded, unpack_cube
from rockledge.npu.lut import Table, look_up
from rockledge.npu.programs.elementwise import (
    HALF_BYTES,
    LARGEST_BLOCK,
    PIXEL,
    Combine,
    ExponentBits,
    FirstStage,
    pair_program,
    table_program,
)
from rockledge.npu.programs.float_product import LEAST_ROWS, float_product_program
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH, WEIGHT
from rockledge.npu.programs.tiling import TASKS_IN_KICK
from rockledge.npu.stream import Address, Program, chain

Halves = NDArray[np.float16]
Check = Callable[[Mapping[str, Halves]], None]

# fp16 with all bits set, a NaN that no stage makes of numbers: what results hold before a job.
UNTOUCHED: Final = 0xFF


@dataclass(frozen=True)
class Tensor:
    """fp16 [rows, columns] in the native layout at byte `offset` of the buffer `role`.

    `name` is that of the whole tensor, of which this is the part from column `first` on.
    """

    name: str
    role: str
    offset: int
    rows: int
    columns: int
    first: int = 0

    @property
    def address(self) -> Address:
        return Address(self.role, self.offset)

    @property
    def elements(self) -> int:
        return self.rows * self.columns

    def part(self, first: int, columns: int) -> Tensor:
        """Columns `first` to `first` + `columns`, both multiples of 8: contiguous in memory."""
        if first % PIXEL or columns % PIXEL or not 0 <= first <= first + columns <= self.columns:
            raise NpuError(
                f"columns {first} to {first + columns} of {self.columns} are taken, expected multiples of "
                f"{PIXEL}"
            )
        offset = self.offset + first * self.rows * HALF_BYTES
        return replace(self, offset=offset, columns=columns, first=self.first + first)


@dataclass(frozen=True)
class Pair:
    """`to` = first(`main`) combined with `operand`, by the DPU alone."""

    combine: Combine
    main: Tensor
    operand: Tensor
    to: Tensor
    first: FirstStage | None


@dataclass(frozen=True)
class LookUp:
    """`to` = `table`(`main`), by the DPU alone."""

    table: Table
    main: Tensor
    to: Tensor


@dataclass(frozen=True)
class Product:
    """`to` = first(`main` x `weights` [columns, inputs] transposed), then combined with a tensor.

    With `bits` that makes the bits of exponentials in place of `first`, which are combined as numbers.
    """

    main: Tensor
    weights: Halves
    place: Address
    to: Tensor
    first: FirstStage | None
    fused: tuple[Combine, Tensor] | None
    bits: ExponentBits | None = None


Step = Pair | LookUp | Product


class Runnable(Protocol):
    """What a device or the emulator runs: a chain for one core, and what its buffers hold before and after.

    `packed` gives the input buffer for arrays by name, `taken` the output of what a job left in the buffers
    `output` and `scratch`, which were filled with `UNTOUCHED`.
    """

    @property
    def program(self) -> Program: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def weights(self) -> NDArray[np.uint8]: ...
    def packed(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]: ...
    def taken(self, written: Mapping[str, NDArray[np.uint8]]) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Operator:
    """A chain of programs for one core over four buffers, and what goes in and comes out.

    `inputs` are the padded tensors by name, `widths` their columns without padding; `rows` and `columns` the
    output without padding. `sizes` in bytes by role; `weights` is what the weight buffer holds. `checks`
    refuse inputs that the operator is not made for.
    """

    name: str
    rows: int
    columns: int
    steps: tuple[Step, ...]
    program: Program
    inputs: Mapping[str, Tensor]
    widths: Mapping[str, int]
    fills: Mapping[str, float]
    output: Tensor
    sizes: Mapping[str, int]
    weights: NDArray[np.uint8]
    checks: tuple[Check, ...]

    def packed(self, arrays: Mapping[str, Halves]) -> NDArray[np.uint8]:
        """The input buffer. Raises NpuError for a missing input, another shape or type, and by the checks."""
        data = np.zeros(self.sizes[INPUT], np.uint8)
        for name, tensor in self.inputs.items():
            flat = pack_cube(self._padded(name, arrays), PIXEL)
            data[tensor.offset : tensor.offset + flat.nbytes] = flat.view(np.uint8)
        self._check(arrays)
        return data

    def taken(self, written: Mapping[str, NDArray[np.uint8]]) -> Halves:
        """The output fp16 [rows, columns] of what a job left in the buffers `output` and `scratch`.

        Both were filled with `UNTOUCHED` before. Raises NpuError when an element of any step's result is
        still untouched, so that its program cannot have run: success alone is not believed.
        """
        for step in self.steps:
            to = step.to
            found = written[to.role][to.offset : to.offset + to.elements * HALF_BYTES].view(np.uint16)
            if (found == UNTOUCHED * 0x101).any():
                raise NpuError(
                    f"a program of {self.name} left its results untouched although the job was reported "
                    "done; "
                    "repeat it after a reset, or compute it on the CPU"
                )
        flat = written[OUTPUT][self.output.offset :].view(np.float16)
        tensor = self.output
        return unpack_cube(flat, tensor.rows, tensor.columns, PIXEL)[: self.rows, : self.columns]

    def twin(self, arrays: Mapping[str, Halves]) -> Halves:
        """The same output to the bit, computed here. Raises NpuError as `packed`."""
        values = {name: self._padded(name, arrays) for name in self.inputs}
        self._check(arrays)
        for step in self.steps:
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                values[step.to.name] = _computed(step, values)
        return values[self.output.name][: self.rows, : self.columns]

    def _padded(self, name: str, arrays: Mapping[str, Halves]) -> Halves:
        tensor = self.inputs[name]
        if name not in arrays:
            raise NpuError(f"{self.name} takes {', '.join(self.inputs)}, but {name} is missing")
        x = arrays[name]
        # Padding that an input fills itself, or leaves to the fill, would count as what was given.
        expected = (self.rows, self.widths[name])
        if x.dtype != np.float16 or x.shape != expected:
            raise NpuError(
                f"{name} of {self.name} is {x.dtype} {list(x.shape)}, expected float16 {list(expected)}"
            )
        wide = np.full((tensor.rows, tensor.columns), self.fills.get(name, 0.0), np.float16)
        wide[: x.shape[0], : x.shape[1]] = x
        return wide

    def _check(self, arrays: Mapping[str, Halves]) -> None:
        for check in self.checks:
            check(arrays)


@dataclass
class Builder:
    """Collects the steps of one operator of `rows` rows; its methods return the tensor that they make."""

    name: str
    rows: int
    _steps: list[Step] = field(default_factory=list)
    _inputs: dict[str, Tensor] = field(default_factory=dict)
    _widths: dict[str, int] = field(default_factory=dict)
    _fills: dict[str, float] = field(default_factory=dict)
    _weights: list[NDArray[np.uint8]] = field(default_factory=list)
    _ends: dict[str, int] = field(default_factory=dict)
    _checks: list[Check] = field(default_factory=list)

    @property
    def padded_rows(self) -> int:
        """Rows of every tensor."""
        return max(LEAST_ROWS, padded(self.rows, 4))

    def input(self, name: str, columns: int, unit: int, fill: float = 0.0) -> Tensor:
        """An input of `columns` columns, padded to a multiple of `unit`; padding, in rows and columns, is
        `fill`. Raises NpuError where it has no element."""
        if self.rows < 1 or columns < 1:
            raise NpuError(f"{self.name} has {self.rows} rows and {columns} columns, expected at least 1")
        self._inputs[name] = self._tensor(name, INPUT, padded(columns, unit))
        self._widths[name] = columns
        self._fills[name] = fill
        return self._inputs[name]

    def check(self, check: Check) -> None:
        """Has inputs looked at before every run."""
        self._checks.append(check)

    def pair(
        self, combine: Combine, main: Tensor, operand: Tensor, first: FirstStage | None = None
    ) -> Tensor:
        """`first(main)` combined with `operand`, of equal shape."""
        if main.columns != operand.columns:
            raise NpuError(f"{main.columns} and {operand.columns} columns are combined, expected equal ones")
        to = self._scratch(main.columns)
        self._steps.append(Pair(combine, main, operand, to, first))
        return to

    def look_up(self, table: Table, main: Tensor) -> Tensor:
        """`table(main)`."""
        to = self._scratch(main.columns)
        self._steps.append(LookUp(table, main, to))
        return to

    def product(
        self,
        main: Tensor,
        weights: Halves,
        first: FirstStage | None = None,
        fused: tuple[Combine, Tensor] | None = None,
        bits: ExponentBits | None = None,
    ) -> Tensor:
        """`first(main x weights transposed)`, combined with a tensor; `weights` [columns, inputs].

        `bits` takes the place of `first`.
        """
        to = self._scratch(len(weights))
        packed = pack_kernels(weights, NATIVE["fp16"]).view(np.uint8)
        place = Address(WEIGHT, sum(w.size for w in self._weights))
        self._weights.append(packed)
        self._steps.append(Product(main, weights, place, to, first, fused, bits))
        return to

    def finish(self, result: Tensor, columns: int) -> Operator:
        """The operator whose output is `result`, without the columns beyond `columns`.

        The result of the last step is moved into the output buffer. Raises NpuError for anything but the
        last.
        """
        if not self._steps or self._steps[-1].to != result:
            raise NpuError(f"{self.name} has a result that is not its last step's; make it the last")
        output = replace(result, role=OUTPUT, offset=0)
        steps = (*self._steps[:-1], replace(self._steps[-1], to=output))
        programs = [program for step in steps for program in programs_of(step)]
        if len(programs) > TASKS_IN_KICK:
            raise NpuError(
                f"{self.name} takes {len(programs)} programs, expected at most {TASKS_IN_KICK}; split it"
            )
        weights = np.concatenate([np.zeros(0, np.uint8), *self._weights])
        sizes = {
            INPUT: self._ends.get(INPUT, 0),
            WEIGHT: weights.size,
            SCRATCH: result.offset,
            OUTPUT: result.elements * HALF_BYTES,
        }
        return Operator(
            name=self.name,
            rows=self.rows,
            columns=columns,
            steps=steps,
            program=chain(programs),
            inputs=dict(self._inputs),
            widths=dict(self._widths),
            fills=dict(self._fills),
            output=output,
            sizes=sizes,
            weights=weights,
            checks=tuple(self._checks),
        )

    def _scratch(self, columns: int) -> Tensor:
        return self._tensor(f"scratch {len(self._steps)}", SCRATCH, columns)

    def _tensor(self, name: str, role: str, columns: int) -> Tensor:
        offset = self._ends.get(role, 0)
        tensor = Tensor(name, role, offset, self.padded_rows, columns)
        self._ends[role] = offset + tensor.elements * HALF_BYTES
        return tensor


def programs_of(step: Step) -> Iterator[Program]:
    """The programs of a step: one, or as many as blocks of 32,768 elements where the DPU works alone."""
    if isinstance(step, Product):
        fused = None if step.fused is None else (step.fused[0], step.fused[1].address)
        yield float_product_program(
            step.main.rows,
            step.main.columns,
            step.to.columns,
            step.main.address,
            step.place,
            step.to.address,
            first=step.first,
            fused=fused,
            bits=step.bits,
        )
        return
    for first in range(0, step.to.elements, LARGEST_BLOCK):
        elements = min(LARGEST_BLOCK, step.to.elements - first)
        main, to = (_moved(tensor, first) for tensor in (step.main, step.to))
        if isinstance(step, LookUp):
            yield table_program(step.table, elements, main, to)
        else:
            yield pair_program(step.combine, elements, main, _moved(step.operand, first), to, step.first)


def _moved(tensor: Tensor, elements: int) -> Address:
    return Address(tensor.role, tensor.offset + elements * HALF_BYTES)


def _computed(step: Step, values: Mapping[str, Halves]) -> Halves:
    """What a step makes, fp16 [rows, columns]."""
    main = _of(step.main, values)
    if isinstance(step, LookUp):
        return look_up(step.table, main.astype(np.float32)).astype(np.float16)
    if isinstance(step, Pair):
        x = staged(main.astype(np.float32), step.first)
        return stored(combined(step.combine, x, _of(step.operand, values)))
    sums = products(main, step.weights)
    sums = staged(sums, step.first) if step.bits is None else exponents(sums, step.bits)
    if step.fused is not None:
        sums = combined(step.fused[0], sums, _of(step.fused[1], values))
    return stored(sums) if step.bits is None else stored_bits(sums)


def _of(tensor: Tensor, values: Mapping[str, Halves]) -> Halves:
    return values[tensor.name][:, tensor.first : tensor.first + tensor.columns]
