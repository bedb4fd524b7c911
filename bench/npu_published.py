"""Runs on the NPU that others published, each with the schedule that the formula is given for it.

Configurations of the models are those of their authors; figures come from the sources named in each row. A
run whose model or conditions is not clear from its source is in `LEFT_OUT`.

The closed runtime's schedule is not published, so it is predicted twice: with the schedule that follows from
the buffer alone, where nothing is fitted; and with one that has a single unknown whole number, the rows of a
tile, found from one table of its README. Rows that number or a fact of the board rests on are marked as
fitted: they are printed, but no test of the formula.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from bench.npu_as_built import BITS
from rockledge.board.boards import Board
from rockledge.board.npu_syncs import Sync, Syncs
from rockledge.board.npu_time import NpuRates, kick_seconds, npu_rates, product_seconds
from rockledge.board.prefill import Cut, between_linears, npu_linear
from rockledge.board.time import band_ms
from rockledge.npu.programs.tile_program import BANKS, data_banks, least_weight_banks
from rockledge.npu.programs.tile_search import FAILING_INPUTS, ROW_UNIT, UNIT, cut, plan
from rockledge.npu.programs.tiling import Reuse, Tiling
from rockledge.runtime.offload.prompt_time import layer_linears, model_linears

KERNEL, PROMPT, TILED, GROUPED, DECODE = (
    "one product",
    "prompt, schedule from the buffer",
    "prompt, rows of a tile fitted",
    "prompt, grouped int8, rows of a tile fitted",
    "generation",
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; `vocab` as padded by its authors."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    windows: tuple[int, ...] = ()
    headless: bool = False


SHAPES = {
    "Llama-3-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "Qwen3-4B": Shape(2560, 36, 32, 8, 128, 9728, 151936),
    "Qwen3-1.7B": Shape(2048, 28, 16, 8, 128, 6144, 151936),
    "Qwen3-0.6B": Shape(1024, 28, 16, 8, 128, 3072, 151936),
    "TinyLlama-1.1B": Shape(2048, 22, 32, 4, 64, 5632, 32000),
    "Qwen2-1.5B": Shape(1536, 28, 12, 2, 128, 8960, 151936),
    "Qwen2-0.5B": Shape(896, 24, 14, 2, 64, 4864, 151936),
    "InternLM2-1.8B": Shape(2048, 24, 16, 8, 128, 8192, 92544),
    "ChatGLM3-6B": Shape(4096, 28, 32, 2, 128, 13696, 65024),
    "Phi-3-mini-3.8B": Shape(3072, 32, 32, 32, 96, 8192, 32064),
    "MiniCPM-V-2.6 (Qwen2-7B)": Shape(3584, 28, 28, 4, 128, 18944, 151666),
    "Qwen2.5-VL-3B": Shape(2048, 36, 16, 2, 128, 11008, 151936),
    "Gemma2-2B": Shape(2304, 26, 8, 4, 256, 9216, 256000),
    "Gemma3-1B": Shape(1152, 26, 4, 1, 256, 6912, 262144),
    "MiniCPM4-0.5B": Shape(1024, 24, 16, 2, 64, 4096, 73448),
    "SmolVLM-256M": Shape(576, 30, 9, 3, 64, 1536, 49280),
    "Ministral-3-3B": Shape(3072, 26, 32, 8, 128, 9216, 131072),
    "Granite4-350M": Shape(1024, 28, 16, 4, 64, 2048, 100352),
    "Ministral-3-8B": Shape(4096, 34, 32, 8, 128, 14336, 131072),
}

_BENCHMARK = "airockchip/rknn-llm benchmark.md v1.3.0"
_README = "airockchip/rknn-llm README.md v1.2.1b1"
_GGML = "invisiofficial/rk-llama.cpp ggml/src/ggml-rknpu2/README.md"
_CLOSED_API = "closed matmul API, clehaxze's benchmark in allbilly/rk3588"
# model, prompt tokens, milliseconds to the first token; Qwen2-VL-2B's decoder is Qwen2-1.5B, Qwen3-VL-2B's is
# Qwen3-1.7B. All w8a8, board and RAM not stated, clocks at their maximum.
_RKLLM: tuple[tuple[str, int, float, str], ...] = (
    ("Llama-3-8B", 64, 1128.0, _README),
    ("Qwen3-4B", 64, 586.0, _README),
    ("Qwen3-1.7B", 64, 215.0, _README),
    ("Qwen3-1.7B", 128, 383.62, f"{_BENCHMARK}, as Qwen3-VL-2B"),
    ("Qwen3-1.7B", 196, 649.0, f"{_BENCHMARK}, as Qwen3-VL-2B"),
    ("Qwen3-0.6B", 128, 199.0, _BENCHMARK),
    ("TinyLlama-1.1B", 64, 140.0, _README),
    ("TinyLlama-1.1B", 128, 243.93, _BENCHMARK),
    ("Qwen2-1.5B", 64, 206.0, _README),
    ("Qwen2-1.5B", 128, 378.0, f"{_BENCHMARK}, as Qwen2.5-1.5B"),
    ("Qwen2-1.5B", 196, 632.6, f"{_BENCHMARK}, as Qwen2-VL-2B"),
    ("Qwen2-1.5B", 256, 856.86, f"{_README}, as Qwen2-VL-2B"),
    ("Qwen2-0.5B", 64, 79.0, _README),
    ("Qwen2-0.5B", 128, 145.9, _BENCHMARK),
    ("InternLM2-1.8B", 64, 206.0, _README),
    ("InternLM2-1.8B", 128, 380.14, _BENCHMARK),
    ("ChatGLM3-6B", 64, 800.0, _README),
    ("ChatGLM3-6B", 128, 1352.94, _BENCHMARK),
    ("Phi-3-mini-3.8B", 128, 1017.0, _BENCHMARK),
    ("MiniCPM-V-2.6 (Qwen2-7B)", 64, 826.0, _BENCHMARK),
    ("MiniCPM-V-2.6 (Qwen2-7B)", 128, 1720.6, _README),
    ("Qwen2.5-VL-3B", 196, 1120.0, _BENCHMARK),
    ("Gemma2-2B", 128, 598.0, _BENCHMARK),
    ("MiniCPM4-0.5B", 128, 135.29, _BENCHMARK),
    ("SmolVLM-256M", 128, 77.3, _BENCHMARK),
)
# model, inputs in a group, prompt tokens, milliseconds to the first token
_RKLLM_GROUPED: tuple[tuple[str, int, int, float], ...] = (
    ("Llama-3-8B", 512, 64, 1281.0),
    ("TinyLlama-1.1B", 512, 64, 195.0),
    ("InternLM2-1.8B", 512, 64, 298.0),
    ("Qwen2-0.5B", 128, 64, 183.0),
    ("Qwen2-1.5B", 128, 64, 725.0),
    ("ChatGLM3-6B", 128, 64, 2190.0),
)
# model, tok/s of a prompt of 512: the closed matmul API under ggml, Q8_0 weights as int8 of whole rows
_GGML_PROMPTS: tuple[tuple[str, float], ...] = (
    ("Gemma3-1B", 378.6),
    ("Ministral-3-3B", 120.9),
    ("Granite4-350M", 311.8),
)
_RKLLM_DECODE: tuple[tuple[str, float], ...] = (
    ("Llama-3-8B", 3.79),
    ("Qwen3-4B", 6.53),
    ("ChatGLM3-6B", 4.98),
    ("Phi-3-mini-3.8B", 7.45),
    ("InternLM2-1.8B", 15.45),
    ("Qwen2-1.5B", 16.7),
    ("TinyLlama-1.1B", 24.43),
    ("Qwen2-0.5B", 41.58),
)

HEAD_BITS = 8

LEFT_OUT: dict[str, str] = {
    "ork-driver's single products (1391 GOP/s at M=512, K=2048 and others)": "columns and cores not stated",
    "ork-driver and RKLLM on Qwen3-1.7B (184, 178 tok/s)": "prompt length not stated",
    "mainline 512 x 3840 x 4096 (386-461 GOP/s), Llama-3.2-3B F16 and others on ggml-rocket": "600 MHz, time "
    "goes into copies and cache maintenance of whole buffers, whose number is not stated",
    "provider 512 x 3840 x 4096 fp16 (26-39 ms)": "tiles and number of submits not stated",
    "Gemma-4 E4B W4A4 (288 tok/s)": "int4, an architecture with shared and per-layer parts of its own",
    "Qwen3.5, RWKV7, Gemma3n, MiniCPM3, DeepSeekOCR, LFM2, mixtures of experts": "not a plain decoder",
    "TeleChat2-3B": "its configuration is in none of our sources",
    "RKLLM-API-Server's prompts of 15 to 49 tokens, edgeinfer's 19": "time of a server is in them",
    "RKLLM v1.2.1 and older on rows above": "superseded by the figures used",
}


@dataclass(frozen=True)
class Pair:
    """A published figure and what the formula says of it, both in `unit` (larger is faster)."""

    what: str
    kind: str
    unit: str
    published: float
    predicted: float
    schedule: str
    source: str
    fitted: bool = False

    @property
    def ratio(self) -> float:
        """Predicted over published: above 1 the formula is too fast."""
        return self.predicted / self.published


def pairs(board: Board) -> Iterator[Pair]:
    """Every published run with enough information, predicted."""
    yield from _products(board)
    yield from _prompts(board)
    yield from _tiled_prompts(board, fitted_tile_rows(board))
    yield from _generations(board)


def _prompts(board: Board) -> Iterator[Pair]:
    said = "few input parts, int8 resident, one chunk"
    for name, tokens, published, source in _published_prompts():
        speed = _prompt_speed(board, name, tokens)
        yield Pair(_title(name, tokens, source), PROMPT, "tok/s", published, speed, said, source)


def _tiled_prompts(board: Board, rows: int) -> Iterator[Pair]:
    said = f"weights read for every {rows} rows, int8 resident, one chunk"
    for name, tokens, published, source in _published_prompts():
        speed = _prompt_speed(board, name, tokens, rows)
        title, fitted = _title(name, tokens, source), source == _README
        yield Pair(title, TILED, "tok/s", published, speed, said, source, fitted)
    for name, group, tokens, milliseconds in _RKLLM_GROUPED:
        speed = _prompt_speed(board, name, tokens, rows, group)
        yield Pair(
            f"RKLLM {name} g{group}, {tokens} tokens",
            GROUPED,
            "tok/s",
            1e3 * tokens / milliseconds,
            speed,
            f"{said}; int32 partials of every {group} inputs through memory",
            _README,
        )


def fitted_tile_rows(board: Board) -> int:
    """The rows of a tile with which the prompts of the README's table are predicted best, in the median."""

    def error(rows: int) -> float:
        table = [row for row in _published_prompts() if row[3] == _README]
        return statistics.median(
            abs(_prompt_speed(board, name, tokens, rows) / speed - 1) for name, tokens, speed, _ in table
        )

    return min(range(8, 68, 4), key=error)


