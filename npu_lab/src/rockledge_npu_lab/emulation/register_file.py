"""The registers of one core while it runs: two groups that take turns, and who wrote what.

Values persist from program to program and from kick to kick, separately in the two groups of each block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge_npu_lab.emulation.faults import RULES, Flag, Place, StreamError
from rockledge_npu_lab.emulation.memory import AccessError, Memory, Window
from rockledge_npu_lab.emulation.options import Groups, Options, Stale

# What a register holds before anything wrote it; the others read 0.
RESET_VALUES: Final = {"CORE_MAC_GATING": 0x07800800}
# The kernel writes this to the pointers of CNA and CORE with every kick: both ping-pongs on.
KERNEL_POINTER: Final = 0xE
_POINTER_PING_PONG: Final = 1 << 1
_EXECUTER_PING_PONG: Final = 1 << 2
_POINTER_CLEAR: Final = 1 << 4
_EXECUTER_CLEAR: Final = 1 << 5
_EXECUTER: Final = 1 << 16


@dataclass
class _Written:
    value: int
    kick: int
    place: Place


@dataclass
class _PingPong:
    """Which group of a block takes writes, which one executes, and whether they alternate."""

    pointer: int = 0
    executer: int = 0
    pointer_alternates: bool = False
    executer_alternates: bool = False

    def set(self, value: int) -> None:
        """A write of S_POINTER. With ping-pong on, the turn is kept unless a clear bit is set [I]."""
        self.pointer_alternates = bool(value & _POINTER_PING_PONG)
        self.executer_alternates = bool(value & _EXECUTER_PING_PONG)
        if value & _POINTER_CLEAR or not self.pointer_alternates:
            self.pointer = 0 if value & _POINTER_CLEAR else value & 1
        if value & _EXECUTER_CLEAR or not self.executer_alternates:
            self.executer = 0 if value & _EXECUTER_CLEAR else int(bool(value & _EXECUTER))

    def advance(self) -> None:
        self.pointer ^= self.pointer_alternates
        self.executer ^= self.executer_alternates


@dataclass
class RegisterFile:
    """All blocks' registers of one core."""

    options: Options
    kick: int = 0
    _values: dict[tuple[str, int], dict[str, _Written]] = field(default_factory=dict)
    _ping_pongs: dict[str, _PingPong] = field(default_factory=dict)

    def begin_kick(self) -> None:
        """What the kernel does before it starts the PC: the pointers of CNA and CORE."""
        self.kick += 1
        for block in ("CNA", "CORE"):
            self._ping_pong(block).set(KERNEL_POINTER)

    def begin_program(self) -> None:
        """A new program: registers stay as they are, unless the option says they do not."""
        if self.options.stale is Stale.RESET:
            self._values.clear()

    def write(self, register: isa.Register, value: int, place: Place) -> None:
        """A command word's write into the group that takes writes."""
        block = register.block.name
        if register.name == f"{block}_S_POINTER":
            self._ping_pong(block).set(value)
            return
        group = self._group(self._ping_pong(block).pointer)
        self._values.setdefault((block, group), {})[register.name] = _Written(value, self.kick, place)

    def advance(self, enable: int) -> None:
        """After a program: the groups of the blocks that ran take turns."""
        for block in isa.BLOCKS:
            if block.runs(enable):
                self._ping_pong(block.name).advance()

    def find(self, register: str) -> _Written | None:
        """What the executing group of its block holds; None when nothing wrote it."""
        block = isa.REGISTERS[register].block.name
        group = self._group(self._ping_pong(block).executer)
        return self._values.get((block, group), {}).get(register)

    def _ping_pong(self, block: str) -> _PingPong:
        return self._ping_pongs.setdefault(block, _PingPong())

    def _group(self, number: int) -> int:
        return number if self.options.groups is Groups.TWO else 0


class Snapshot:
    """The registers as one program's execution sees them, with the means to refuse or flag them.

    `enable` is the program's bitmap; flags are appended to `flags`.
    """

    def __init__(self, registers: RegisterFile, program: int, enable: Place, bitmap: int) -> None:
        self.program = program
        self.enable_place = enable
        self.enable = bitmap
        self.options = registers.options
        self.flags: list[Flag] = []
        self._registers = registers
        self._unwritten: set[str] = set()

    def value(self, register: str) -> int:
        """The 32-bit value; what was never written reads as after a reset."""
        written = self._registers.find(register)
        if written is not None:
            return written.value
        if self.options.report_unwritten and register not in self._unwritten:
            self._unwritten.add(register)
            self.flag("unwritten", register, "it is read, but nothing ever wrote it")
        return RESET_VALUES.get(register, 0)

    def signed(self, register: str) -> int:
        """The value as a signed 32-bit number."""
        return signed(self.value(register), 32)

    def fields(self, register: str) -> dict[str, int]:
        """All fields of a register."""
        return isa.decode(isa.REGISTERS[register], self.value(register))

    def field(self, register: str, name: str) -> int:
        """One field of a register."""
        return self.fields(register)[name]

    def place(self, register: str | None) -> Place:
        """Where this kick wrote the register; the enable word when no register is meant."""
        if register is None:
            return self.enable_place
        written = self._registers.find(register)
        if written is None or written.kick != self._registers.kick:
            return Place(self.program, None, register)
        return written.place

    def read(self, memory: Memory, register: str, wanted: Window) -> NDArray[Any]:
        """Reads what the register points at; memory that was not given is refused with its word."""
        try:
            return memory.read(wanted)
        except AccessError as fault:
            raise self.refuse("memory", register, str(fault)) from None

    def refuse(self, rule: str, register: str | None, text: str) -> StreamError:
        """The error that names the word and the rule it breaks; to be raised."""
        return StreamError(rule, self.place(register), text)

    def flag(self, rule: str, register: str | None, text: str) -> None:
        """Notes something suspicious and continues."""
        self.flags.append(Flag(RULES[rule], self.place(register), text))


def signed(value: int, bits: int) -> int:
    """Two's complement of the low `bits`."""
    half = 1 << (bits - 1)
    return (value & (half - 1)) - (value & half)
