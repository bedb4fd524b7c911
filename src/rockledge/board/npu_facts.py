"""Facts behind the time of prompts: what an A76 does around linears and the NPU, and what the NPU moves.

Cycles marked `llvm-mca` are those of loops of native/neon.cpp, simulated as `bench/kernel_cycles.py` does
(Neoverse N1, never fewer than a quarter of the instructions). `derived` ones without it count operations.
"""

from rockledge.board.facts import Fact

_MCA = "llvm-mca 19, neoverse-n1, on native/neon.cpp"

UNPACK_CYCLES = {2: 35.01, 3: 41.02, 4: 36.34, 8: 26.02}
"""Cycles that turn the codes of one tile of 8 x 32 weights into the int8 blocks that the CPU multiplies, by
bits: the loop `unpack_tiles`."""
APART_CYCLES = {2: 30.01, 3: 34.02, 4: 30.52, 8: 26.02}
"""The same into the NPU's layout: the loop `unpack_tiles_apart`."""
LOOP_CYCLES = {
    "keys": 16.01,
    "scores": 34.01,
    "weights": 36.02,
    "weight codes": 10.02,
    "values": 16.01,
    "value sums": 55.52,
    "hadamard in registers": 6.01,
    "hadamard steps": 30.02,
    "hadamard scale": 3.01,
    "largest": 4.01,
    "codes": 9.02,
    "codes, two planes": 20.02,
    "sums of a part": 2.01,
    "epilogue": 12.5,
    "epilogue, two planes": 21.02,
}
"""Cycles of one round. For one row's four heads of a group: products of 8 positions with 16 inputs of a query
each; 8 of these products scaled to scores each, and the largest kept. For one query: 16 scores made weights,
and 16 weights made codes of two planes. For two queries: both planes of 8 positions times 16 columns of the
values; and once a split, their sums made floats. A Hadamard's steps 1 to 3 on 8 elements, three later steps
on 64, scaling of 8. Quantisation of 16 elements into the NPU's layout: the largest, the codes. 8 sums of the
NPU to floats, bias and residual included, and 8 sums of a further input part added. What else leads into
loops and out of them is not counted."""
VALUE_QUERIES = 2
"""Queries that share a walk over values (kValueQueries of native/neon.cpp)."""
SPLIT = 512
"""Positions whose values are added up as integers (kSplit of native/kernels.hpp)."""
EPILOGUE_INSTRUCTIONS = (7.47, 1.13)
"""Instructions of finish_lane for one float: from one part's sums, residual and check sum included; for every
further part. At four a cycle they take longer than llvm-mca gives the loop (12.5 cycles for 8), because of
what every row of 32 columns begins with."""
_COUNTED = "instructions counted by bench/npu_cpu.py, four a cycle: finish_lane of native/lane.hpp"

NPU_FACTS: dict[str, Fact] = {
    # The bus.
    "npu_bus_bandwidth": Fact(
        26.0e9,
        "B/s",
        "all that the DRAM moves while the NPU works: 26.6 GB/s by three cores (unimatrix099/rk-llama.cpp "
        "docs/backend/RKNPU2-decode-research.md), 25.7-28.4 derived from airockchip/rknn-llm's decoding; "
        "oRKLLM/ork-driver met a ceiling of about 22",
        "published",
        spread=(22.0e9, 28.4e9),
    ),
    "npu_core_bandwidth": Fact(
        11.1e9,
        "B/s/core",
        "one core alone: unimatrix099/rk-llama.cpp docs/backend/RKNPU2-decode-research.md; 8.6-8.8 GB/s in "
        "oRKLLM/ork-driver",
        "published",
        spread=(8.6e9, 11.1e9),
    ),
    "npu_program_bytes": Fact(
        864.0, "B/program", "a matmul body of 104 words and 4 of trailer (mtx512/rk3588-npu)", "published"
    ),
    # Cache maintenance by the CPU, before and after the NPU.
    "cpu_cache_sync_bandwidth": Fact(
        20.0e9,
        "B/s/core",
        "clean or invalidate by address: 112 ms less for 8 slices x 10 jobs x 4 syncs of 1 instead of 8 MB"
        " (gregordinary/rockchip-npu-notes perf/bo-sync-cost.md); that there are 8 slices is inferred",
        "derived",
    ),
    "npu_sync_call_seconds": Fact(
        5e-6,
        "s",
        "at most 52 ms for 21 x 126 jobs x 4 syncs of small buffers, bytes included, mainline (same page); "
        "taken for the vendor's driver too",
        "derived",
    ),
}
"""Of the RK3588: its NPU, its bus and its kernel's driver."""

