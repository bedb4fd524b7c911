"""The RK3588 and its boards: every row with its unit, source and kind.

Bandwidths are bytes of weights streamed per second, so GB means 1e9 bytes; memory sizes are plain bytes.
The spread of the rate at which one A76 reads is that of ThomasKaiser/sbc-bench (commit 53f7951, memchr of
results/*.txt) over nine boards. What four of them read together was published for two boards only; its low
end is derived: the likely rate, as much lower as the slowest board's core is below the median one.
"""

from rockledge.board.chip import Chip, Memory, OperatingPoints
from rockledge.board.cycles import CYCLE_FACTS
from rockledge.board.facts import Fact
from rockledge.board.npu_facts import A76_FACTS, NPU_FACTS
from rockledge.board.npu_operator_facts import NPU_OPERATOR_FACTS
from rockledge.board.reserves import GIB, RESERVE_FACTS
from rockledge.board.rk3588_heat import COOLINGS, POWER

# Public documents and projects that more than one row leans on.
_A76 = "Arm Cortex-A76 Software Optimization Guide"
_TRM = "RK3588 technical reference manual"
_SHEET = "RK3588 data sheet"
_DEVICE_TREE = "vendor device tree of the RK3588"
_ORK = "oRKLLM/ork-driver docs/FEASIBILITY-LOG.md (ROCK 5B, LPDDR4x)"
_RKLLAMA = "unimatrix099/rk-llama.cpp docs/backend/RKNPU2-decode-research.md (Orange Pi 5 Ultra, LPDDR5)"
_NOTES = "gregordinary/rockchip-npu-notes"
_INVISI = "invisiofficial/rk-llama.cpp README"
_SBC = "ThomasKaiser/sbc-bench results"

_SLOWEST_CORE, _MEDIAN_CORE, _FASTEST_CORE = 12.308e9, 16.241e9, 18.492e9
_FOUR_CORES = 24.0e9
_SLOW_FOUR = round(_FOUR_CORES * _SLOWEST_CORE / _MEDIAN_CORE, -8)

