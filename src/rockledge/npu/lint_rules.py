"""What is suspicious in the registers of one program, rule by rule, each with who found it out.

A rule looks at the register values that a program starts its blocks with, and yields the register that it
objects to with a reason. Nothing here knows words, chains or where a value came from; `lint.py` does.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rockledge.npu.isa import (
    CNA_PRECISION,
    DPU_PRECISION,
    REGISTERS,
    Precision,
    decode,
    unnamed_bits,
)
from rockledge.npu.layout import ATOM_BYTES, NATIVE, Native

BANKS: Final = 12
BANK_BYTES: Final = 32768
DEPTHWISE: Final = 3
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
# Rows, and the multiples of 32 inputs, whose int8 product is wrong without a spare data bank [H].
NEED_SPARE_BANK: Final = {
    144: {7, 21, 35},
    192: {5, 21, 37},
    240: {17, 21, 25, 29},
}

Objection = tuple[str, str]


@dataclass(frozen=True)
class State:
    """The register values that one program runs with, and the blocks that it starts."""

    values: Mapping[str, int]
    enabled: frozenset[str]

    def field(self, register: str, field: str) -> int:
        """A field's value; 0 for a register that nothing has written."""
        return decode(register, self.values.get(register, 0))[field]

    @property
    def conv(self) -> bool:
        """Whether the multipliers run."""
        return "CNA" in self.enabled

    @property
    def depthwise(self) -> bool:
        return self.field("CNA_CONV_CON1", "conv_mode") == DEPTHWISE

    @property
    def input_type(self) -> Precision | None:
        """The type that CNA reads; None for a code that means nothing."""
        return CNA_PRECISION.get(self.field("CNA_CONV_CON1", "in_precision"))

    @property
    def type_name(self) -> str | None:
        """The name of that type."""
        return self.input_type.name if self.input_type else None

    @property
    def native(self) -> Native | None:
        """The native layout of that type."""
        return NATIVE.get(self.type_name or "")

    @property
    def rows(self) -> int:
        """Pixels of the input cube."""
        return self.field("CNA_DATA_SIZE0", "width") * self.field("CNA_DATA_SIZE0", "height")

    @property
    def inputs(self) -> int:
        return self.field("CNA_DATA_SIZE1", "channels")

    @property
    def kernels(self) -> int:
        return self.field("CNA_WEIGHT_SIZE2", "kernels")

    @property
    def lut(self) -> bool:
        """Whether the tables are in use."""
        return not (self.field("DPU_EW_CFG", "bypass") or self.field("DPU_EW_CFG", "lut_bypass"))

    @property
    def elementwise(self) -> bool:
        """Whether the EW stage computes with an operand."""
        ew = decode("DPU_EW_CFG", self.values.get("DPU_EW_CFG", 0))
        return not (ew["bypass"] or ew["op_bypass"]) and not self.lut


def objections(state: State) -> Iterator[Objection]:
    """Every register that some rule objects to, with the reason."""
    for rule in RULES:
        yield from rule(state)


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
    """Certain int8 sizes read one data bank beyond the ones they fill [H: GRN]."""
    if not state.conv or state.depthwise or state.type_name != "int8":
        return
    filled = -(-state.rows * state.inputs // BANK_BYTES)
    known_bad = state.inputs // 32 in NEED_SPARE_BANK.get(state.rows, ())
    if known_bad and state.field("CNA_CBUF_CON0", "data_bank") <= filled:
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


def channel_fields(state: State) -> Iterator[Objection]:
    """The two channel fields of one register say the same."""
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
        yield "CNA_CONV_CON1", f"in_precision {code} is no type"
        return
    for register in ("CNA_CONV_CON1", "CORE_MISC_CFG"):
        if (other := state.field(register, "proc_precision")) != code:
            yield register, f"proc_precision is {other}, but the inputs are {name} ({code})"
    wanted = "fp32" if name == "tf32" else name
    for field in ("in_precision", "proc_precision"):
        found = DPU_PRECISION.get(state.field("DPU_DATA_FORMAT", field))
        if found is None or found.name != wanted:
            yield "DPU_DATA_FORMAT", f"{field} is not {wanted}, the type that goes with {name} inputs"


def cubes(state: State) -> Iterator[Objection]:
    """CORE, DPU and DPU_RDMA describe the same cube."""
    if "DPU" not in state.enabled:
        return
    width = state.field("DPU_DATA_CUBE_WIDTH", "width_minus_1") + 1
    height = state.field("DPU_DATA_CUBE_HEIGHT", "height_minus_1") + 1
    channels = state.field("DPU_DATA_CUBE_CHANNEL", "channels_minus_1") + 1
    if state.conv:
        core = tuple(
            state.field("CORE_DATAOUT_SIZE_0", f"{side}_minus_1") + 1 for side in ("width", "height")
        )
        if core != (width, height):
            yield (
                "CORE_DATAOUT_SIZE_0",
                f"CORE makes {core[0]} x {core[1]} pixels, DPU takes {width} x {height}",
            )
        made = state.field("CORE_DATAOUT_SIZE_1", "channels_minus_1") + 1
        if made != channels:
            yield "CORE_DATAOUT_SIZE_1", f"CORE makes {made} channels, DPU takes {channels}"
        if not state.depthwise and state.kernels != made:
            yield "CNA_WEIGHT_SIZE2", f"{state.kernels} kernels, but CORE makes {made} channels"
        pixels = state.field("CNA_DATA_SIZE3", "output_pixels")
        if pixels != width * height:
            yield "CNA_DATA_SIZE3", f"{pixels} output pixels, but DPU takes {width} x {height}"
    written = tuple(state.field("DPU_WDMA_SIZE_1", f"{side}_minus_1") + 1 for side in ("width", "height"))
    if written != (width, height) and not state.field("DPU_BS_OW_CFG", "tp_org_en"):
        yield "DPU_WDMA_SIZE_1", f"{written[0]} x {written[1]} pixels are written of {width} x {height}"
    if "DPU_RDMA" in state.enabled:
        read = (
            state.field("DPU_RDMA_DATA_CUBE_WIDTH", "width_minus_1") + 1,
            state.field("DPU_RDMA_DATA_CUBE_HEIGHT", "height_minus_1") + 1,
        )
        if read != (width, height):
            side = "WIDTH" if read[0] != width else "HEIGHT"
            yield (
                f"DPU_RDMA_DATA_CUBE_{side}",
                f"operands are {read[0]} x {read[1]} pixels of {width} x {height}",
            )


def main_read(state: State) -> Iterator[Objection]:
    """DPU_RDMA started with its main read on, and nobody to take the data, times out [H: GRN]."""
    name = "DPU_RDMA_FEATURE_MODE_CFG"
    if "DPU_RDMA" not in state.enabled:
        return
    flying = state.field(name, "flying_mode")
    if not (flying or state.field(name, "mrdma_disable") or state.field(name, "comb_use")):
        yield name, "the main read is on, but no stage takes it: the job times out"
    if flying != state.field("DPU_FEATURE_MODE_CFG", "flying_mode"):
        yield name, "DPU and DPU_RDMA disagree on flying_mode, where the main input comes from"


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
    """Nobody knows why there are two; every program has them equal [?]."""
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
            yield name, f"{value:#x} is no multiple of {ATOM_BYTES}"


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
    channel_fields,
    alignment,
    precisions,
    cubes,
    main_read,
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