def _prompt_speed(
    board: Board, name: str, tokens: int, rows: int | None = None, group: int | None = None
) -> float:
    """Modelled tok/s of a prompt in one step: a linear is one block, int8 lies ready, floats stay in caches.

    As few input parts as the buffer allows; `rows`: as few as let so many rows lie in it, and weights read
    again for every such tile; `group`: one part per group of inputs. The caches are maintained for the
    bytes that are used, once a linear.
    """
    shape = SHAPES[name]
    seconds = 0.0
    for linear in model_linears(replace(shape, layers=1), BITS):
        tiling = _tiling(tokens, linear.outputs, linear.inputs, rows, group, npu_rates(board))
        cost = tiling.cost
        syncs = Syncs(input=Sync(tokens * linear.inputs, 1), outputs=Sync(cost.read_back_bytes, 1))
        parts = len(tiling.input_parts)
        block = Cut(1, linear.outputs, parts, cost.npu_seconds, cost.moved_bytes, syncs)
        seconds += npu_linear(board, linear, block, tokens, streamed=0.0, cached=True).seconds
    between = between_linears(board, shape, tokens, 0, hadamards=(), cached=True)
    seconds += between.attention + between.other
    head = band_ms(HEAD_BITS, shape.vocab, shape.hidden, board=board) / 1e3
    return tokens / (shape.layers * seconds + head)