FACTS: dict[str, Fact] = {
    # Processor cores that decode, and those that do not.
    "cpu_cores": Fact(4, "cores", f"{_SHEET}: 4 x Cortex-A76 (and 4 x Cortex-A55)", "published"),
    "little_cores": Fact(4, "cores", f"{_SHEET}: 4 x Cortex-A55", "published"),
    "cpu_hz": Fact(
        2.2e9,
        "Hz",
        f"{_DEVICE_TREE}: up to 2.4 GHz, which 64 % of boards reach ({_NOTES} perf/clock.md); taken lower",
        "published",
        spread=(2.2e9, 2.4e9),
    ),
    "little_hz": Fact(1.8e9, "Hz", f"{_DEVICE_TREE}: highest operating point of the A55", "published"),
    "cpu_idle_exit_seconds": Fact(
        220e-6, "s", f"from the deep idle state: {_NOTES} perf/cpu-governor-and-offload.md", "published"
    ),
    "cpu_decode_width": Fact(4, "instructions/cycle", _A76, "published"),
    "cpu_vector_pipes": Fact(2, "128-bit operations/cycle", f"{_A76}: sdot, tbl, logic", "published"),
    "cpu_l1_bytes": Fact(65536, "B/core", f"{_SHEET}: data cache of an A76", "published"),
    "cpu_l2_bytes": Fact(524288, "B/core", f"{_SHEET}: of an A76", "published"),
    "cpu_l3_bytes": Fact(3 << 20, "B", f"{_SHEET}: shared by all cores", "published"),
    "system_sram_bytes": Fact(
        978944, "B", f"{_TRM}: at 0xff001000, by default the video decoders'", "published"
    ),
    **CYCLE_FACTS,
    **A76_FACTS,
    # Memory.
    "cpu_read_bandwidth_1_core": Fact(
        _MEDIAN_CORE,
        "B/s",
        f"{_SBC}: the median of nine boards",
        "published",
        spread=(_SLOWEST_CORE, _FASTEST_CORE),
    ),
    "cpu_read_bandwidth_2_cores": Fact(
        _FOUR_CORES,
        "B/s",
        "twice the rate of one A76, but no more than four read together",
        "derived",
        spread=(_SLOW_FOUR, 25.0e9),
    ),
    "cpu_read_bandwidth": Fact(
        _FOUR_CORES,
        "B/s",
        f"four A76 streaming weights, 24-25 GB/s: {_ORK}; {_RKLLAMA}; low end derived",
        "published",
        spread=(_SLOW_FOUR, 25.0e9),
    ),
    "cpu_read_bandwidth_llamacpp_8b_q8_0": Fact(
        22.3e9, "B/s", f"bytes read x tok/s in {_NOTES} perf/data/ministral3-8b.md (Turing RK1)", "derived"
    ),
    "little_read_bandwidth_1_core": Fact(
        3.0e9, "B/s", f"{_SBC}: one A55, 2.8-3.3 GB/s", "published", spread=(2.8e9, 3.3e9)
    ),
    "npu_read_bandwidth": Fact(
        28.5e9, "B/s", f"{_ORK}; 26.6-28.6 in {_RKLLAMA}", "published", spread=(26.6e9, 28.6e9)
    ),
    "cpu_and_npu_read_bandwidth": Fact(29.5e9, "B/s", f"29-30 GB/s: {_RKLLAMA}", "published"),
    # Disks, whatever is plugged in: the limits of the ports are published, what is behind them is not known.
    "disk_read_bandwidth_sd": Fact(
        8.0e7,
        "B/s from a disk",
        "SD 3.0 in mode SDR104 moves 104 MB/s; good cards read 40 to 85 MB/s at such a port (published for a "
        "Raspberry Pi 5 by evezone.evetech.co.za)",
        "assumed",
        spread=(4.0e7, 1.04e8),
    ),
    "disk_read_bandwidth_emmc": Fact(
        2.5e8,
        "B/s from a disk",
        f"{_SHEET}: eMMC 5.1 in mode HS400 moves 400 MB/s; that modules read five eighths of it is assumed",
        "assumed",
        spread=(1.5e8, 4.0e8),
    ),
    "disk_read_bandwidth_nvme": Fact(
        1.5e9,
        "B/s from a disk",
        f"{_TRM}: PCIe 3.0 of four lanes moves 3.9 GB/s, of which drives are assumed to reach 3; boards with "
        "an RK3588S have one lane of PCIe 2.0, half of which reads 204 MB/s "
        "(Joshua-Riek/ubuntu-rockchip#195)",
        "assumed",
        spread=(4.0e8, 3.0e9),
    ),
    # The NPU.
    "npu_cores": Fact(3, "cores", _TRM, "published"),
    "npu_hz": Fact(1.0e9, "Hz", f"{_DEVICE_TREE}: highest operating point, 0.85 V", "published"),
    "npu_int8_macs_per_cycle": Fact(
        1024,
        "MAC/cycle/core",
        f"{_TRM}; 1.8 of 2.05 Top/s by one core through the closed API (clehaxze's benchmark in "
        "allbilly/rk3588)",
        "published",
        spread=(879, 1024),
    ),
    "npu_cbuf_banks": Fact(12, "banks/core", _TRM, "published"),
    "npu_cbuf_bank_bytes": Fact(32768, "B/bank", _TRM, "published"),
    "npu_int8_ops_matmul": Fact(
        1.4e12, "op/s", f"best published single int8 matmul, M=512 K=2048: {_ORK}", "published"
    ),
    "npu_submit_seconds": Fact(
        100e-6,
        "s",
        f"blocking submit, vendor driver, 100-167 us: oRKLLM/ork-driver; mainline rocket 27-54 us: "
        f"{_NOTES} perf/iova-and-multicore.md",
        "published",
        spread=(100e-6, 167e-6),
    ),
    **NPU_FACTS,
    **NPU_OPERATOR_FACTS,
    "npu_address_window": Fact(4 * GIB, "B", f"{_TRM}: registers hold 32-bit addresses", "published"),
    "npu_buffers_most": Fact(
        3.5 * GIB,
        "B",
        "the address window less what fragments with uptime (gregordinary/rknpu-submit README)",
        "derived",
    ),
    "npu_buffers_least": Fact(
        0.25 * GIB, "B", "a ring of int8 tiles for three cores, inputs and outputs of 512 rows", "assumed"
    ),
    "npu_buffers_spare": Fact(
        1.0e9,
        "B",
        "left free where NPU buffers would fill the memory: weights that stay unpacked gain little, an 8B on "
        "8 GB stays below 6.5 GB",
        "assumed",
    ),
    **RESERVE_FACTS,
    # Temperature and power (no public throttle curve for language models on this chip exists).
    "passive_trip_celsius": Fact(75, "°C", f"{_DEVICE_TREE}: passive trips at 75 and 85 °C", "published"),
    "second_trip_celsius": Fact(85, "°C", f"{_DEVICE_TREE}: passive trips at 75 and 85 °C", "published"),
    "trip_hysteresis": Fact(2, "K", f"{_DEVICE_TREE}: of the trip at 75 °C", "published"),
    "unthrottled_cpu_hz": Fact(
        2.208e9, "Hz", f"{_SBC}/4qJG.txt: eight busy cores until 73.9-74.8 °C", "published"
    ),
    "throttled_cpu_hz": Fact(1.008e9, "Hz", f"{_SBC}/4qJG.txt: what they flip to there", "published"),
    "sustainable_power_watts": Fact(2.1, "W", f"{_DEVICE_TREE}: thermal zone of the SoC", "published"),
    "idle_watts": Fact(
        1.49,
        "W at the wall",
        f"{_SBC}, reviews/Radxa-Rock-5B.md: all governors at powersave; 0.41 W more with memory at full "
        "speed",
        "published",
        spread=(1.49, POWER.idle.value),
    ),
    "cpu_decode_watts": Fact(7.0, "W over idle", f"6.2-8.0 W: {_INVISI}", "published", spread=(6.2, 8.0)),
    "npu_decode_watts": Fact(3.4, "W over idle", f"2.8-4.0 W: {_INVISI}", "published", spread=(2.8, 4.0)),
}

