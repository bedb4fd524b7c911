"""What is suspicious in the registers of one program, rule by rule, each with its source.

A rule looks at the register values that a program starts its blocks with, and yields the register that it
objects to with a reason. Nothing here knows words, chains or where a value came from; `check.py` does.
"""

from collections.abc import Callable, Iterator
from typing import Final

from rockledge.npu.isa import DPU_PRECISION, REGISTERS, unnamed_bits
from rockledge.npu.layout import ATOM_BYTES, padded
from rockledge.npu.programs.tile_program import BANK_BYTES, BANKS
from rockledge_npu_lab.linting.state import ENTRY_BYTES, Objection, State

ADD: Final = 2
# 13-bit sizes whose maximum is silently wrong (the field holds size - 1), and offsets of as many bits.
CEILINGS: Final = {
    "DPU_DATA_CUBE_WIDTH": "width_minus_1",
    "DPU_DATA_CUBE_HEIGHT": "height_minus_1",
    "DPU_DATA_CUBE_CHANNEL": "channels_minus_1",
    "DPU_DATA_CUBE_NOTCH": "notch_0",
    "DPU_RDMA_DATA_CUBE_WIDTH": "width_minus_1",
    "DPU_RDMA_DATA_CUBE_HEIGHT": "height_minus_1",
    "DPU_RDMA_DATA_CUBE_CHANNEL": "channels_minus_1",
}
LARGEST_KERNELS: Final = 8192
LONG_TF32: Final = 5120


def bank_sum(state: State) -> Iterator[Objection]:
    """Data and weight banks share twelve; more gave zeros [H: ORK]."""
    data, weight = (state.field("CNA_CBUF_CON0", f"{part}_bank") for part in ("data", "weight"))
    if state.conv and data + weight > BANKS:
        yield "CNA_CBUF_CON0", f"{data} data and {weight} weight banks, of {BANKS}: the result is zeros"


def activations_fit(state: State) -> Iterator[Objection]:
    """The whole tile of activations has to lie in its banks: nothing streams the inputs [H]."""
    if not state.conv or state.input_type is None:
        return
    size = state.rows * state.inputs * state.input_type.bits // 8
    banks = state.field("CNA_CBUF_CON0", "data_bank")
    if size > banks * BANK_BYTES:
        yield "CNA_CBUF_CON0", f"{size} bytes of activations do not fit {banks} data banks of {BANK_BYTES}"


def kernels_fit(state: State) -> Iterator[Objection]:
    """One group of kernels at a time has to lie in the weight banks [H: HAP]."""
    if not state.conv or state.depthwise or state.native is None:
        return
    size = state.native.group * state.field("CNA_WEIGHT_SIZE1", "bytes_per_kernel")
    banks = state.field("CNA_CBUF_CON0", "weight_bank")
    if size > banks * BANK_BYTES:
        yield "CNA_CBUF_CON0", f"a group of kernels has {size} bytes, {banks} weight banks hold less"


