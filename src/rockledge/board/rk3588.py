"""The facts of the RK3588: one table, every row with its unit, source and confidence.

Bandwidths are bytes of weights streamed per second, so GB means 1e9 bytes; memory sizes are plain bytes.
"""

from rockledge.board.cycles import CYCLE_FACTS
from rockledge.board.facts import Fact
from rockledge.board.npu_facts import NPU_FACTS

_GIB = float(1 << 30)

# Public documents and projects that more than one row leans on.
_A76 = "Arm Cortex-A76 Software Optimization Guide"
_TRM = "RK3588 technical reference manual"
_DEVICE_TREE = "vendor device tree of the RK3588"
_ORK = "oRKLLM/ork-driver docs/FEASIBILITY-LOG.md (ROCK 5B, LPDDR4x)"
_RKLLAMA = "unimatrix099/rk-llama.cpp docs/backend/RKNPU2-decode-research.md (Orange Pi 5 Ultra, LPDDR5)"
_NOTES = "gregordinary/rockchip-npu-notes"
_INVISI = "invisiofficial/rk-llama.cpp README"

FACTS: dict[str, Fact] = {
    # Processor cores that decode.
    "cpu_cores": Fact(4, "cores", "RK3588 data sheet: 4 x Cortex-A76 (and 4 x Cortex-A55)", "specified"),
    "cpu_hz": Fact(
        2.2e9,
        "Hz",
        f"{_DEVICE_TREE}: up to 2.4 GHz, which 64 % of boards reach ({_NOTES} perf/clock.md); taken lower",
        "measured elsewhere",
    ),
    "cpu_decode_width": Fact(4, "instructions/cycle", _A76, "specified"),
    "cpu_vector_pipes": Fact(2, "128-bit operations/cycle", f"{_A76}: sdot, tbl, logic", "specified"),
    **CYCLE_FACTS,
    # Memory.
    "dram_theoretical_lpddr4x": Fact(33.8e9, "B/s", "4224 MT/s x 64 bit", "specified"),
    "dram_theoretical_lpddr5": Fact(44.0e9, "B/s", "5500 MT/s x 64 bit", "specified"),
    "cpu_read_bandwidth": Fact(
        24.0e9, "B/s", f"four A76 streaming weights, 24-25 GB/s: {_ORK}; {_RKLLAMA}", "measured elsewhere"
    ),
    "cpu_read_bandwidth_llamacpp_8b_q8_0": Fact(
        22.3e9, "B/s", f"bytes read x tok/s in {_NOTES} perf/data/ministral3-8b.md (Turing RK1)", "derived"
    ),
    "npu_read_bandwidth": Fact(28.5e9, "B/s", f"{_ORK}; 26.6-28.6 in {_RKLLAMA}", "measured elsewhere"),
    "cpu_and_npu_read_bandwidth": Fact(29.5e9, "B/s", f"29-30 GB/s: {_RKLLAMA}", "measured elsewhere"),
    # The NPU.
    "npu_cores": Fact(3, "cores", _TRM, "specified"),
    "npu_hz": Fact(1.0e9, "Hz", f"{_DEVICE_TREE}: highest operating point, 0.85 V", "specified"),
    "npu_int8_macs_per_cycle": Fact(1024, "MAC/cycle/core", _TRM, "specified"),
    "npu_cbuf_bytes": Fact(393216, "B/core", f"{_TRM}: 12 banks x 32 KiB", "specified"),
    "npu_int8_ops_matmul": Fact(
        1.4e12, "op/s", f"best published single int8 matmul, M=512 K=2048: {_ORK}", "measured elsewhere"
    ),
    "npu_submit_seconds": Fact(
        100e-6,
        "s",
        f"blocking submit, vendor driver, 100-167 us: oRKLLM/ork-driver; mainline rocket 27-54 us: "
        f"{_NOTES} perf/iova-and-multicore.md",
        "measured elsewhere",
    ),
    **NPU_FACTS,
    "npu_address_window": Fact(4 * _GIB, "B", f"{_TRM}: registers hold 32-bit addresses", "specified"),
    "npu_buffers_most": Fact(
        3.5 * _GIB,
        "B",
        "the address window less what fragments with uptime (gregordinary/rknpu-submit README)",
        "derived",
    ),
    "npu_buffers_least": Fact(
        0.25 * _GIB, "B", "a ring of int8 tiles for three cores, inputs and outputs of 512 rows", "assumed"
    ),
    "npu_buffers_spare": Fact(
        1.0e9,
        "B",
        "left free where NPU buffers would fill the memory: weights that stay unpacked gain little, an 8B on "
        "8 GB stays below 6.5 GB",
        "assumed",
    ),
    # What other software on a gateway uses.
    "firmware_reserve": Fact(0.25 * _GIB, "B", "8 GB boards show about 7.75 GiB to Linux", "assumed"),
    "os_reserve": Fact(1.0e9, "B", "Linux and a gateway's own services, 0.6-1.0 GB", "assumed"),
    "process_reserve": Fact(
        0.2e9, "B", "Python, NumPy, tokenizer and server, without weights, KV cache and arena", "assumed"
    ),
    # Temperature and power (no public throttle curve for language models on this chip exists).
    "passive_trip_celsius": Fact(75, "°C", f"{_DEVICE_TREE}: passive trips at 75 and 85 °C", "specified"),
    "sustainable_power_watts": Fact(2.1, "W", f"{_DEVICE_TREE}: thermal zone of the SoC", "specified"),
    "cpu_decode_watts": Fact(7.0, "W over idle", f"6.2-8.0 W: {_INVISI}", "measured elsewhere"),
    "npu_decode_watts": Fact(3.4, "W over idle", f"2.8-4.0 W: {_INVISI}", "measured elsewhere"),
}
