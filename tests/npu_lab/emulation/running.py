"""Runs programs of tests on the emulator: operands of any type placed, results taken back."""

from dataclasses import dataclass, field

import numpy as np
from tests.npu_lab import sheet

from rockledge.npu.stream import Program
from rockledge_npu_lab.emulation.core import Completion, Core
from rockledge_npu_lab.emulation.memory import Buffer, Memory
from rockledge_npu_lab.emulation.options import DEFAULT, Options

STORED = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "fp16": np.float16,
    "fp32": np.float32,
    "tf32": np.float32,
}
ADDRESSES = {
    "program": 0x00100000,
    "input": 0x01000000,
    "weight": 0x02000000,
    "output": 0x03000000,
    "operand": 0x04000000,
}


def stored(values: np.ndarray, kind: str, places: np.ndarray, size: int | None = None) -> np.ndarray:
    """Bytes of a buffer of `size` elements with `values` at `places`, zeros elsewhere."""
    size = int(places.max()) + 1 if size is None else size
    if kind == "int4":
        nibbles = np.zeros(size, np.uint8)
        nibbles[places] = values.astype(np.int8) & 15
        return nibbles[0::2] | nibbles[1::2] << 4
    if kind == "bf16":
        flat = np.zeros(size, np.uint16)
        flat[places] = values.astype(np.float32).view(np.uint32) >> 16
    else:
        flat = np.zeros(size, STORED[kind])
        flat[places] = values
    return flat.view(np.uint8)


def taken(data: np.ndarray, kind: str, places: np.ndarray) -> np.ndarray:
    """The elements at `places`, as float64 (integers: int64)."""
    if kind == "bf16":
        return (data.view(np.uint16)[places].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    found = data.view(STORED[kind])[places]
    return found.astype(np.int64 if kind.startswith("int") else np.float64)


def operands(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Random numbers that the type holds exactly, as float64."""
    random = np.random.default_rng(seed)
    if kind in ("int8", "int4"):
        half = 128 if kind == "int8" else 8
        return random.integers(-half, half, shape).astype(np.float64)
    values = random.standard_normal(shape, np.float32)
    keep = {"fp16": None, "bf16": 0xFFFF0000, "tf32": 0xFFFFE000}[kind]
    if keep is None:
        return values.astype(np.float16).astype(np.float64)
    return (values.view(np.uint32) & np.uint32(keep)).view(np.float32).astype(np.float64)


@dataclass
class Bench:
    """Buffers at addresses, and one core over them; `buffers` are bytes by role."""

    buffers: dict[str, np.ndarray]
    addresses: dict[str, int] = field(default_factory=lambda: dict(ADDRESSES))
    options: Options = DEFAULT
    core: Core | None = None

    def kick(self, program: Program, int_mask: int = 0x300) -> Completion:
        """Places the program and runs it; registers persist from kick to kick."""
        words = program.at(self.addresses)
        placed = [Buffer(role, self.addresses[role], data) for role, data in self.buffers.items()]
        code = np.append(words, np.zeros(len(words) % 2, np.uint64)).view(np.uint8)
        memory = Memory([*placed, Buffer("program", self.addresses["program"], code)])
        if self.core is None:
            self.core = Core(memory, self.options)
        self.core.memory = memory
        bodies = program.body_words
        return self.core.kick(self.addresses["program"], bodies[0], len(bodies), int_mask)


def bench_for(shape: sheet.Shape, a: np.ndarray, b: np.ndarray, options: Options = DEFAULT) -> Bench:
    """Buffers of exactly the size a shape needs; the output is filled with 0xA5."""
    places = sheet.output_places(shape)
    size = (int(places.max()) + 1) * sheet.OUTPUTS[shape.kind_out][1]
    return Bench(
        {
            "input": stored(a, shape.kind, sheet.input_places(shape)),
            "weight": stored(b, shape.kind, sheet.weight_places(shape)),
            "output": np.full(size, 0xA5, np.uint8),
        },
        options=options,
    )
