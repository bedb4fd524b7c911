"""Suspicions about one program's sizes and types: what several registers repeat has to agree.

Which registers belong together is what the programs of three generators agree on [I], [E].
"""

from collections.abc import Callable, Iterator
from typing import Final

from rockledge.npu.isa import DPU_PRECISION
from rockledge.npu.layout import ATOM_BYTES, padded
from rockledge_npu_lab.linting.state import ENTRY_BYTES, Objection, State

DEPTHWISE_GROUP: Final = 64


def channel_fields(state: State) -> Iterator[Objection]:
    """The two channel fields of one register agree."""
    real = state.field("CNA_DATA_SIZE1", "real_channels_minus_1") + 1
    if state.conv and real != state.inputs:
        yield "CNA_DATA_SIZE1", f"{state.inputs} channels, but {real} real ones (14 bits hold 16384)"


def alignment(state: State) -> Iterator[Objection]:
    """Inputs fill runs, kernels fill groups; padding is the program's job [H]."""
    if not state.conv or state.native is None or state.input_type is None or state.depthwise:
        return
    name, native = state.input_type.name, state.native
    if state.inputs % native.run:
        yield "CNA_DATA_SIZE1", f"{state.inputs} inputs of {name}, expected a multiple of {native.run}"
    if state.kernels % native.group:
        yield "CNA_WEIGHT_SIZE2", f"{state.kernels} kernels of {name}, expected a multiple of {native.group}"


def precisions(state: State) -> Iterator[Objection]:
    """Input and processing type agree in CNA, CORE and DPU: mixed types do not exist [H: ORK]."""
    if not state.conv:
        return
    code = state.field("CNA_CONV_CON1", "in_precision")
    name = state.type_name
    if name is None:
        yield "CNA_CONV_CON1", f"in_precision {code} is not a known type"
        return
    for register in ("CNA_CONV_CON1", "CORE_MISC_CFG"):
        if (other := state.field(register, "proc_precision")) != code:
            yield register, f"proc_precision is {other}, but the inputs are {name} ({code})"
    wanted = "fp32" if name == "tf32" else name
    for field in ("in_precision", "proc_precision"):
        found = DPU_PRECISION.get(state.field("DPU_DATA_FORMAT", field))
        if found is None or found.name != wanted:
            yield "DPU_DATA_FORMAT", f"{field} is not {wanted}, the type that goes with {name} inputs"


