"""The RK3576, on which nothing of ours runs: what is published about it, and why.

The rows are the vendor's, with 128 tokens of prompt (`benchmark.md`) or 64 (`README.md`), at the highest
clocks; which board and which memory it does not say.
"""

from rockledge.board.chip import Chip, Memory, Published
from rockledge.board.facts import Fact
from rockledge.board.reserves import RESERVE_FACTS

_SHEET = "RK3576 data sheet"
_BENCHMARK = "airockchip/rknn-llm benchmark.md v1.3.0"
_README = "airockchip/rknn-llm README.md v1.2.1b1"

PUBLISHED = (
    Published("Qwen2-0.5B", 0.5e9, "w4a16", 373.9, 32.56, 443.44, _BENCHMARK),
    Published("Qwen2-0.5B", 0.5e9, "w8a8", 371.8, 21.73, 678.43, _BENCHMARK),
    Published("MiniCPM4-0.5B", 0.5e9, "w4a16", 386.9, 34.57, 334.68, _BENCHMARK),
    Published("MiniCPM4-0.5B", 0.5e9, "w8a8", 398.6, 23.28, 541.17, _BENCHMARK),
    Published("TinyLLAMA-1.1B", 1.1e9, "w4a16", 235.4, 19.71, 601.09, _BENCHMARK),
    Published("TinyLLAMA-1.1B", 1.1e9, "w8a8", 239.6, 12.18, 1092.87, _BENCHMARK),
    Published("RWKV7-1.5B", 1.5e9, "w4a16", 81.4, 10.18, 835.34, _BENCHMARK),
    Published("RWKV7-1.5B", 1.5e9, "w8a8", 83.4, 7.05, 1494.13, _BENCHMARK),
    Published("InternLM2-1.8B", 1.8e9, "w4a16", 167.1, 13.55, 975.04, _BENCHMARK),
    Published("InternLM2-1.8B", 1.8e9, "w8a8", 170.6, 7.86, 1782.05, _BENCHMARK),
    Published("Gemma-3n-2B", 2.0e9, "w4a16", 39.3, 7.78, 1577.52, _BENCHMARK),
    Published("Gemma-3n-2B", 2.0e9, "w8a8", 42.7, 4.9, 2715.83, _BENCHMARK),
    Published("MiniCPM3-4B", 4.0e9, "w4a16", 50.5, 4.87, 2380.24, _BENCHMARK),
    Published("MiniCPM3-4B", 4.0e9, "w8a8", 50.4, 3.01, 4410.5, _BENCHMARK),
    Published("ChatGLM3-6B", 6.0e9, "w4a16", 59.1, 4.63, 3023.39, _BENCHMARK),
    Published("ChatGLM3-6B", 6.0e9, "w8a8", 65.7, 2.48, 5967.63, _BENCHMARK),
    Published("Qwen3.5-0.8B", 0.8e9, "w4a16", 93.5, 18.79, 689.5, _BENCHMARK),
    Published("Qwen3.5-0.8B", 0.8e9, "w8a8", 95.3, 13.18, 1047.08, _BENCHMARK),
    Published("Qwen3.5-2B", 2.0e9, "w4a16", 77.1, 11.03, 1236.12, _BENCHMARK),
    Published("Qwen3.5-2B", 2.0e9, "w8a8", 76.3, 6.73, 2131.55, _BENCHMARK),
    Published("Qwen3.5-4B", 4.0e9, "w4a16", 32.2, 5.02, 2420.34, _BENCHMARK),
    Published("Qwen3.5-4B", 4.0e9, "w8a8", 32.8, 3.03, 4591.72, _BENCHMARK),
    Published("Gemma4-E2B", 5.1e9, "w4a16", 105.0, 9.23, 1463.42, _BENCHMARK),
    Published("Gemma4-E2B", 5.1e9, "w8a8", 109.7, 5.56, 2548.73, _BENCHMARK),
    Published("Qwen2-1.5B", 1.5e9, "w4a16", 125.0, 14.4, 1792.0, _README),
    Published("llama3-8B", 8.0e9, "w4a16", 39.8, 3.6, 5765.0, _README),
    Published("Qwen3-1.7B", 1.7e9, "w4a16", 123.8, 11.19, 1198.0, _README),
    Published("Qwen3-4B", 4.0e9, "w4a16", 60.6, 5.52, 2365.0, _README),
)

CHIP = Chip(
    name="rk3576",
    title="RK3576",
    compatible=("rockchip,rk3576",),
    decode_cores=range(4, 8),
    facts={
        "cpu_cores": Fact(4, "cores", f"{_SHEET}: 4 x Cortex-A72 (and 4 x Cortex-A53)", "published"),
        "npu_cores": Fact(2, "cores", _SHEET, "published"),
        **RESERVE_FACTS,
    },
    refused="its Cortex-A72 cores have no int8 dot product, and its NPU needs other programs than the "
    "RK3588's",
    published=PUBLISHED,
)
MEMORIES = (Memory(gib=(4, 8, 16)),)
