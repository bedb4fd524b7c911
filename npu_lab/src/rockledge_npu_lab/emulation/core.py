"""A core of the NPU as a function of its command words and the memory they point at.

`Core.kick` does what the kernel's kick starts: the PC fetches words, writes registers, starts the blocks at
every enable word and follows the links. It gets no shape, type or address in any other way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rockledge.npu import isa
from rockledge.npu.stream import PROGRAM_ALIGNMENT, TRAILER_WORDS, Program, pairs
from rockledge_npu_lab.emulation import dpu, output
from rockledge_npu_lab.emulation.conv_operands import Buffer
from rockledge_npu_lab.emulation.conv_setup import Convolution, read_setup
from rockledge_npu_lab.emulation.convolution import convolve
from rockledge_npu_lab.emulation.faults import RULES, Flag, Place, StreamError
from rockledge_npu_lab.emulation.lut import Tables
from rockledge_npu_lab.emulation.memory import AccessError, Memory, window
from rockledge_npu_lab.emulation.options import DEFAULT, EarlyEnd, Options
from rockledge_npu_lab.emulation.register_file import RegisterFile, Snapshot

TASK_LIMIT: Final = 4095
BODY_LIMIT: Final = 2 * isa.REGISTERS["PC_REGISTER_AMOUNTS"].fields[0].limit - TRAILER_WORDS
_PAGE_2000: Final = (0x0401, range(0x2000, 0x3000))
_PC: Final = isa.BLOCK_BY_NAME["PC"].target
_LINK: Final = isa.REGISTERS["PC_BASE_ADDRESS"].offset
_AMOUNT: Final = isa.REGISTERS["PC_REGISTER_AMOUNTS"].offset
_JOB_ENABLE: Final = 1 << 24
_KERNEL_POINTERS: Final = ("CNA_S_POINTER", "CORE_S_POINTER")
# Interrupt bits of blocks that are done before the output is written: CNA, CSC, CORE.
_EARLY_INTERRUPTS: Final = 0x0FF
_WIDE: Final = 8192


@dataclass(frozen=True)
class Completion:
    """What a kick ended with.

    `programs` were run, `macs` products computed; `interrupt` is what the hardware raises. `early` means that
    the interrupt came before the last output was written, `lost` that success is reported, but nothing ran.
    """

    programs: int
    macs: int
    interrupt: int
    flags: tuple[Flag, ...]
    early: bool = False
    lost: bool = False


@dataclass
class _Kick:
    """What one kick remembers from program to program."""

    buffer: Buffer = field(default_factory=Buffer)
    flags: list[Flag] = field(default_factory=list)
    macs: int = 0
    products: int = 0


@dataclass(frozen=True)
class _Fetched:
    """A program's words up to its enable word, checked, and where they begin."""

    number: int
    address: int
    body: tuple[int, ...]
    next_address: int | None
    next_pairs: int
    enable: int

    @property
    def enable_place(self) -> Place:
        return Place(self.number, len(self.body) + TRAILER_WORDS - 1)