@lru_cache(maxsize=1024)
def _tiling(tokens: int, n: int, k: int, rows: int | None, group: int | None, rates: NpuRates) -> Tiling:
    least = 1 if group is None else -(-k // group)
    parts = _fewest_parts(k, least, rows or ROW_UNIT)
    return plan(
        tokens, n, k, rates=rates, parts=parts, tile_rows=rows, stays=None if rows is None else Reuse.DATA
    )


def _fewest_parts(inputs: int, least: int, rows: int) -> int:
    """The fewest input parts, at least `least`, that let `rows` rows fit next to one kernel group."""
    units = -(-inputs // UNIT)
    for parts in range(least, units):
        sizes = cut(units * UNIT, parts, UNIT)
        fits = data_banks(rows, sizes[0]) + least_weight_banks(sizes[0]) <= BANKS
        if fits and not any(size in FAILING_INPUTS for size in sizes):
            return parts
    return units


def _published_prompts() -> Iterator[tuple[str, int, float, str]]:
    for name, tokens, milliseconds, source in _RKLLM:
        yield name, tokens, 1e3 * tokens / milliseconds, source
    for name, speed in _GGML_PROMPTS:
        yield name, 512, speed, _GGML


def _title(name: str, tokens: int, source: str) -> str:
    return f"{'ggml-rknpu2' if source == _GGML else 'RKLLM'} {name}, {tokens} tokens"


def _generations(board: Board) -> Iterator[Pair]:
    rates = npu_rates(board)
    for name, published in _RKLLM_DECODE:
        shape = SHAPES[name]
        layer = sum(plan(1, n, k, rates=rates).cost.seconds for n, k, _ in layer_linears(shape))
        head = plan(1, shape.vocab, shape.hidden, rates=rates).cost.seconds
        predicted = 1 / (shape.layers * layer + head)
        said = "one row, int8 resident"
        yield Pair(f"RKLLM {name}", DECODE, "tok/s", published, predicted, said, _BENCHMARK, fitted=True)


def _products(board: Board) -> Iterator[Pair]:
    rates = npu_rates(board)
    said = "one core, native layouts, one tile of 128 rows"
    for name, bytes_each, per_cycle, sum_bytes, published in (
        ("int8", 1.0, 1024.0, 4, 1.8e12),
        ("fp16", 2.0, 512.0, 4, 0.9e12),
        ("int4", 0.5, 2048.0, 2, 4.0e12),
    ):
        rate = _one_core_rate(
            replace(rates, macs_per_cycle=per_cycle), 128, 1024, 8192, bytes_each, sum_bytes
        )
        what = f"{name} 128 x 1024 x 8192, one core"
        yield Pair(what, KERNEL, "Top/s", published / 1e12, rate / 1e12, said, _CLOSED_API)
    one = _one_core_rate(replace(rates, macs_per_cycle=512.0), 1, 4096, 4096, 2.0, 4)
    what = "fp16 1 x 4096 x 4096, one core"
    yield Pair(what, KERNEL, "Gop/s", 11.0, one / 1e9, "one core, one row", _CLOSED_API)
    yield Pair(
        "W4A8 128 x 11008 x 4096, three cores",
        KERNEL,
        "Top/s",
        2.9,
        _two_nibbles(rates) / 1e12,
        "activations as 256 rows of int4, int16 sums of every 480 inputs, read back",
        "happyme531/rknpu2_matmul_open docs",
    )


def _one_core_rate(
    rates: NpuRates, rows: int, inputs: int, columns: int, bytes_each: float, sum_bytes: int
) -> float:
    """Operations a second of one program on one core, dispatch included."""
    macs = rows * inputs * columns
    seconds = product_seconds(
        rates,
        1,
        macs=macs,
        data_bytes=rows * inputs * bytes_each,
        stream_bytes=inputs * columns * bytes_each + sum_bytes * rows * columns,
        streamed=True,
    )
    return 2 * macs / kick_seconds(rates, slowest_core=seconds, moved_bytes=0.0)


def _two_nibbles(rates: NpuRates) -> float:
    """Operations a second of int4 weights x int8 activations in two int4 halves: a sum of full-range int4
    products fits int16 for 511 inputs, which is 480 in whole groups of 32."""
    rows, inputs, columns, part = 2 * 128, 11008, 4096, 480
    int4 = replace(rates, macs_per_cycle=2048.0)
    core, moved, read_back = 0.0, 0.0, 0.0
    for begin in range(0, inputs, part):
        k = min(part, inputs - begin)
        stream = (k / 2 + 2 * rows) * columns
        core += product_seconds(
            int4,
            int4.cores,
            macs=rows * k * columns / int4.cores,
            data_bytes=rows * k / 2,
            stream_bytes=stream / int4.cores,
            streamed=True,
        )
        moved += stream + int4.cores * rows * k / 2
        read_back += 2 * rows * columns
    seconds = kick_seconds(int4, slowest_core=core, moved_bytes=moved) + read_back / int4.bus_bandwidth
    return 2 * (rows // 2) * inputs * columns / seconds