def spare_bank(state: State) -> Iterator[Objection]:
    """Each line begins a new entry of 64 bytes, so odd multiples of 32 int8 inputs waste half an entry a row.

    The pairs of rows and inputs that were silently wrong without a spare bank [H: GRN] are those whose
    entries need one bank more than their bytes [I].
    """
    if not state.conv or state.depthwise or state.type_name != "int8":
        return
    filled = -(-state.rows * state.inputs // BANK_BYTES)
    needed = -(-state.rows * padded(state.inputs, ENTRY_BYTES) // BANK_BYTES)
    if filled <= state.field("CNA_CBUF_CON0", "data_bank") < needed:
        yield (
            "CNA_CBUF_CON0",
            f"{state.rows} rows of {state.inputs} int8 inputs need a spare data bank, or sums are wrong",
        )


def fully_connected_bank(state: State) -> Iterator[Objection]:
    """Anything but 0 corrupted 64 to 75 % of the result [H: GRN]."""
    if state.conv and (banks := state.field("CNA_CBUF_CON0", "fc_data_bank")):
        yield "CNA_CBUF_CON0", f"fc_data_bank is {banks}; anything but 0 corrupts the result"


def reuse(state: State) -> Iterator[Objection]:
    """Only one operand of two tasks can be the same [H: GRN]."""
    if (
        state.conv
        and state.field("CNA_CBUF_CON0", "data_reuse")
        and state.field("CNA_CBUF_CON0", "weight_reuse")
    ):
        yield "CNA_CBUF_CON0", "data_reuse and weight_reuse are both set; only one operand can be the same"


def ceilings(state: State) -> Iterator[Objection]:
    """13-bit sizes at their maximum lose their tail silently [H: GRN, ORK]."""
    for register, field in CEILINGS.items():
        limit = next(f.limit for f in REGISTERS[register].fields if f.name == field)
        if REGISTERS[register].block.name in state.enabled and state.field(register, field) == limit:
            yield register, f"{field} is {limit}, all that its 13 bits hold: the tail may be silently wrong"
    if state.conv and state.kernels > LARGEST_KERNELS:
        yield "CNA_WEIGHT_SIZE2", f"{state.kernels} kernels; beyond {LARGEST_KERNELS} results were wrong"


def grains(state: State) -> Iterator[Objection]:
    """FEATURE_GRAINS wraps above 1022 rows; for some inputs small grains failed [H: HAP]."""
    if not state.conv:
        return
    found = state.field("CNA_CONV_CON2", "feature_grains")
    if 3072 < state.inputs < 4096 and state.rows > 4 and found <= state.rows:
        yield (
            "CNA_CONV_CON2",
            f"{found} grains for {state.rows} rows of {state.inputs} inputs: submits failed with small ones",
        )
    if state.field("CNA_DATA_SIZE0", "height") + 1 > 1023 and found < 1023:
        yield "CNA_CONV_CON2", f"feature_grains has wrapped to {found} in its ten bits"


def long_tf32(state: State) -> Iterator[Objection]:
    """Long tf32 inputs timed out unless split [H: HAP]."""
    if state.conv and state.type_name == "tf32" and state.inputs >= LONG_TF32:
        yield "CNA_DATA_SIZE1", f"{state.inputs} inputs of tf32 timed out; split them into parts up to 4096"


def main_read(state: State) -> Iterator[Objection]:
    """DPU_RDMA started with its main read on, and no stage to take the data, times out [H: GRN]."""
    name = "DPU_RDMA_FEATURE_MODE_CFG"
    if "DPU_RDMA" not in state.enabled:
        return
    flying = state.field(name, "flying_mode")
    if not (flying or state.field(name, "mrdma_disable") or state.field(name, "comb_use")):
        yield name, "the main read is on, but no stage takes it: the job times out"
    if flying != state.field("DPU_FEATURE_MODE_CFG", "flying_mode"):
        yield name, "DPU and DPU_RDMA disagree on flying_mode, where the main input comes from"


def unread_operands(state: State) -> Iterator[Objection]:
    """A stage with an operand from memory waits for ever when no block reads it [I]."""
    reads = "DPU_RDMA" in state.enabled
    from_memory = state.elementwise and state.field("DPU_EW_CFG", "op_source")
    if from_memory and (not reads or state.field("DPU_RDMA_ERDMA_CFG", "disable")):
        yield "DPU_EW_CFG", "the EW operand comes from memory, but ERDMA does not read it"
    bypassed = state.field("DPU_BS_CFG", "bypass") or state.field("DPU_BS_CFG", "alu_bypass")
    from_memory = "DPU" in state.enabled and not bypassed and state.field("DPU_BS_CFG", "alu_source")
    if from_memory and not (reads and state.field("DPU_RDMA_BRDMA_CFG", "data_use")):
        yield "DPU_BS_CFG", "the BS operand comes from memory, but BRDMA does not read it"
    flying = "DPU" in state.enabled and state.field("DPU_FEATURE_MODE_CFG", "flying_mode")
    if flying and (not reads or state.field("DPU_RDMA_FEATURE_MODE_CFG", "mrdma_disable")):
        yield "DPU_FEATURE_MODE_CFG", "the main input comes from memory, but MRDMA does not read it"


def second_stage_operand(state: State) -> Iterator[Objection]:
    """An operand from memory for the second stage hangs [H: GRN]."""
    if "DPU_RDMA" in state.enabled and state.field("DPU_RDMA_NRDMA_CFG", "data_use"):
        yield "DPU_RDMA_NRDMA_CFG", "a BN operand from memory hangs"


def int8_groups(state: State) -> Iterator[Objection]:
    """int8 output with a partial group of 32 channels hangs [H: GRU]."""
    channels = state.field("DPU_DATA_CUBE_CHANNEL", "channels_minus_1") + 1
    out = DPU_PRECISION.get(state.field("DPU_DATA_FORMAT", "out_precision"))
    if state.conv and out is not None and out.name == "int8" and channels % 32:
        yield "DPU_DATA_CUBE_CHANNEL", f"int8 output of {channels} channels: a partial group of 32 hangs"


def notches(state: State) -> Iterator[Objection]:
    """Why there are two is not known; every program has them equal [?]."""
    one, two = (state.field("DPU_DATA_CUBE_NOTCH", f"notch_{i}") for i in (0, 1))
    if "DPU" in state.enabled and one != two:
        yield "DPU_DATA_CUBE_NOTCH", f"the two notches are {one} and {two}; what that means is not known"


def clamped_stride(state: State) -> Iterator[Objection]:
    """A stride clamped at 0 for fewer than four rows makes surfaces four rows apart [I]."""
    if (
        state.conv
        and not state.field("CNA_CONV_CON1", "group_line_off")
        and state.rows < 4
        and state.field("CNA_DMA_CON2", "surface_stride") == 0
    ):
        yield (
            "CNA_DMA_CON2",
            f"surfaces are 4 rows apart, but there are {state.rows}; expected 2^28 - {{4 - rows}}",
        )


def float_elementwise(state: State) -> Iterator[Objection]:
    """A float addition converts its operand, a multiplication does not [H]."""
    processing = DPU_PRECISION.get(state.field("DPU_DATA_FORMAT", "proc_precision"))
    if not state.elementwise or processing is None or processing.name not in ("fp16", "bf16", "fp32"):
        return
    bypass = state.field("DPU_EW_CFG", "op_cvt_bypass")
    multiplies = state.field("DPU_EW_CFG", "op_type")
    if not multiplies and state.field("DPU_EW_CFG", "alu_algorithm") == ADD and bypass:
        yield "DPU_EW_CFG", "a float addition needs the operand conversion (op_cvt_bypass 0)"
    if multiplies and not bypass:
        yield "DPU_EW_CFG", "a float multiplication needs the operand conversion bypassed"


def compressed_weights(state: State) -> Iterator[Objection]:
    """Only one source describes the decompressor [X]."""
    if state.conv and (control := state.field("CNA_DCOMP_CTRL", "control")):
        yield "CNA_DCOMP_CTRL", f"weight decompression {control} is on; nothing here models it"


def unaligned_addresses(state: State) -> Iterator[Objection]:
    """Addresses are multiples of 16 [H]."""
    for name, value in state.values.items():
        register = REGISTERS[name]
        if (
            register.fields[0].name == "address"
            and register.block.name in state.enabled
            and value % ATOM_BYTES
        ):
            yield name, f"{value:#x} is not a multiple of {ATOM_BYTES}"


def bits_without_name(state: State) -> Iterator[Objection]:
    """Bits that no field has."""
    for name, value in state.values.items():
        if rest := unnamed_bits(REGISTERS[name], value):
            yield name, f"bits {rest:#x} belong to no known field"


def kernel_registers(state: State) -> Iterator[Objection]:
    """Group pointers of CNA and CORE are the driver's; gating can stop the job [I], [H]."""
    for name in ("CNA_S_POINTER", "CORE_S_POINTER"):
        if name in state.values:
            yield name, "the kernel driver owns this pointer; a stream that writes it breaks cores 1 and 2"
    if "CORE_MAC_GATING" in state.values:
        yield "CORE_MAC_GATING", "leave clock gating at its reset value: a wrong bit stops the job"


RULES: Final[tuple[Callable[[State], Iterator[Objection]], ...]] = (
    bank_sum,
    activations_fit,
    kernels_fit,
    spare_bank,
    fully_connected_bank,
    reuse,
    ceilings,
    grains,
    long_tf32,
    main_read,
    unread_operands,
    second_stage_operand,
    int8_groups,
    notches,
    clamped_stride,
    float_elementwise,
    compressed_weights,
    unaligned_addresses,
    bits_without_name,
    kernel_registers,
)
