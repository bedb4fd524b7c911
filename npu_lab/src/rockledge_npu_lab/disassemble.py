"""Command words as text, and text as command words: the two are inverses, word for word.

A line is a register and its fields, `CNA_DATA_SIZE0 width=1 height=64`; fields that are 0 are left out, and a
register that is 0 whole is followed by `0`. Codes print as names where the table has them
(`in_precision=fp16`). Bits that belong to no field print as `unnamed=`. The words that are not registers are
`enable` with its blocks, `marker`, `nop`, and `.word` with sixteen hexadecimal digits for whatever the table
does not know. From `;` on a line is a comment.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rockledge.errors import NpuError
from rockledge.npu.isa import (
    BLOCKS,
    CNA_PRECISION,
    CONV_MODES,
    DPU_PRECISION,
    ENABLE_OFFSET,
    ENABLE_TARGET,
    EW_ALU,
    EW_DATA_BITS,
    EW_DATA_MODES,
    MARKER_TARGET,
    STAGE_ALU,
    VALUE_LIMIT,
    Register,
    decode,
    encode,
    register_named,
    register_of,
    split,
    unnamed_bits,
    word,
    write,
)

COMMENT: Final = ";"
MARKER_WORD: Final = word(MARKER_TARGET, 0, 0)

_CNA = {code: precision.name for code, precision in CNA_PRECISION.items()}
_DPU = {code: precision.name for code, precision in DPU_PRECISION.items()}
_WIDTHS = {code: f"{bits}-bit" for code, bits in EW_DATA_BITS.items()}
_OPERATIONS = {0: "alu", 1: "mul"}

# Fields that hold a code, and what its values are called.
CODES: Final[dict[tuple[str, str], Mapping[int, str]]] = {
    ("CNA_CONV_CON1", "in_precision"): _CNA,
    ("CNA_CONV_CON1", "proc_precision"): _CNA,
    ("CNA_CONV_CON1", "conv_mode"): CONV_MODES,
    ("CORE_MISC_CFG", "proc_precision"): _CNA,
    ("DPU_FEATURE_MODE_CFG", "conv_mode"): CONV_MODES,
    ("DPU_DATA_FORMAT", "in_precision"): _DPU,
    ("DPU_DATA_FORMAT", "proc_precision"): _DPU,
    ("DPU_DATA_FORMAT", "out_precision"): _DPU,
    ("DPU_BS_CFG", "alu_algorithm"): STAGE_ALU,
    ("DPU_BN_CFG", "alu_algorithm"): STAGE_ALU,
    ("DPU_EW_CFG", "alu_algorithm"): EW_ALU,
    ("DPU_EW_CFG", "data_mode"): EW_DATA_MODES,
    ("DPU_EW_CFG", "edata_size"): _WIDTHS,
    ("DPU_EW_CFG", "op_type"): _OPERATIONS,
    ("DPU_RDMA_ERDMA_CFG", "data_mode"): EW_DATA_MODES,
    ("DPU_RDMA_ERDMA_CFG", "data_size"): _WIDTHS,
    ("DPU_RDMA_FEATURE_MODE_CFG", "in_precision"): _DPU,
    ("DPU_RDMA_FEATURE_MODE_CFG", "proc_precision"): _DPU,
    ("DPU_RDMA_FEATURE_MODE_CFG", "conv_mode"): CONV_MODES,
}
_UNNAMED: Final = "unnamed"


def disassemble(words: Iterable[int]) -> list[str]:
    """One line a word, without comments; `assemble` gives the same words back."""
    return [describe(int(command)) for command in words]


def assemble(text: str) -> list[int]:
    """The command words of a text; blank lines and comments are ignored.

    Raises NpuError with the line's number for an unknown register, field or code, and for a value that does
    not fit.
    """
    words = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition(COMMENT)[0].split()
        if not content:
            continue
        try:
            words.append(_word_of(content[0], content[1:]))
        except NpuError as error:
            raise NpuError(f"line {number}: {error}") from None
        except ValueError:
            raise NpuError(
                f"line {number}: {line.strip()!r} is not a command word, expected {_FORMS}"
            ) from None
    return words


_FORMS: Final = "a register with its fields, enable, marker, nop or .word"


def describe(command: int) -> str:
    """The line of one 64-bit word."""
    target, value, offset = split(command)
    if command == 0:
        return "nop"
    if command == MARKER_WORD:
        return "marker"
    if (target, offset) == (ENABLE_TARGET, ENABLE_OFFSET):
        return " ".join(("enable", *_enabled(value))) if value else "enable 0"
    register = register_of(target, offset)
    if register is None:
        return f".word {command:016x}"
    return " ".join((register.name, *(_fields(register, value) if value else ("0",))))


def blocks_of(value: int) -> tuple[str, ...]:
    """The names of the blocks that an enable word's value starts."""
    return tuple(b.name for b in BLOCKS if b.enable is not None and value >> b.enable & 1)


