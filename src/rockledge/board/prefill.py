"""The time of a prompt, for every decision and forecast: a linear on the NPU or the CPU, and everything else
in a step.

A step takes its tokens through all layers, one linear after another. The NPU does a linear in blocks of
columns. While it multiplies one, the CPU hands over and turns into floats the sums of the block before, and
unpacks the codes of the next block that needs it; all of it shares one DRAM bus. The NPU is idle while the
CPU does what a block has to wait for (its predecessor's marks, the list of its programs), and during
attention, norms, gates and quantisation. Everything is modelled:

    linear on the NPU = syncs of the input
                        + for each block: syncs between + max(NPU, bytes / bus, CPU beside it)
                        + syncs and floats of the last block
    linear on the CPU = max(its bytes / bandwidth, (unpacking + tokens x products) / four big cores)

    attention         = max(its cycles / four big cores, keys and values / bandwidth)

No factor for efficiency: an A76 core is taken at its simulated cycles, four of them share work evenly. Keys
and values are read once for every `TILE_ROWS` rows: a split of 512 positions stays in a core's cache while
these rows see it, and a prompt's whole past does not until the next ones do.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from rockledge.board.boards import Board
from rockledge.board.memory import TILE_ROWS, DecoderShape, kv_bytes
from rockledge.board.npu_syncs import Sync, Syncs, sync_seconds
from rockledge.board.npu_time import SUM_BYTES

FLOAT_BYTES = 4
NPU: Final = "NPU"
BUS: Final = "DRAM bus"
BESIDE: Final = "CPU beside it"
SYNC: Final = "cache maintenance"
LINEAR_SIDES: Final = (NPU, BUS, BESIDE, SYNC)


class LinearShape(Protocol):
    """A linear layer: int8 [rows * planes, inputs] x [outputs, inputs]. `weights` by code width;
    `stored_bytes` of codes, indices and scales; `adds`: to floats that are there."""

    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def planes(self) -> int: ...
    @property
    def weights(self) -> Mapping[int, int]: ...
    @property
    def stored_bytes(self) -> int: ...
    @property
    def adds(self) -> bool: ...


@dataclass(frozen=True)
class Cut:
    """How the NPU takes a linear: in `blocks` of `columns`, sums in `parts` planes. `npu_seconds` and
    `moved_bytes` of a block as `npu_time` has them, padding included; `syncs` of the rows in use."""

    blocks: int
    columns: int
    parts: int
    npu_seconds: float
    moved_bytes: float
    syncs: Syncs


@dataclass(frozen=True)
class LinearTime:
    """Seconds of a linear on the NPU by what the others wait for (`LINEAR_SIDES`), and what NPU, bus, the
    CPU's work beside and cache maintenance by one core would take alone; `syncs`: that maintenance."""

    elapsed: Mapping[str, float]
    alone: Mapping[str, float]
    syncs: Sync

    @property
    def seconds(self) -> float:
        return sum(self.elapsed.values())


@dataclass(frozen=True)
class BetweenLinears:
    """What a layer does between its linears, all big cores together: seconds of attention and the bytes it
    reads; `stages`: seconds and bytes of the rest, after q|k|v, o, gate|up and down."""

    attention: float
    attention_bytes: float
    stages: tuple[tuple[float, float], ...]

    @property
    def other(self) -> float:
        """Seconds of all but attention."""
        return sum(seconds for seconds, _ in self.stages)


def npu_linear(
    board: Board, linear: LinearShape, cut: Cut, tokens: int, *, streamed: float, cached: bool = False
) -> LinearTime:
    """`linear` on the NPU for `tokens`. The share `streamed` of its blocks is unpacked on the way. `cached`:
    the floats that it makes stay in the caches."""
    cores, bus = board.value("cpu_cores"), board.value("npu_bus_bandwidth")
    share = cut.columns / linear.outputs
    sums = tokens * linear.planes * cut.columns
    cycles = board.value("cpu_epilogue_cycles") + cut.parts * board.value("cpu_epilogue_cycles_per_part")
    floats = 0.0 if cached else FLOAT_BYTES * (1 + linear.adds) * tokens * cut.columns
    finished = SUM_BYTES * cut.parts * sums + floats
    collect = sync_seconds(board, cut.syncs.outputs, cores)
    epilogue = max(sums * cycles / _cpu_hz(board), finished / board.value("cpu_read_bandwidth"))
    unpack = streamed * (
        share
        * sum(unpack_seconds(board, count, bits, for_npu=True) for bits, count in linear.weights.items())
        + sync_seconds(board, cut.syncs.weights, cores)
    )
    words = sync_seconds(board, cut.syncs.words)
    between = sync_seconds(board, cut.syncs.between)
    moved = cut.moved_bytes + streamed * (share * linear.stored_bytes + cut.columns * linear.inputs)
    # Beside the first block there are no sums, after the last one nothing else runs.
    first = {NPU: cut.npu_seconds, BUS: moved / bus, BESIDE: unpack + words}
    other = {
        NPU: cut.npu_seconds,
        BUS: (moved + finished) / bus,
        BESIDE: collect + epilogue + unpack + words,
    }
    elapsed = dict.fromkeys(LINEAR_SIDES, 0.0)
    for sides, blocks in ((first, 1), (other, cut.blocks - 1)):
        slowest = max(sides, key=lambda side: sides[side])
        elapsed[slowest] += blocks * sides[slowest]
    elapsed[BESIDE] += epilogue
    elapsed[SYNC] = sync_seconds(board, cut.syncs.input) + cut.blocks * between + collect
    alone = {side: cut.blocks * seconds for side, seconds in other.items()}
    syncs = cut.syncs.linear(cut.blocks, streamed)
    alone[SYNC] = sync_seconds(board, syncs)
    return LinearTime(elapsed, alone, syncs)


