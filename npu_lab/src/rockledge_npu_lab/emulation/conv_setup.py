"""What the registers of CNA and CORE ask for, and whether hardware would do it.

A product A[M, K] x B[K, N] is a 1 x 1 convolution of K channels and N kernels over M pixels. What the
registers cannot mean on hardware is refused before any data is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rockledge.npu import isa
from rockledge.npu.layout import ATOM_BYTES, NATIVE
from rockledge_npu_lab.emulation.conv_buffer import gives_zeros, lacks_spare_bank
from rockledge_npu_lab.emulation.register_file import Snapshot

DEPTHWISE_GROUP: Final = 64
_MODELLED: Final = ("int8", "int4", "fp16", "bf16", "tf32")
_STRIDE_LIMIT: Final = 1 << 28
_PLAIN_STRIDES: Final = 9
_LONG_K: Final = range(3073, 4096)
_TF32_MAX_K: Final = 5119


@dataclass(frozen=True)
class Convolution:
    """The settings of CNA and CORE: sizes in elements, addresses and strides in bytes."""

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


def read_setup(registers: Snapshot) -> Convolution:
    """What the registers ask for. Raises StreamError for what the hardware would not do, or is not known."""
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
    zeros = gives_zeros(registers, kind, cbuf, width, height, channels, depthwise)
    _known_traps(registers, kind, channels, width * height)
    corrupt = not zeros and lacks_spare_bank(registers, kind, cbuf["data_bank"], width, height, channels)
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


def _kind(registers: Snapshot, con1: dict[str, int]) -> isa.Precision:
    kind = isa.CNA_PRECISION.get(con1["in_precision"])
    if con1["in_precision"] != con1["proc_precision"]:
        raise registers.refuse(
            "type",
            "CNA_CONV_CON1",
            f"in and processing precision are {con1['in_precision']} and {con1['proc_precision']}, "
            "expected one type",
        )
    if kind is None or kind.name not in _MODELLED:
        known = ", ".join(_MODELLED)
        what = "unknown" if kind is None else kind.name
        raise registers.refuse("type", "CNA_CONV_CON1", f"the operands are {what}, expected {known}")
    core = registers.field("CORE_MISC_CFG", "proc_precision")
    if core != kind.cna:
        raise registers.refuse(
            "type", "CORE_MISC_CFG", f"CORE computes in precision {core}, but CNA feeds {kind.cna}"
        )
    return kind


def _plain(registers: Snapshot, con1: dict[str, int]) -> bool:
    """Whether the convolution is depthwise. Refuses anything but a 1 x 1 convolution with plain input."""
    depthwise = con1["conv_mode"] == 3
    if con1["conv_mode"] not in isa.CONV_MODES or con1["deconv"] or con1["argb_in"] or con1["nonalign_dma"]:
        raise registers.refuse(
            "convolution", "CNA_CONV_CON1", "expected the normal or the depthwise mode on plain input"
        )
    core = registers.field("CORE_MISC_CFG", "dw_en")
    if core != depthwise:
        raise registers.refuse("shape", "CORE_MISC_CFG", f"dw_en is {core}, which contradicts CNA's mode")
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
    for name in ("CNA_PAD_CON0", "CNA_FC_CON0", "CORE_CLIP_TRUNCATE"):
        if registers.value(name):
            raise registers.refuse("convolution", name, f"it is {registers.value(name):#x}, expected 0")
    if not registers.field("CNA_CVT_CON0", "bypass"):
        raise registers.refuse("input-conversion", "CNA_CVT_CON0", "expected the input conversion bypassed")
    if registers.field("CNA_DCOMP_CTRL", "control"):
        raise registers.refuse("decompression", "CNA_DCOMP_CTRL", "expected weights without compression (0)")
    return depthwise


def _same_shape(
    registers: Snapshot, width: int, height: int, channels: int, kernels: int, depthwise: bool
) -> None:
    """CNA's own mirrors of the size, and CORE's, must agree."""
    core = registers.fields("CORE_DATAOUT_SIZE_0")
    sizes = {
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
    for name, (found, expected) in sizes.items():
        if found != expected:
            raise registers.refuse(
                "shape", name, f"it is {found}, expected {expected} as the input and kernels have it"
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
    """Bytes of all kernels, as both size registers must state; those of depthwise fill groups of 64."""
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


def _known_traps(registers: Snapshot, kind: isa.Precision, channels: int, pixels: int) -> None:
    if kind.name == "tf32" and channels > _TF32_MAX_K:
        raise registers.refuse(
            "tf32-k", "CNA_DATA_SIZE1", f"{channels} inputs of tf32, expected parts of at most 4096"
        )
    if channels in _LONG_K and pixels > 4:
        registers.flag("long-k", "CNA_DATA_SIZE1", f"{channels} inputs and {pixels} rows in one program")


def _address(registers: Snapshot, name: str) -> int:
    address = registers.value(name)
    if address % ATOM_BYTES:
        raise registers.refuse("alignment", name, f"{address:#x} is not a multiple of {ATOM_BYTES}")
    return address