def entries(state: State) -> Iterator[Objection]:
    """A line of the input takes so many entries of 64 bytes; other values gave zeros or hung [H]."""
    if not state.conv or state.input_type is None:
        return
    line = state.field("CNA_DATA_SIZE0", "width") * state.inputs * state.input_type.bits // 8
    wanted, found = -(-line // ENTRY_BYTES), state.field("CNA_CBUF_CON1", "data_entries")
    if found != wanted:
        yield "CNA_CBUF_CON1", f"{found} entries, but a line of {line} bytes takes {wanted}"


def weight_bytes(state: State) -> Iterator[Objection]:
    """Bytes of a kernel and of all kernels follow from inputs, kernel size and type."""
    if not state.conv or state.input_type is None:
        return
    area = state.field("CNA_WEIGHT_SIZE2", "kernel_width") * state.field("CNA_WEIGHT_SIZE2", "kernel_height")
    each = area * state.inputs * state.input_type.bits // 8
    whole = area * padded(state.inputs, DEPTHWISE_GROUP) if state.depthwise else each * state.kernels
    for register, field, wanted in (
        ("CNA_WEIGHT_SIZE1", "bytes_per_kernel", each),
        ("CNA_WEIGHT_SIZE0", "bytes", whole),
    ):
        if (found := state.field(register, field)) != wanted:
            yield register, f"{found} bytes, but the kernels have {wanted}"


def cubes(state: State) -> Iterator[Objection]:
    """Everything that repeats the DPU's cube agrees with it."""
    if "DPU" not in state.enabled:
        return
    width = state.field("DPU_DATA_CUBE_WIDTH", "width_minus_1") + 1
    height = state.field("DPU_DATA_CUBE_HEIGHT", "height_minus_1") + 1
    channels = state.field("DPU_DATA_CUBE_CHANNEL", "channels_minus_1") + 1
    sides = {"width": width, "height": height, "channels": channels, "pixels": width * height}
    for block, repeats in REPEATED.items():
        if block not in state.enabled:
            continue
        if block == "DPU" and state.field("DPU_BS_OW_CFG", "tp_org_en"):
            continue  # a transposed write has other sizes
        for register, field, side in repeats:
            found = state.field(register, field) + field.endswith("_minus_1")
            if found != sides[side] and not (field == "kernels" and state.depthwise):
                yield register, f"{found} {side} in {field}, but the DPU's cube has {sides[side]}"


def inputs_of_a_product(state: State) -> Iterator[Objection]:
    """1 x 1 kernels with stride 1 give a pixel for each that goes in; both blocks know what is depthwise."""
    if not state.conv:
        return
    kernel = (state.field("CNA_WEIGHT_SIZE2", f"kernel_{side}") for side in ("width", "height"))
    stride = (state.field("CNA_CONV_CON3", f"stride_{axis}") for axis in ("x", "y"))
    pixels = state.field("CNA_DATA_SIZE3", "output_pixels")
    if {*kernel, *stride} == {1} and state.rows != pixels:
        yield "CNA_DATA_SIZE0", f"{state.rows} pixels go in, but {pixels} come out"
    if bool(state.field("CORE_MISC_CFG", "dw_en")) != state.depthwise:
        yield "CORE_MISC_CFG", "CNA and CORE disagree on whether this is depthwise"


def strides(state: State) -> Iterator[Objection]:
    """Output surfaces or groups that lie on each other overwrite themselves, in no known order [?]."""
    if "DPU" not in state.enabled:
        return
    out = DPU_PRECISION.get(state.field("DPU_DATA_FORMAT", "out_precision"))
    size_e = [state.field("DPU_BS_OW_CFG", f"size_e_{i}") for i in range(3)]
    if len(set(size_e)) > 1:
        yield "DPU_BS_OW_CFG", f"the three size_e are {size_e}; in every known program they agree"
    if out is None:
        yield (
            "DPU_DATA_FORMAT",
            f"out_precision {state.field('DPU_DATA_FORMAT', 'out_precision')} is not a known type",
        )
        return
    channels = state.field("DPU_DATA_CUBE_CHANNEL", "channels_minus_1") + 1
    atom = ATOM_BYTES * 8 // out.bits
    group = (size_e[0] + 1) * atom
    if min(channels, group) > atom and not state.field("DPU_DST_SURF_STRIDE", "stride"):
        yield "DPU_DST_SURF_STRIDE", "a stride of 0: surfaces of a pixel overwrite each other"
    if channels > group and not state.field("DPU_SURFACE_ADD", "stride"):
        yield "DPU_SURFACE_ADD", "a stride of 0: groups of channels overwrite each other"


# What repeats the cube: by the block that has to be on, register, field and side.
REPEATED: Final = {
    "CNA": (
        ("CNA_DATA_SIZE2", "output_width", "width"),
        ("CNA_DATA_SIZE3", "output_pixels", "pixels"),
        ("CNA_WEIGHT_SIZE2", "kernels", "channels"),
        ("CORE_DATAOUT_SIZE_0", "width_minus_1", "width"),
        ("CORE_DATAOUT_SIZE_0", "height_minus_1", "height"),
        ("CORE_DATAOUT_SIZE_1", "channels_minus_1", "channels"),
    ),
    "DPU": (
        ("DPU_DATA_CUBE_CHANNEL", "original_channels_minus_1", "channels"),
        ("DPU_WDMA_SIZE_0", "channels_minus_1", "channels"),
        ("DPU_WDMA_SIZE_1", "width_minus_1", "width"),
        ("DPU_WDMA_SIZE_1", "height_minus_1", "height"),
    ),
    "DPU_RDMA": (
        ("DPU_RDMA_DATA_CUBE_WIDTH", "width_minus_1", "width"),
        ("DPU_RDMA_DATA_CUBE_HEIGHT", "height_minus_1", "height"),
        ("DPU_RDMA_DATA_CUBE_CHANNEL", "channels_minus_1", "channels"),
    ),
}
SIZE_RULES: Final[tuple[Callable[[State], Iterator[Objection]], ...]] = (
    channel_fields,
    alignment,
    precisions,
    entries,
    weight_bytes,
    cubes,
    inputs_of_a_product,
    strides,
)