def field_words(register: Register, value: int) -> dict[str, int | str]:
    """The fields of a register's value that are not 0, with codes by name."""
    found: dict[str, int | str] = {}
    for name, number in decode(register, value).items():
        if number:
            found[name] = code_name(register.name, name, number) or number
    if rest := unnamed_bits(register, value):
        found[_UNNAMED] = rest
    return found


def code_name(register: str, field: str, number: int) -> str | None:
    """What the value of a field is called ("fp16", "per-pixel"); None when it holds no code."""
    name = CODES.get((register, field), {}).get(number)
    return None if name is None else name.replace(" ", "-")


def _enabled(value: int) -> Iterator[str]:
    rest = value
    for block in BLOCKS:
        if block.enable is not None and value >> block.enable & 1:
            rest &= ~(1 << block.enable)
            yield block.name
    if rest:
        yield f"{_UNNAMED}={rest:#x}"


def _fields(register: Register, value: int) -> Iterator[str]:
    wide = {field.name for field in register.fields if field.limit >= VALUE_LIMIT - 1}
    for name, number in field_words(register, value).items():
        as_hex = name in wide or name == _UNNAMED
        yield f"{name}={number:#x}" if as_hex and isinstance(number, int) else f"{name}={number}"


def _word_of(head: str, rest: list[str]) -> int:
    if head == ".word":
        (digits,) = rest
        if len(digits) != 16:
            raise ValueError(digits)
        return int(digits, 16)
    if head in ("nop", "marker"):
        if rest:
            raise ValueError(rest)
        return 0 if head == "nop" else MARKER_WORD
    if head == "enable":
        return word(ENABLE_TARGET, ENABLE_OFFSET, sum(_enable_bit(name) for name in rest))
    register = register_named(head)
    if rest == ["0"]:
        return write(head, 0)
    fields, unnamed = {}, 0
    for part in rest:
        name, equals, number = part.partition("=")
        if not equals:
            raise ValueError(part)
        if name == _UNNAMED:
            unnamed = _number(number)
        else:
            fields[name] = _code(register.name, name, number)
    if not rest:
        raise ValueError(head)
    if unnamed != unnamed_bits(register, unnamed):
        raise NpuError(f"{head}.{_UNNAMED} is {unnamed:#x}, which has bits of named fields; name them")
    return write(head, encode(head, **fields) | unnamed)


def _enable_bit(name: str) -> int:
    if name.startswith(_UNNAMED + "="):
        return _number(name.partition("=")[2])
    if name == "0":
        return 0
    bits = {block.name: 1 << block.enable for block in BLOCKS if block.enable is not None}
    if name not in bits:
        raise NpuError(f"there is no block {name} to enable, expected one of {', '.join(bits)}")
    return bits[name]


def _code(register: str, field: str, text: str) -> int:
    for number, name in CODES.get((register, field), {}).items():
        if name.replace(" ", "-") == text:
            return number
    return _number(text)


def _number(text: str) -> int:
    return int(text, 0)
