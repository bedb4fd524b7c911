"""The Raspberry Pi 5: four A76 without an NPU, a second board to show that the model is not one chip's.

How fast its memory is read is derived from what others measured: tokens/s times the bytes that a token reads.
"""

from rockledge.board.chip import Chip, Memory, OperatingPoints
from rockledge.board.cycles import CYCLE_FACTS
from rockledge.board.facts import Fact
from rockledge.board.npu_facts import A76_FACTS
from rockledge.board.reserves import RESERVE_FACTS

_SHEET = "Raspberry Pi 5 product brief"
_REVIEW = "geerlingguy/sbc-reviews#21"
_SBC = "ThomasKaiser/sbc-bench results/reviews/RPi-5B-Rev1.0.md"
_A76 = "Arm Cortex-A76 Software Optimization Guide"
_DOCUMENTATION = "Raspberry Pi documentation, frequency management and thermal control"

FACTS: dict[str, Fact] = {
    "cpu_cores": Fact(4, "cores", f"{_SHEET}: BCM2712, 4 x Cortex-A76", "published"),
    "cpu_hz": Fact(2.4e9, "Hz", _SHEET, "published"),
    "cpu_decode_width": Fact(4, "instructions/cycle", _A76, "published"),
    "cpu_vector_pipes": Fact(2, "128-bit operations/cycle", f"{_A76}: sdot, tbl, logic", "published"),
    "cpu_l2_bytes": Fact(524288, "B/core", _SHEET, "published"),
    "cpu_l3_bytes": Fact(2 << 20, "B", f"{_SHEET}: shared by all cores", "published"),
    **CYCLE_FACTS,
    **A76_FACTS,
    "dram_theoretical": Fact(17.07e9, "B/s", f"{_SHEET}: LPDDR4x, 4267 MT/s x 32 bit", "published"),
    "dram_random_ns": Fact(
        157, "ns", f"{_SBC}: 128 MiB, one A76; 139 for 16 MiB", "published", spread=(157, 173)
    ),
    "cpu_read_bandwidth_1_core": Fact(11.85e9, "B/s", f"{_SBC}: memchr", "published"),
    "cpu_read_bandwidth": Fact(
        10.2e9,
        "B/s",
        f"tok/s x bytes read: Llama 3.1 8B in 4 bits 2.17 x 4.7 GB, Llama 3.2 3B 4.88 x 2.0 GB ({_REVIEW}), "
        "5.55 x 2.02 GB (geerlingguy/ai-benchmarks)",
        "derived",
        spread=(9.8e9, 11.2e9),
    ),
    "disk_read_bandwidth_sd": Fact(
        8.5e7,
        "B/s from a disk",
        "40 to 85 MB/s with good cards (evezone.evetech.co.za); SDR104 moves 104",
        "published",
        spread=(4.0e7, 1.04e8),
    ),
    "disk_read_bandwidth_nvme": Fact(
        4.2e8,
        "B/s from a disk",
        "one lane of PCIe 2.0, 0.5 GB/s: 416 MB/s read at such a lane (geerlingguy/raspberry-pi-pcie-devices"
        "#355), 730 in the mode of PCIe 3.0 that has to be turned on (#631)",
        "published",
        spread=(4.0e8, 7.3e8),
    ),
    **RESERVE_FACTS,
    "passive_trip_celsius": Fact(80, "°C", f"{_DOCUMENTATION}: clocks fall from there on", "published"),
    "second_trip_celsius": Fact(85, "°C", f"{_DOCUMENTATION}: they fall further", "published"),
    "cpu_decode_watts": Fact(
        11.9,
        "W at the wall",
        f"language models, the whole board: 11.6-11.9 W ({_REVIEW}), up to 13.9 (geerlingguy/ai-benchmarks)",
        "published",
        spread=(11.6, 13.9),
    ),
}

CHIP = Chip(
    name="rpi5",
    title="Raspberry Pi 5",
    compatible=("raspberrypi,5-model-b", "brcm,bcm2712"),
    decode_cores=range(4),
    facts=FACTS,
    operating_points={"cpu_hz": OperatingPoints((1.5e9, 2.4e9), f"{_DOCUMENTATION}: idle and busy")},
)
MEMORIES = (Memory(gib=(2, 4, 8, 16)),)