A76_FACTS: dict[str, Fact] = {
    **{
        f"cpu_unpack_cycles_per_weight_{bits}_bits": Fact(
            cycles / 256, "cycles/weight", f"{_MCA}: unpack_tiles<{bits}>", "derived"
        )
        for bits, cycles in UNPACK_CYCLES.items()
    },
    **{
        f"cpu_unpack_for_npu_cycles_per_weight_{bits}_bits": Fact(
            cycles / 256, "cycles/weight", f"{_MCA}: unpack_tiles_apart<{bits}>", "derived"
        )
        for bits, cycles in APART_CYCLES.items()
    },
    "cpu_attention_cycles_per_score_mac": Fact(
        LOOP_CYCLES["keys"] / 512, "cycles/MAC", f"{_MCA}: multiply_rows<4>", "derived"
    ),
    "cpu_attention_cycles_per_score": Fact(
        LOOP_CYCLES["scores"] / (4 * 8) + (LOOP_CYCLES["weights"] + LOOP_CYCLES["weight codes"]) / 16,
        "cycles/score",
        f"{_MCA}: the loop of split_heads<4> that scales, and those of code_weights",
        "derived",
    ),
    "cpu_attention_cycles_per_value_mac": Fact(
        (LOOP_CYCLES["values"] / 8 + LOOP_CYCLES["value sums"] / SPLIT) / (16 * VALUE_QUERIES),
        "cycles/MAC",
        f"{_MCA}: value_dots<2>, and what makes its sums floats after a whole split",
        "derived",
    ),
    "cpu_norm_cycles": Fact(10.7 / 16, "cycles/element", f"{_MCA}: the two loops of norm", "derived"),
    "cpu_quantise_cycles": Fact(
        (LOOP_CYCLES["largest"] + LOOP_CYCLES["codes"]) / 16,
        "cycles/element",
        f"{_MCA}: the two loops of quant_in_atoms, one plane",
        "derived",
    ),
    "cpu_rope_cycles": Fact(16.01 / 32, "cycles/element", f"{_MCA}: the pair loop of head_quant", "derived"),
    "cpu_gate_cycles": Fact(
        75.04 / 16,
        "cycles/element",
        f"{_MCA}: the loop of gated_quant",
        "derived",
    ),
    "cpu_hadamard_cycles": Fact(
        (LOOP_CYCLES["hadamard in registers"] + LOOP_CYCLES["hadamard scale"]) / 8
        + 2 * LOOP_CYCLES["hadamard steps"] / 64,
        "cycles/element",
        f"{_MCA}: a block of 512 is three steps in registers, twice three through memory, scaling",
        "derived",
    ),
    "cpu_epilogue_cycles": Fact(
        (EPILOGUE_INSTRUCTIONS[0] - EPILOGUE_INSTRUCTIONS[1]) / 4, "cycles/element", _COUNTED, "derived"
    ),
    "cpu_epilogue_cycles_per_part": Fact(
        EPILOGUE_INSTRUCTIONS[1] / 4, "cycles/element/part", _COUNTED, "derived"
    ),
}
"""Of one Cortex-A76, whatever chip it is in."""