_LITTLE_HZ = (408e6, 600e6, 816e6, 1008e6, 1200e6, 1416e6, 1608e6, 1800e6)

CHIP = Chip(
    name="rk3588",
    title="RK3588",
    compatible=("rockchip,rk3588", "rockchip,rk3588s", "rockchip,rk3588s2", "rockchip,rk3588j"),
    decode_cores=range(4, 8),
    facts=FACTS,
    operating_points={
        "cpu_hz": OperatingPoints(
            (*_LITTLE_HZ, 2016e6, 2208e6, 2256e6, 2304e6, 2352e6, 2400e6), _DEVICE_TREE
        ),
        "little_hz": OperatingPoints(_LITTLE_HZ, _DEVICE_TREE),
        "npu_hz": OperatingPoints((3e8, 4e8, 5e8, 6e8, 7e8, 8e8, 9e8, 1e9), _DEVICE_TREE),
    },
    power=POWER,
    coolings=COOLINGS,
    npu_node="rockchip,rk3588-rknn-core",
)

LPDDR4X = Memory(
    gib=(4, 8, 16, 32),
    suffix="lpddr4x",
    facts={
        "dram_theoretical": Fact(33.8e9, "B/s", "4224 MT/s x 64 bit", "published"),
        "dram_random_ns": Fact(
            125, "ns", f"{_SBC}: 64 MiB, one A76; 227 under dmc_ondemand", "published", spread=(114, 134)
        ),
    },
    operating_points={
        "dram_hz": OperatingPoints((528e6, 1068e6, 1560e6, 2112e6), f"{_SBC}: the memory's controller"),
    },
)
LPDDR5 = Memory(
    gib=(4, 8, 16, 32),
    suffix="lpddr5",
    facts={
        "dram_theoretical": Fact(44.0e9, "B/s", "5500 MT/s x 64 bit", "published"),
        "dram_random_ns": Fact(140, "ns", f"{_SBC}: 64 MiB, one A76", "published", spread=(133, 140)),
        # The fabric binds: a core reads no faster than with LPDDR4x.
        "cpu_read_bandwidth_1_core": Fact(
            15.625e9, "B/s", f"{_SBC}: the median of three boards", "published", spread=(15.575e9, 17.607e9)
        ),
        "npu_read_bandwidth": Fact(
            26.6e9, "B/s", f"26.6-28.6: {_RKLLAMA}", "published", spread=(26.6e9, 28.6e9)
        ),
    },
    operating_points={
        "dram_hz": OperatingPoints(
            (534e6, 1320e6, 1968e6, 2400e6, 2736e6), f"{_SBC}: not all on every board"
        ),
    },
)
_HALF = (
    "half of what others read: airockchip/rknn-llm#409 reports half the published speed of 8 GB boards. The "
    "thread suspects a 32-bit bus, which nobody has proven"
)
_HALVED = (
    "cpu_read_bandwidth_1_core", "cpu_read_bandwidth_2_cores", "cpu_read_bandwidth", "npu_read_bandwidth",
    "cpu_and_npu_read_bandwidth", "npu_core_bandwidth", "npu_bus_bandwidth",
)  # fmt: skip
SLOW = Memory(
    gib=(8,),
    suffix="slow",
    facts={
        name: Fact(FACTS[name].value / 2, FACTS[name].unit, _HALF, "derived", spread=None) for name in _HALVED
    },
)
MEMORIES = (Memory(gib=(4, 8, 16, 32)), LPDDR4X, LPDDR5, SLOW)
