"""Where a program's last results lie: one int32 for each program of a chain, to see whether it ran at all.

A job that reports success may not have run, or not all of its programs. The caller stores a value
there that no sum can be, and finds it again if nothing was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rockledge.errors import NpuError
from rockledge.npu import isa
from rockledge.npu.stream import Program, parse

_SUM_BYTES = 4
_EXTENTS = (
    ("DPU_DATA_CUBE_WIDTH", "width_minus_1"),
    ("DPU_DATA_CUBE_HEIGHT", "height_minus_1"),
    ("DPU_DATA_CUBE_CHANNEL", "channels_minus_1"),
)


@dataclass(frozen=True)
class Mark:
    """An int32 at byte `offset` of the buffer `role`."""

    role: str
    offset: int


def marks(program: Program) -> tuple[Mark, ...]:
    """The last int32 that each program of a chain writes, except those that a later program overwrites.

    Programs of a matmul whose parts the host adds all have one, which proves that they ran. In a chain that
    adds on the NPU most have none, and the last addition shares its mark with the product it adds to.
    Raises NpuError for a program that writes anything but int32 to a relocated address.
    """
    kept: list[Mark] = []
    for role, first, size in _destinations(program):
        kept = [m for m in kept if m.role != role or not first <= m.offset < first + size]
        kept.append(Mark(role, first + size - _SUM_BYTES))
    return tuple(kept)


def _destinations(program: Program) -> Iterator[tuple[str, int, int]]:
    """(role, offset, bytes) of what each program writes."""
    roles = {relocation.word: relocation for relocation in program.relocations}
    destination = isa.register_named("DPU_DST_BASE_ADDR")
    for piece in parse(program.words):
        values: dict[str, int] = {}
        where = None
        for index, command in enumerate(piece.body):
            target, value, offset = isa.split(command)
            register = isa.register_of(target, offset)
            if register is None:
                continue
            values[register.name] = value
            if register is destination:
                where = roles.get(piece.start + index)
        if where is None:
            raise NpuError(
                f"the program at word {piece.start} writes to a fixed address, expected a buffer with a role"
            )
        kind = isa.decode("DPU_DATA_FORMAT", values.get("DPU_DATA_FORMAT", 0))["out_precision"]
        if isa.DPU_PRECISION[kind].name != "int32":
            raise NpuError(
                f"the program at word {piece.start} writes {isa.DPU_PRECISION[kind].name}, expected int32"
            )
        size = _SUM_BYTES
        for name, extent in _EXTENTS:
            size *= isa.decode(name, values.get(name, 0))[extent] + 1
        yield where.role, where.offset, size
