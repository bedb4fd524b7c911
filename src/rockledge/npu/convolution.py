"""CNA and CORE: from their registers to the accumulators, for 1 x 1 and depthwise 1 x 1 convolutions.

A product A[M, K] x B[K, N] is a 1 x 1 convolution of K channels and N kernels over M pixels. Everything is
taken from the registers; what they cannot mean on hardware is refused before any data is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge.npu.faults import StreamError
from rockledge.npu.layout import ATOM_BYTES, NATIVE
from rockledge.npu.memory import Memory, Window, window
from rockledge.npu.options import BadBuffer, Options, SpareBank, Tf32Input
from rockledge.npu.products import float_products, integer_products
from rockledge.npu.register_file import Snapshot

BANKS: Final = 12
BANK_BYTES: Final = 32768
ENTRY_BYTES: Final = 64
_STRIDE_LIMIT: Final = 1 << 28
_PLAIN_STRIDES: Final = 9
DEPTHWISE_GROUP: Final = 64

_LONG_K: Final = range(3073, 4096)
_TF32_MAX_K: Final = 5119

# How the bytes of an operand are read; int4 comes as bytes of two.
_STORED: Final[dict[str, np.dtype[Any]]] = {
    "int4": np.dtype(np.uint8),
    "int8": np.dtype(np.int8),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "tf32": np.dtype(np.uint32),
}


@dataclass(frozen=True)
class Convolution:
    """What CNA and CORE were told: sizes in elements, addresses and strides in bytes."""

    kind: isa.Precision
    depthwise: bool
    width: int
    height: int
    channels: int
    kernels: int
    row_major: bool
    line_stride: int
    surface_stride: int
    features: int
    weights: int
    weight_bytes: int
    keep_features: bool
    keep_weights: bool
    zeros: bool
    corrupt: bool

    @property
    def pixels(self) -> int:
        """Rows of the product."""
        return self.width * self.height

    @property
    def macs(self) -> int:
        """Products that are computed."""
        return self.pixels * self.channels * (1 if self.depthwise else self.kernels)


@dataclass
class Buffer:
    """What the convolution buffer of a core holds: the last tile and the last kernels of this kick."""

    features: tuple[tuple[object, ...], NDArray[Any]] | None = None
    weights: tuple[tuple[object, ...], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Accumulators:
    """[pixels, channels] int32 or fp32, and the sums of each pixel's inputs where they are asked for.

    `input_sums` is [pixels, 1] (one for all kernels) or [pixels, channels] when depthwise; None for floats.
    """

    values: NDArray[Any]
    input_sums: NDArray[np.int64] | None


def read_setup(registers: Snapshot) -> Convolution:
    """What the registers ask for. Raises StreamError for what the hardware would not do, or we cannot say."""
    con1 = registers.fields("CNA_CONV_CON1")
    kind = _kind(registers, con1)
    depthwise = _plain(registers, con1)
    size0, size1 = registers.fields("CNA_DATA_SIZE0"), registers.fields("CNA_DATA_SIZE1")
    width, height, channels = size0["width"], size0["height"], size1["channels"]
    kernels = channels if depthwise else registers.field("CNA_WEIGHT_SIZE2", "kernels")
    if not width * height * channels * kernels:
        raise registers.refuse(
            "shape", "CNA_DATA_SIZE0", f"the product is {width * height} x {channels} x {kernels}"
        )
    _same_shape(registers, width, height, channels, kernels, depthwise)
    _groups_fit(registers, kind, channels, kernels, depthwise)
    weight_bytes = _weight_bytes(registers, kind, channels, kernels, depthwise)
    cbuf = registers.fields("CNA_CBUF_CON0")
    zeros = _buffer_fits(registers, kind, cbuf, width, height, channels, depthwise)
    _known_traps(registers, kind, channels, width * height)
    corrupt = not zeros and _spare_bank(registers, kind, cbuf["data_bank"], width, height, channels)
    features = _address(registers, "CNA_FEATURE_DATA_ADDR")
    row_major = bool(con1["group_line_off"])
    pitch = registers.field("CNA_DMA_CON2", "surface_stride") + (width if row_major else 4 * width)
    return Convolution(
        kind=kind,
        depthwise=depthwise,
        width=width,
        height=height,
        channels=channels,
        kernels=kernels,
        row_major=row_major,
        line_stride=registers.field("CNA_DMA_CON1", "line_stride") * ATOM_BYTES,
        surface_stride=pitch % _STRIDE_LIMIT * ATOM_BYTES,
        features=features,
        weights=_address(registers, "CNA_DCOMP_ADDR0"),
        weight_bytes=weight_bytes,
        keep_features=bool(cbuf["data_reuse"]),
        keep_weights=bool(cbuf["weight_reuse"]),
        zeros=zeros,
        corrupt=corrupt,
    )


def run(
    setup: Convolution, registers: Snapshot, memory: Memory, buffer: Buffer, sums_wanted: bool
) -> Accumulators:
    """The accumulators. Raises StreamError when operands lie outside the memory that was given."""
    channels = setup.channels if setup.depthwise else setup.kernels
    integer = setup.kind.name in ("int8", "int4")
    if setup.zeros:
        shape = (setup.pixels, channels)
        return Accumulators(np.zeros(shape, np.int32 if integer else np.float32), None)
    features = _features(setup, registers, memory, buffer)
    weights = _weights(setup, registers, memory, buffer)
    input_sums: NDArray[np.int64] | None = None
    if setup.depthwise:
        wide = _pixels_first(features).astype(np.int32)
        values: NDArray[Any] = wide * weights[: setup.channels].astype(np.int32)
        input_sums = wide.astype(np.int64) if sums_wanted else None
    elif integer:
        values = integer_products(features, weights)
        if sums_wanted:
            input_sums = features.sum(axis=(0, 2), dtype=np.int64)[:, None]
    else:
        fp16 = setup.kind.name == "fp16"
        kernels = weights.transpose(0, 2, 1, 3).reshape(setup.kernels, setup.channels)
        values = float_products(_pixels_first(features), kernels, registers.options, fp16)
    if setup.corrupt:
        random = np.random.default_rng(registers.options.seed)
        values = random.integers(-(1 << 20), 1 << 20, values.shape, np.int32)
    return Accumulators(values, input_sums)


def feature_windows(setup: Convolution) -> list[Window]:
    """Where the atoms of the input lie: windows [surfaces, pixels.., elements], rows in order.

    Without GROUP_LINE_OFF the atom of line h and column w is floor(h / 4) * DMA_CON1 + (h mod 4) * W + w;
    with it h * DMA_CON1 + w [I], checked on all golden programs [E].
    """
    dtype = _STORED[setup.kind.name]
    elements = ATOM_BYTES // dtype.itemsize
    surfaces = -(-setup.channels * setup.kind.bits // (8 * ATOM_BYTES))
    outer, inner = setup.surface_stride, dtype.itemsize
    lines, line_bytes = setup.height, setup.width * ATOM_BYTES

    def part(base: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Window:
        return window(base, (surfaces, *shape, elements), (outer, *strides, inner), dtype)

    if setup.row_major:
        return [part(setup.features, (lines, setup.width), (setup.line_stride, ATOM_BYTES))]
    if lines <= 4 or setup.line_stride == 4 * line_bytes:
        return [part(setup.features, (lines * setup.width,), (ATOM_BYTES,))]
    fours = lines // 4
    strides = (setup.line_stride, line_bytes, ATOM_BYTES)
    found = [part(setup.features, (fours, 4, setup.width), strides)]
    if lines % 4:
        rest = setup.features + fours * setup.line_stride
        found.append(part(rest, (lines % 4 * setup.width,), (ATOM_BYTES,)))
    return found


def _kind(registers: Snapshot, con1: dict[str, int]) -> isa.Precision:
    kind = isa.CNA_PRECISION.get(con1["in_precision"])
    if con1["in_precision"] != con1["proc_precision"]:
        raise registers.refuse(
            "type",
            "CNA_CONV_CON1",
            f"in and processing precision are {con1['in_precision']} and {con1['proc_precision']}, "
            "expected one type",
        )
    if kind is None or kind.name not in _STORED:
        known = ", ".join(_STORED)
        what = "unknown" if kind is None else kind.name
        raise registers.refuse("type", "CNA_CONV_CON1", f"the operands are {what}, expected {known}")
    core = registers.field("CORE_MISC_CFG", "proc_precision")
    if core != kind.cna:
        raise registers.refuse(
            "type", "CORE_MISC_CFG", f"CORE computes in precision {core}, but CNA feeds {kind.cna}"
        )
    return kind


def _plain(registers: Snapshot, con1: dict[str, int]) -> bool:
    """Whether the convolution is depthwise. Refuses all that is no 1 x 1 convolution with plain input."""
    depthwise = con1["conv_mode"] == 3
    if con1["conv_mode"] not in isa.CONV_MODES or con1["deconv"] or con1["argb_in"] or con1["nonalign_dma"]:
        raise registers.refuse(
            "convolution", "CNA_CONV_CON1", "expected the normal or the depthwise mode on plain input"
        )
    core = registers.field("CORE_MISC_CFG", "dw_en")
    if core != depthwise:
        raise registers.refuse("shape", "CORE_MISC_CFG", f"dw_en is {core}, but CNA's mode says otherwise")
    if registers.value("CNA_CONV_CON3") != _PLAIN_STRIDES:
        raise registers.refuse("convolution", "CNA_CONV_CON3", "expected strides of 1 and nothing else (9)")
    size2 = registers.fields("CNA_WEIGHT_SIZE2")
    if (size2["kernel_width"], size2["kernel_height"]) != (1, 1):
        raise registers.refuse(
            "convolution",
            "CNA_WEIGHT_SIZE2",
            f"kernels are {size2['kernel_width']} x {size2['kernel_height']}, expected 1 x 1",
        )
    if depthwise and size2["kernels"] != 1:
        raise registers.refuse(
            "convolution", "CNA_WEIGHT_SIZE2", f"{size2['kernels']} depthwise kernels a channel, expected 1"
        )
    for name, rule in (("CNA_PAD_CON0", "convolution"), ("CNA_FC_CON0", "convolution")):
        if registers.value(name):
            raise registers.refuse(rule, name, f"it is {registers.value(name):#x}, expected 0")
    if not registers.field("CNA_CVT_CON0", "bypass"):
        raise registers.refuse("input-conversion", "CNA_CVT_CON0", "expected the input conversion bypassed")
    if registers.field("CNA_DCOMP_CTRL", "control"):
        raise registers.refuse("decompression", "CNA_DCOMP_CTRL", "expected weights without compression (0)")
    if registers.value("CORE_CLIP_TRUNCATE"):
        raise registers.refuse("convolution", "CORE_CLIP_TRUNCATE", "expected no truncation (0)")
    return depthwise


def _same_shape(
    registers: Snapshot, width: int, height: int, channels: int, kernels: int, depthwise: bool
) -> None:
    """CNA's own mirrors of the size, and CORE's, must say the same."""
    core = registers.fields("CORE_DATAOUT_SIZE_0")
    said = {
        "CNA_DATA_SIZE1": (registers.field("CNA_DATA_SIZE1", "real_channels_minus_1") + 1, channels),
        "CNA_DATA_SIZE2": (registers.field("CNA_DATA_SIZE2", "output_width"), width),
        "CNA_DATA_SIZE3": (registers.field("CNA_DATA_SIZE3", "output_pixels"), width * height),
        "CORE_DATAOUT_SIZE_0": (
            (core["width_minus_1"] + 1, core["height_minus_1"] + 1),
            (width, height),
        ),
        "CORE_DATAOUT_SIZE_1": (
            registers.field("CORE_DATAOUT_SIZE_1", "channels_minus_1") + 1,
            channels if depthwise else kernels,
        ),
    }
    for name, (found, expected) in said.items():
        if found != expected:
            raise registers.refuse(
                "shape", name, f"it says {found}, but the input and kernels say {expected}"
            )


def _groups_fit(
    registers: Snapshot, kind: isa.Precision, channels: int, kernels: int, depthwise: bool
) -> None:
    native = NATIVE[kind.name]
    if depthwise:
        if kind.name != "int8":
            raise registers.refuse("type", "CNA_CONV_CON1", f"depthwise {kind.name}, expected int8")
        if channels % native.group:
            raise registers.refuse(
                "multiple", "CNA_DATA_SIZE1", f"{channels} channels, expected a multiple of {native.group}"
            )
        return
    if channels % native.run:
        raise registers.refuse(
            "multiple",
            "CNA_DATA_SIZE1",
            f"{channels} inputs of {kind.name}, expected a multiple of {native.run}",
        )
    if kernels % native.group:
        raise registers.refuse(
            "multiple",
            "CNA_WEIGHT_SIZE2",
            f"{kernels} kernels of {kind.name}, expected a multiple of {native.group}",
        )


def _weight_bytes(
    registers: Snapshot, kind: isa.Precision, channels: int, kernels: int, depthwise: bool
) -> int:
    """Bytes of all kernels, as both size registers must say; those of depthwise fill groups of 64."""
    kernel = channels * kind.bits // 8
    total = -(-channels // DEPTHWISE_GROUP) * DEPTHWISE_GROUP if depthwise else kernel * kernels
    found_kernel = registers.field("CNA_WEIGHT_SIZE1", "bytes_per_kernel")
    if found_kernel != kernel:
        raise registers.refuse(
            "weight-size", "CNA_WEIGHT_SIZE1", f"{found_kernel} bytes a kernel, expected {kernel}"
        )
    found = registers.value("CNA_WEIGHT_SIZE0")
    if found != total:
        raise registers.refuse("weight-size", "CNA_WEIGHT_SIZE0", f"{found} bytes in all, expected {total}")
    return total


def _buffer_fits(
    registers: Snapshot,
    kind: isa.Precision,
    cbuf: dict[str, int],
    width: int,
    height: int,
    channels: int,
    depthwise: bool,
) -> bool:
    """Whether the option makes a wrong split of the convolution buffer give zeros; else it is refused."""
    data, weight = cbuf["data_bank"], cbuf["weight_bank"]
    entries = registers.field("CNA_CBUF_CON1", "data_entries")
    needed = -(-width * channels * kind.bits // (8 * ENTRY_BYTES))
    tile = width * height * channels * kind.bits // 8
    group = channels * kind.bits // 8 * (1 if depthwise else NATIVE[kind.name].group)
    wrong: StreamError | None = None
    if data + weight > BANKS:
        wrong = registers.refuse(
            "bank-sum", "CNA_CBUF_CON0", f"{data} data and {weight} weight banks, expected at most {BANKS}"
        )
    elif entries != needed:
        wrong = registers.refuse(
            "data-entries", "CNA_CBUF_CON1", f"{entries} entries a line, expected {needed}"
        )
    elif tile > data * BANK_BYTES:
        wrong = registers.refuse(
            "data-banks",
            "CNA_CBUF_CON0",
            f"the tile takes {tile} bytes, expected at most {data * BANK_BYTES} in {data} banks",
        )
    elif not weight:
        wrong = registers.refuse("weight-banks", "CNA_CBUF_CON0", "no weight banks, expected at least one")
    elif group > weight * BANK_BYTES:
        # Authors keep one group, doubled for streaming; what a smaller share does, nobody says.
        registers.flag(
            "weight-banks",
            "CNA_CBUF_CON0",
            f"one group of kernels takes {group} bytes, expected at most {weight * BANK_BYTES} "
            f"in {weight} banks",
        )
    if cbuf["fc_data_bank"]:
        raise registers.refuse(
            "fc-data-bank", "CNA_CBUF_CON0", f"fc_data_bank is {cbuf['fc_data_bank']}, expected 0"
        )
    if wrong is None:
        return False
    if registers.options.bad_buffer is BadBuffer.REFUSE:
        raise wrong
    registers.flag(wrong.rule.name, wrong.place.register, "zeros are written instead of the product")
    return True


def _known_traps(registers: Snapshot, kind: isa.Precision, channels: int, pixels: int) -> None:
    if kind.name == "tf32" and channels > _TF32_MAX_K:
        raise registers.refuse(
            "tf32-k", "CNA_DATA_SIZE1", f"{channels} inputs of tf32, expected parts of at most 4096"
        )
    if channels in _LONG_K and pixels > 4:
        registers.flag("long-k", "CNA_DATA_SIZE1", f"{channels} inputs and {pixels} rows in one program")


def _spare_bank(
    registers: Snapshot, kind: isa.Precision, data_banks: int, width: int, height: int, channels: int
) -> bool:
    """Whether the option corrupts a tile whose bytes fit its banks, but whose entries do not.

    A line begins a new entry of 64 bytes. Where K / 32 is odd that leaves half an entry empty in each row,
    which a count of banks by bytes forgets. All ten pairs of rows and K that one author found silently wrong
    without a spare bank [H] are such tiles, and with those rows no other K below 1,536 is: so this is the
    rule behind them [I].
    """
    line = width * channels * kind.bits
    entries = height * -(-line // (8 * ENTRY_BYTES))
    if entries * ENTRY_BYTES <= data_banks * BANK_BYTES or height * line // 8 > data_banks * BANK_BYTES:
        return False
    if registers.options.spare_bank is not SpareBank.IGNORE:
        registers.flag(
            "spare-bank",
            "CNA_CBUF_CON0",
            f"{height} lines take {entries} entries, expected at most "
            f"{data_banks * BANK_BYTES // ENTRY_BYTES} in {data_banks} data banks",
        )
    return registers.options.spare_bank is SpareBank.CORRUPT


def _address(registers: Snapshot, name: str) -> int:
    address = registers.value(name)
    if address % ATOM_BYTES:
        raise registers.refuse("alignment", name, f"{address:#x} is no multiple of {ATOM_BYTES}")
    return address


def _features(setup: Convolution, registers: Snapshot, memory: Memory, buffer: Buffer) -> NDArray[Any]:
    """[surfaces, pixels, elements of an atom]: int8, or float64."""
    if setup.keep_features and setup.keep_weights:
        raise registers.refuse("reuse", "CNA_CBUF_CON0", "both reuse bits are set, expected at most one")
    windows = feature_windows(setup)
    key = (setup.kind.name, setup.width, setup.height, setup.channels, tuple(windows))
    if setup.keep_features:
        if buffer.features is None or buffer.features[0] != key:
            raise registers.refuse(
                "reuse", "CNA_CBUF_CON0", "data_reuse is set, but no program of this kick left this tile"
            )
        return buffer.features[1]
    parts = [registers.read(memory, "CNA_FEATURE_DATA_ADDR", part) for part in windows]
    flat = [part.reshape(len(part), -1, part.shape[-1]) for part in parts]
    values = _decode(
        flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1), setup.kind, registers.options
    )
    buffer.features = key, values.copy() if values.base is not None else values
    return buffer.features[1]


def _weights(setup: Convolution, registers: Snapshot, memory: Memory, buffer: Buffer) -> NDArray[Any]:
    """[N / group, K / run, group, run] (depthwise: [bytes]): int8, or float64."""
    key = (setup.kind.name, setup.depthwise, setup.channels, setup.kernels, setup.weights)
    if setup.keep_weights:
        if buffer.weights is None or buffer.weights[0] != key:
            raise registers.refuse(
                "reuse",
                "CNA_CBUF_CON0",
                "weight_reuse is set, but no program of this kick left these kernels",
            )
        return buffer.weights[1]
    dtype = _STORED[setup.kind.name]
    count = setup.weight_bytes // dtype.itemsize
    wanted = window(setup.weights, (count,), (dtype.itemsize,), dtype)
    stored = registers.read(memory, "CNA_DCOMP_ADDR0", wanted)
    values = _decode(stored, setup.kind, registers.options)
    if not setup.depthwise:
        native = NATIVE[setup.kind.name]
        values = values.reshape(
            setup.kernels // native.group, setup.channels // native.run, native.group, native.run
        )
    # Weights are streamed through their banks: only what fits there whole can be used again.
    fits = setup.weight_bytes <= registers.field("CNA_CBUF_CON0", "weight_bank") * BANK_BYTES
    buffer.weights = (key, values.copy()) if fits else None
    return values


def _decode(stored: NDArray[Any], kind: isa.Precision, options: Options) -> NDArray[Any]:
    """The operand as int8, or as float64 (exactly; a signalling NaN becomes a quiet one)."""
    if kind.name == "int8":
        return stored
    if kind.name == "int4":
        pairs = np.stack([stored << 4, stored & 0xF0], axis=-1).view(np.int8) >> 4
        return pairs.reshape(*stored.shape[:-1], 2 * stored.shape[-1])
    if kind.name == "fp16":
        return _widened(stored)
    if kind.name == "bf16":
        return _widened((stored.astype(np.uint32) << 16).view(np.float32))
    if options.tf32_input is Tf32Input.NEAREST:
        # Half of the last kept bit, one less where that bit is even: ties go to even. NaN and infinity stay.
        finite = (stored & 0x7F800000) != 0x7F800000
        stored = np.where(finite, stored + np.uint32(0xFFF) + (stored >> 13 & 1), stored)
    return _widened((stored & np.uint32(0xFFFFE000)).view(np.float32))


def _widened(values: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def _pixels_first(features: NDArray[Any]) -> NDArray[Any]:
    surfaces, pixels, atom = features.shape
    return features.transpose(1, 0, 2).reshape(pixels, surfaces * atom)
