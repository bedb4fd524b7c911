"""What a prompt costs on the NPU: tilings of all products of a layer, put into the formula for whole prompts.

Everything is modelled (`board/prefill.py`, `board/npu_time.py`). A schedule says how a stack cuts the work,
so that other people's runs can be predicted by the same formula with their schedule as input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape
from rockledge.board.npu_time import NpuRates, npu_rates
from rockledge.board.prefill import CpuWork, StageProduct, chunk_stages, unpack_seconds, wave
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import band_ms
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.npu.programs.tile_program import BANKS, data_banks, least_weight_banks
from rockledge.npu.programs.tile_search import FAILING_INPUTS, ROW_UNIT, UNIT, cut, plan
from rockledge.npu.programs.tiling import Reuse, Tiling


@dataclass(frozen=True)
class Schedule:
    """How a prompt is cut. `chunk` tokens pass a layer at a time, `in_flight` (1 or 2) chunks together.

    `bits` of the stored codes; `streamed`: codes become int8 tiles for every wave, otherwise int8 lies ready.
    `whole_inputs`: as few input parts as the buffer allows, instead of as many as are fastest; `tile_rows`:
    as few as let so many rows lie in it, and weights read again for every such tile; `group`: a part for
    every so many inputs. `hadamard`: down's input is transformed on the CPU."""

    chunk: int
    in_flight: int
    bits: int = 4
    streamed: bool = True
    planes: int = 1
    hadamard: bool = True
    whole_inputs: bool = False
    tile_rows: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class PromptTime:
    """Seconds of a prompt up to its first logits, and what each side would need alone.

    `array_seconds`: products at the full rate of all cores; `npu_seconds`: with all that the NPU waits for;
    `bus_seconds`: all bytes at the bus's rate; `dispatch_seconds`: part of npu_seconds."""

    tokens: int
    seconds: float
    array_seconds: float
    npu_seconds: float
    dispatch_seconds: float
    bus_seconds: float
    cpu: CpuWork

    @property
    def tok_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def binds(self) -> str:
        """The side that needs most time alone, and by name the largest part of it where that is the CPU."""
        sides = {"DRAM bus": self.bus_seconds, "NPU": self.npu_seconds, "CPU": self.cpu.seconds}
        side = max(sides, key=sides.__getitem__)
        if self.seconds > 1.25 * sides[side]:
            return "NPU and CPU in turn"
        if side == "CPU":
            name, _ = max(vars(self.cpu).items(), key=lambda part: part[1])
            return f"CPU: {name}"
        if side == "NPU":
            return "MAC arrays" if self.array_seconds > 0.8 * self.npu_seconds else "NPU: loads and dispatch"
        return side


def layer_linears(shape: DecoderShape) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs) of the four products of a layer: q|k|v, o, gate|up, down."""
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return (
        (attention + 2 * kv, shape.hidden),
        (shape.hidden, attention),
        (2 * shape.ffn, shape.hidden),
        (shape.hidden, shape.ffn),
    )


def prompt_time(board: Board, shape: DecoderShape, tokens: int, schedule: Schedule) -> PromptTime:
    """Modelled time of `tokens` of prompt behind an empty context. NpuError when a product cannot be cut."""
    rates = npu_rates(board)
    linears = layer_linears(shape)
    weights = sum(n * k for n, k in linears)
    size = schedule.chunk * schedule.in_flight
    seconds = npu = array = bus = dispatch = 0.0
    cpu = CpuWork()
    for begin in range(0, tokens, size):
        chunks, moved = [], 0.0
        for start in range(begin, min(begin + size, tokens), schedule.chunk):
            tilings = _tilings(linears, schedule, rates)
            products = [_stage(tiling) for tiling in tilings]
            rows = min(schedule.chunk, tokens - start)
            chunks.append(chunk_stages(board, shape, rows, start, products, hadamard=schedule.hadamard))
            written = schedule.chunk * schedule.planes * sum(k for _, k in linears)
            moved += written + sum(p.moved_bytes + p.read_back_bytes for p in products)
            array += shape.layers * sum(t.cost.macs for t in tilings) / (rates.cores * rates.macs_per_second)
            dispatch += shape.layers * sum(t.cost.kicks for t in tilings) * rates.dispatch_seconds
        unpack = 0.0
        if schedule.streamed:
            moved += weights + sum(stored_bytes(schedule.bits, n, k) for n, k in linears)
            unpack = unpack_seconds(board, weights, schedule.bits, for_npu=True)
        passed = wave(board, chunks, layers=shape.layers, moved_bytes=moved, unpack=unpack)
        seconds += passed.seconds
        npu += passed.npu_seconds
        bus += passed.bus_seconds
        cpu += passed.cpu
    head = band_ms(schedule.bits, shape.vocab, shape.hidden, board=board) / 1e3
    return PromptTime(tokens, seconds + head, array, npu, dispatch, bus, cpu)


def best_schedule(
    board: Board, shape: DecoderShape, tokens: int, like: Schedule, in_flight: Sequence[int] = (1, 2)
) -> tuple[Schedule, PromptTime]:
    """The chunk size among those that programs exist for, and how many in flight, that take the least time;
    all else as in `like`."""
    tried = [replace(like, chunk=chunk, in_flight=number) for chunk in STEP_ROWS for number in in_flight]
    times = [(schedule, prompt_time(board, shape, tokens, schedule)) for schedule in tried]
    return min(times, key=lambda found: found[1].seconds)


def _stage(tiling: Tiling) -> StageProduct:
    cost = tiling.cost
    return StageProduct(
        cost.npu_seconds, cost.moved_bytes, cost.read_back_bytes, tiling.n, len(tiling.input_parts)
    )


@lru_cache(maxsize=1024)
def _tilings(linears: tuple[tuple[int, int], ...], schedule: Schedule, rates: NpuRates) -> tuple[Tiling, ...]:
    rows = schedule.chunk * schedule.planes
    return tuple(_tiling(rows, n, k, schedule, rates) for n, k in linears)


def _tiling(rows: int, n: int, k: int, schedule: Schedule, rates: NpuRates) -> Tiling:
    if not schedule.whole_inputs and schedule.tile_rows is None and schedule.group is None:
        return plan(rows, n, k, rates=rates)
    least = 1 if schedule.group is None else -(-k // schedule.group)
    parts = _fewest_parts(k, least, schedule.tile_rows or ROW_UNIT)
    stays = None if schedule.tile_rows is None else Reuse.DATA
    return plan(rows, n, k, rates=rates, parts=parts, tile_rows=schedule.tile_rows, stays=stays)


def _fewest_parts(inputs: int, least: int, rows: int) -> int:
    """The fewest input parts, at least `least`, that let `rows` rows lie beside one kernel group."""
    units = -(-inputs // UNIT)
    for parts in range(least, units):
        sizes = cut(units * UNIT, parts, UNIT)
        fits = data_banks(rows, sizes[0]) + least_weight_banks(sizes[0]) <= BANKS
        if fits and not any(size in FAILING_INPUTS for size in sizes):
            return parts
    return units
