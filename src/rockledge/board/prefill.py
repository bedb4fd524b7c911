"""The time of a prompt: the NPU multiplies, the CPU does the rest, both share one DRAM bus. All modelled.

A layer is four stages for each chunk of tokens: the NPU multiplies (q|k|v, o, gate|up, down), then the CPU
does what the next product waits for (epilogue, heads and attention, norm, gate, quantisation). With one chunk
in flight the two take turns. With two, one chunk's CPU work runs beside the other's products: `makespan` lets
each side take whatever is ready. Beside that the CPU unpacks codes into int8 tiles whenever it is free, so

    seconds = max(makespan, all CPU work with unpacking, all bytes on the bus / its bandwidth)

for all layers of a wave (the chunks in flight together share unpacked tiles), summed over waves. No factor
for efficiency: an A76 core is taken at its simulated cycles, four of them share every stage evenly.

Not charged: floats between an epilogue and the next quantisation, which stay in the caches when a few tokens
are taken through at a time, and keys and values, of which a split of 512 positions stays in a core's cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape


@dataclass(frozen=True)
class StageProduct:
    """One product of a chunk, as planned: seconds and bytes of the NPU, `outputs` columns, input `parts`."""

    npu_seconds: float
    moved_bytes: float
    read_back_bytes: float
    outputs: int
    parts: int


@dataclass(frozen=True)
class CpuWork:
    """Seconds of all big cores together, by what they do."""

    attention: float = 0.0
    heads: float = 0.0
    norm: float = 0.0
    quantise: float = 0.0
    gate: float = 0.0
    epilogue: float = 0.0
    unpack: float = 0.0

    @property
    def seconds(self) -> float:
        total: float = sum(getattr(self, field.name) for field in fields(self))
        return total

    def __add__(self, other: "CpuWork") -> "CpuWork":
        both = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return CpuWork(**both)


@dataclass(frozen=True)
class Stage:
    """A product, then the CPU work that the chunk's next product waits for; in seconds."""

    npu_seconds: float
    cpu: CpuWork


@dataclass(frozen=True)
class Wave:
    """Chunks that pass all layers together: seconds in all, and of each side if it never had to wait."""

    seconds: float
    npu_seconds: float
    bus_seconds: float
    cpu: CpuWork


def chunk_stages(
    board: Board,
    shape: DecoderShape,
    rows: int,
    start: int,
    products: Sequence[StageProduct],
    *,
    hadamard: bool,
) -> list[Stage]:
    """The four stages of one layer for `rows` tokens behind `start` earlier ones. `products`: q|k|v, o,
    gate|up and down; `hadamard`: whether down's input is transformed."""
    hz = board.value("cpu_cores") * board.value("cpu_hz")
    attention = shape.heads * shape.head_dim

    def work(cycles: float) -> float:
        return cycles / hz

    def epilogue(product: StageProduct) -> float:
        each = board.value("cpu_epilogue_cycles") + product.parts * board.value(
            "cpu_epilogue_cycles_per_part"
        )
        reading = product.read_back_bytes / board.value("cpu_read_bandwidth")
        return max(work(rows * product.outputs * each), reading)

    def quantise(width: int) -> float:
        return work(rows * width * board.value("cpu_quantise_cycles"))

    norm = work(rows * shape.hidden * board.value("cpu_norm_cycles"))
    turned = rows * (attention + shape.kv_heads * shape.head_dim)
    gate_cycles = board.value("cpu_gate_cycles") + hadamard * board.value("cpu_hadamard_cycles")
    after = (
        CpuWork(
            attention=work(attention_cycles(board, shape, rows, start)),
            heads=work(turned * board.value("cpu_rope_cycles")),
            quantise=quantise(2 * attention + 2 * shape.kv_heads * shape.head_dim),
            epilogue=epilogue(products[0]),
        ),
        CpuWork(norm=norm, quantise=quantise(shape.hidden), epilogue=epilogue(products[1])),
        CpuWork(
            gate=work(rows * shape.ffn * gate_cycles),
            quantise=quantise(shape.ffn),
            epilogue=epilogue(products[2]),
        ),
        CpuWork(norm=norm, quantise=quantise(shape.hidden), epilogue=epilogue(products[3])),
    )
    return [Stage(product.npu_seconds, cpu) for product, cpu in zip(products, after, strict=True)]


def attention_cycles(board: Board, shape: DecoderShape, rows: int, start: int) -> float:
    """Cycles of one layer's attention: every query meets all positions up to its own, in every head."""
    scores = shape.heads * (rows * start + rows * (rows + 1) / 2)
    each = board.value("cpu_attention_cycles_per_score") + shape.head_dim * (
        board.value("cpu_attention_cycles_per_score_mac") + board.value("cpu_attention_cycles_per_value_mac")
    )
    return scores * each


def unpack_seconds(board: Board, weights: int, bits: int, *, for_npu: bool) -> float:
    """Seconds in which all big cores turn the codes of `weights` into int8 tiles of the NPU's layout, or into
    the blocks that the CPU multiplies."""
    cycles = weights * board.value(f"cpu_unpack_{'for_npu_' * for_npu}cycles_per_weight_{bits}_bits")
    return cycles / (board.value("cpu_cores") * board.value("cpu_hz"))


def makespan(jobs: Sequence[Sequence[Stage]]) -> float:
    """Seconds until all jobs are done, when the NPU and the CPU each take the earliest stage that is ready,
    the earlier job first. The stages of a job follow one another, product before CPU work."""
    steps = [[seconds for stage in job for seconds in (stage.npu_seconds, stage.cpu.seconds)] for job in jobs]
    done = [0] * len(jobs)
    ready = [0.0] * len(jobs)
    free = [0.0, 0.0]
    while waiting := [j for j in range(len(jobs)) if done[j] < len(steps[j])]:
        job = min(waiting, key=lambda j: (max(ready[j], free[done[j] % 2]), j))
        side = done[job] % 2
        ready[job] = free[side] = max(ready[job], free[side]) + steps[job][done[job]]
        done[job] += 1
    return max(ready, default=0.0)


def wave(
    board: Board,
    chunks: Sequence[Sequence[Stage]],
    *,
    layers: int,
    moved_bytes: float,
    unpack: float,
) -> Wave:
    """All layers of the chunks in flight together. `chunks`: the stages of one layer for each; `moved_bytes`
    on the bus and `unpack` seconds of the CPU for one layer and all chunks."""
    stages = [stage for chunk in chunks for stage in chunk]
    cpu = CpuWork(unpack=unpack)
    for stage in stages:
        cpu += stage.cpu
    scaled = CpuWork(**{f.name: layers * getattr(cpu, f.name) for f in fields(cpu)})
    npu = layers * sum(stage.npu_seconds for stage in stages)
    bus = layers * moved_bytes / board.value("npu_bus_bandwidth")
    turns = makespan([list(chunk) * layers for chunk in chunks])
    return Wave(max(turns, scaled.seconds, bus), npu, bus, scaled)
