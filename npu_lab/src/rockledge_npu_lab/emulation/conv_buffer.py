"""What a tile takes of the convolution buffer (CBUF): banks, in entries of 64 bytes."""

from __future__ import annotations

from typing import Final

from rockledge.board.boards import PROGRAMMED
from rockledge.npu import isa
from rockledge.npu.layout import NATIVE
from rockledge_npu_lab.emulation.faults import StreamError
from rockledge_npu_lab.emulation.options import BadBuffer, SpareBank
from rockledge_npu_lab.emulation.register_file import Snapshot

BANKS: Final = int(PROGRAMMED.value("npu_cbuf_banks"))
BANK_BYTES: Final = int(PROGRAMMED.value("npu_cbuf_bank_bytes"))
ENTRY_BYTES: Final = 64


def gives_zeros(
    registers: Snapshot,
    kind: isa.Precision,
    cbuf: dict[str, int],
    width: int,
    height: int,
    channels: int,
    depthwise: bool,
) -> bool:
    """Whether a wrong split of the buffer gives zeros, by the option; else it raises StreamError."""
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
        # Authors keep one group, doubled for streaming; the effect of a smaller share is not known.
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


def lacks_spare_bank(
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