def cpu_linear_seconds(board: Board, linear: LinearShape, tokens: int) -> float:
    """`linear` on the CPU: codes are unpacked once, then every token multiplies."""
    unpack = sum(unpack_seconds(board, count, bits, for_npu=False) for bits, count in linear.weights.items())
    products = tokens * linear.planes * sum(linear.weights.values())
    rate = _cpu_hz(board) * board.value("cpu_prefill_macs_per_cycle")
    return max(linear.stored_bytes / board.value("cpu_read_bandwidth"), unpack + products / rate)


def between_linears(
    board: Board,
    shape: DecoderShape,
    rows: int,
    start: int,
    *,
    hadamards: Collection[str],
    norms: Literal["before", "after", "both"] = "before",
    window: int = 0,
    cached: bool = False,
) -> BetweenLinears:
    """Everything in a layer besides its linears, for `rows` tokens after `start` earlier ones.

    `hadamards`: places whose inputs are transformed ("attn.in", "ffn.in", "ffn.down"); `norms`: where they
    stand in a branch; `window`: the positions that attention sees, 0 for all; `cached`: floats between
    operations stay in the caches.
    """
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norm, quantise = board.value("cpu_norm_cycles"), board.value("cpu_quantise_cycles")
    hadamard = board.value("cpu_hadamard_cycles")
    gate = board.value("cpu_gate_cycles") + ("ffn.down" in hadamards) * hadamard

    def branch(place: str) -> tuple[tuple[float, float], ...]:
        """From a branch's output to the next one's input at `place`."""
        cycles = quantise + (norms != "after") * norm + (place in hadamards) * hadamard
        entered = shape.hidden * cycles, (FLOAT_BYTES + 1) * shape.hidden
        # Reads the branch and the residual, writes the residual.
        normed_and_added = shape.hidden * norm, 3 * FLOAT_BYTES * shape.hidden
        return (entered,) if norms == "before" else (normed_and_added, entered)

    # Cycles a token after q|k|v, o, gate|up and down; bytes of floats read and written and codes written.
    stages = (
        (
            (
                (query + kv) * board.value("cpu_rope_cycles") + 2 * (query + kv) * quantise,
                (FLOAT_BYTES + 1) * (query + 2 * kv) + (2 * FLOAT_BYTES + 1) * query,
            ),
        ),
        branch("ffn.in"),
        ((shape.ffn * (gate + quantise), (2 * FLOAT_BYTES + 1) * shape.ffn),),
        branch("attn.in"),
    )
    read = 0 if cached else rows
    found = tuple(
        (
            sum(cpu_seconds(board, rows * cycles, read * moved) for cycles, moved in steps),
            float(read * sum(moved for _, moved in steps)),
        )
        for steps in stages
    )
    seen = attention_bytes(shape, rows, start, window)
    attention = cpu_seconds(board, attention_cycles(board, shape, rows, start, window), seen)
    return BetweenLinears(attention, seen, found)


def cpu_seconds(board: Board, cycles: float, moved: float) -> float:
    """Seconds in which all big cores spend `cycles` together and move that many bytes, at the same time."""
    return max(cycles / _cpu_hz(board), moved / board.value("cpu_read_bandwidth"))


def attention_cycles(board: Board, shape: DecoderShape, rows: int, start: int, window: int = 0) -> float:
    """Cycles of one layer's attention: every query meets all positions up to its own, or with a `window` the
    last so many of them, in every head."""
    seen = rows * start + rows * (rows + 1) / 2
    if window and (beyond := start + rows - window) > 0:
        # The last `cut` queries see `window` positions; the last of all would see `beyond` more.
        cut = min(rows, beyond)
        seen -= cut * beyond - cut * (cut - 1) / 2
    scores = shape.heads * seen
    each = board.value("cpu_attention_cycles_per_score") + shape.head_dim * (
        board.value("cpu_attention_cycles_per_score_mac") + board.value("cpu_attention_cycles_per_value_mac")
    )
    return scores * each


def attention_bytes(
    shape: DecoderShape, rows: int, start: int, window: int = 0, *, together: int = TILE_ROWS
) -> float:
    """Bytes of keys and values, with their scales, that one layer's attention reads for `rows` tokens after
    `start` earlier ones: `together` rows at a time read once whatever one of them sees."""
    seen = 0
    for first in range(start, start + rows, together):
        end = min(first + together, start + rows)
        seen += end - (max(0, first + 1 - window) if window else 0)
    return seen * kv_bytes(shape, 1) / shape.layers


def unpack_seconds(board: Board, weights: int, bits: int, *, for_npu: bool) -> float:
    """Seconds in which all big cores turn the codes of `weights` into int8 tiles of the NPU's layout, or into
    the blocks that the CPU multiplies."""
    cycles = weights * board.value(f"cpu_unpack_{'for_npu_' * for_npu}cycles_per_weight_{bits}_bits")
    return cycles / _cpu_hz(board)


def _cpu_hz(board: Board) -> float:
    """Cycles a second of all big cores."""
    return board.value("cpu_cores") * board.value("cpu_hz")