class Core:
    """One core: its registers and tables, which outlive kicks, over the memory of its address space."""

    def __init__(self, memory: Memory, options: Options = DEFAULT, index: int = 0) -> None:
        self.memory = memory
        self.options = options
        self.index = index
        self._random = np.random.default_rng((options.seed, index))
        self.reset()

    def reset(self) -> None:
        """A soft reset: registers and tables forget; by option the next kick is lost."""
        self._registers = RegisterFile(self.options)
        self._tables = Tables()
        self._lose_next = self.options.first_job_lost
        # The last product of an earlier kick, and the last program at all: some pairs hang.
        self._product_before = False
        self._wide_fp16 = False

    def run(self, program: Program, addresses: dict[str, int]) -> Completion:
        """Kicks a program that already lies in memory at `addresses["program"]`."""
        bodies = program.body_words
        return self.kick(addresses["program"], bodies[0], tasks=len(bodies))

    def kick(self, address: int, body_words: int, tasks: int = 1, int_mask: int = isa.INT_DPU) -> Completion:
        """Runs `tasks` programs, the first at `address` with `body_words` before its trailer.

        `int_mask` is the interrupt that the driver waits for. Raises StreamError for the first word that the
        hardware would hang on or refuse; what ran before it has been written.
        """
        if not 1 <= tasks <= min(TASK_LIMIT, self.options.max_programs):
            limit = min(TASK_LIMIT, self.options.max_programs)
            raise StreamError("too-long", Place(0), f"{tasks} programs in a kick, expected 1 to {limit}")
        if not 0 <= body_words <= BODY_LIMIT:
            raise StreamError(
                "too-long", Place(0), f"a body of {body_words} words, expected 0 to {BODY_LIMIT}"
            )
        if self._lose_next or self._random.random() < self.options.lost_job_rate:
            self._lose_next = False
            return Completion(0, 0, int_mask, (), lost=True)
        self._registers.begin_kick()
        kick = _Kick()
        seen: set[int] = set()
        amount, early = pairs(body_words + TRAILER_WORDS), False
        for number in range(tasks):
            if address in seen:
                raise StreamError("loop", Place(number), f"the program at {address:#x} ran already")
            seen.add(address)
            fetched = self._fetch(number, address, amount)
            last = number + 1 == tasks
            early = last and self._ends_early(fetched, int_mask)
            self._execute(fetched, kick, write=not early)
            if not last:
                if fetched.next_address is None:
                    raise StreamError(
                        "unlinked",
                        Place(number, len(fetched.body)),
                        f"no link to the next program, but {tasks} are to run",
                    )
                address, amount = fetched.next_address, fetched.next_pairs
        self._product_before = bool(kick.products)
        if early:
            place = Place(tasks - 1)
            kick.flags.append(
                Flag(RULES["interrupt-mask"], place, f"the mask {int_mask:#x} comes before the output")
            )
        return Completion(tasks, kick.macs, isa.INT_DPU, tuple(kick.flags), early)

    def _fetch(self, number: int, address: int, amount: int) -> _Fetched:
        """The program at `address`, of which the PC fetches `amount` + 1 pairs of words."""
        if address % PROGRAM_ALIGNMENT:
            raise StreamError(
                "alignment", Place(number), f"the program at {address:#x} does not start on a multiple of 16"
            )
        count = 2 * (amount + 1)
        try:
            words = self.memory.read(window(address, (count,), (isa.WORD_BYTES,), "<u8")).tolist()
        except AccessError as fault:
            raise StreamError("memory", Place(number), f"fetching {count} words: {fault}") from None
        enable = isa.ENABLE_TARGET << 48 | isa.ENABLE_OFFSET
        for index, command in enumerate(words):
            if command & 0xFFFF00000000FFFF == enable:
                return self._trailer(number, address, words[: index + 1])
        raise StreamError(
            "trailer", Place(number, count - 1), f"the {count} fetched words have no enable word"
        )

    def _trailer(self, number: int, address: int, words: list[int]) -> _Fetched:
        first = len(words) - TRAILER_WORDS
        if first < 0:
            raise StreamError("trailer", Place(number, 0), f"{len(words)} words, expected a trailer of four")
        link, amount, marker, enable = (isa.split(word) for word in words[first:])
        if marker[0] != isa.MARKER_TARGET:
            raise StreamError(
                "trailer", Place(number, first + 2), f"target {marker[0]:#06x}, expected the marker 0x0041"
            )
        if (amount[0], amount[2]) != (_PC, _AMOUNT):
            raise StreamError("trailer", Place(number, first + 1), "expected a write of PC_REGISTER_AMOUNTS")
        next_address = link[1] if (link[0], link[2]) == (_PC, _LINK) else None
        if next_address is None and link[0] not in isa.PADDING_TARGETS:
            raise StreamError(
                "trailer", Place(number, first), "expected the next program's address or padding"
            )
        if enable[1] == isa.ENABLE_POOL:
            raise StreamError("pooling", Place(number, first + 3), "the pooling unit is enabled")
        if enable[1] not in (isa.ENABLE_CONV, isa.ENABLE_CONV_RDMA, isa.ENABLE_FLYING):
            raise StreamError(
                "bitmap",
                Place(number, first + 3),
                f"the enable word starts {enable[1]:#x}, expected 0xd, 0x1d or 0x18",
            )
        next_pairs = isa.decode("PC_REGISTER_AMOUNTS", amount[1])["amount"]
        return _Fetched(number, address, tuple(words[:first]), next_address, next_pairs, enable[1])

    def _ends_early(self, fetched: _Fetched, int_mask: int) -> bool:
        """Whether the driver's mask is met by a block before the last, which is always the DPU."""
        if int_mask == isa.INT_DPU:
            return False
        if not int_mask & _EARLY_INTERRUPTS or self.options.early_end is EarlyEnd.REFUSE:
            raise StreamError(
                "interrupt-mask",
                fetched.enable_place,
                f"the driver waits for {int_mask:#x}, expected {isa.INT_DPU:#x}, which this program raises",
            )
        return True

    def _execute(self, fetched: _Fetched, kick: _Kick, write: bool) -> None:
        self._registers.begin_program()
        for index, command in enumerate(fetched.body):
            self._write(command, Place(fetched.number, index))
        registers = Snapshot(self._registers, fetched.number, fetched.enable_place, fetched.enable)
        kick.flags += self._start(registers, kick, write)
        self._registers.advance(fetched.enable)

    def _write(self, command: int, place: Place) -> None:
        """One word of a body."""
        target, value, offset = isa.split(command)
        if target in isa.PADDING_TARGETS:
            return
        if target == _PAGE_2000[0] or offset in _PAGE_2000[1]:
            raise StreamError("page-2000", place, f"a write to {offset:#x} by target {target:#06x}")
        block = isa.BLOCK_BY_TARGET.get(target)
        if block is None:
            raise StreamError("unknown-target", place, f"target {target:#06x}")
        if block.name == "PC":
            raise StreamError("trailer", place, f"a write to PC register {offset:#x} within the body")
        register = isa.register_of(target, offset)
        if register is None:
            raise StreamError("unknown-register", place, f"{block.name} has no register {offset:#x}")
        named = Place(place.program, place.word, register.name)
        if register.name in _KERNEL_POINTERS:
            raise StreamError("kernel-pointer", named, "a stream must leave it to the kernel")
        if register.name == "CORE_MAC_GATING" and not value & _JOB_ENABLE:
            raise StreamError("mac-gating", named, f"{value:#x} stops the job: leave the register unwritten")
        if register.name == "DPU_LUT_ACCESS_CFG":
            self._tables.access(value)
        elif register.name == "DPU_LUT_ACCESS_DATA":
            self._tables.store(value, named)
        self._registers.write(register, value, named)

    def _start(self, registers: Snapshot, kick: _Kick, write: bool) -> list[Flag]:
        """The blocks of an enable word."""
        setup = None
        if isa.BLOCK_BY_NAME["CNA"].runs(registers.enable):
            setup = read_setup(registers)
            kick.macs += setup.macs
            if kick.macs > self.options.max_macs:
                raise registers.refuse(
                    "too-long",
                    None,
                    f"{kick.macs} products in a kick, expected at most {self.options.max_macs}",
                )
        pipeline = dpu.read_pipeline(registers, self.memory, setup)
        self._hanging_pairs(registers, kick, setup)
        product = None
        if setup is not None:
            sums = pipeline.needs_input_sums
            product = convolve(setup, registers, self.memory, kick.buffer, sums)
            kick.products += 1
        results = dpu.run(pipeline, product, registers, self.memory, self._tables)
        if write:
            output.store(results, pipeline.destination, self.memory)
        return registers.flags

    def _hanging_pairs(self, registers: Snapshot, kick: _Kick, setup: Convolution | None) -> None:
        """Programs that run alone but hang after another."""
        code = registers.field("DPU_DATA_FORMAT", "in_precision")
        if setup is None:
            if code == isa.PRECISIONS["int8"].dpu and self._product_before and not kick.products:
                raise registers.refuse(
                    "int8-after-product", "DPU_DATA_FORMAT", "an int8 program without product opens a kick"
                )
            paired = not registers.field("DPU_EW_CFG", "bypass") and registers.field(
                "DPU_EW_CFG", "op_source"
            )
            if code == isa.PRECISIONS["int16"].dpu and kick.products and paired:
                raise registers.refuse("int16-pair", "DPU_DATA_FORMAT", "two int16 operands after a product")
            return
        if setup.kind.name == "int8":
            if self._wide_fp16:
                raise registers.refuse(
                    "wide-then-int8", "CNA_CONV_CON1", f"int8 after an fp16 product of {_WIDE} columns"
                )
            if registers.field("DPU_DATA_FORMAT", "out_precision") == isa.PRECISIONS["int16"].dpu:
                registers.flag("int16-output", "DPU_DATA_FORMAT", "int16 output of an int8 product")
        self._wide_fp16 = setup.kind.name == "fp16" and setup.kernels >= _WIDE
