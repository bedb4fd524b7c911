"""A prompt as the runtime reads it: one step at a time, blocks of columns on the NPU, all else in turn.

What the engine would plan on a board with 8k tokens of cache (`runtime/offload`) is put into the time
formula. While the NPU multiplies a block, the CPU makes floats of the block before and unpacks the next one
that has no slot of its own. Attention, norms, gates and quantisation find the NPU idle. The floats of a step
go through memory between operations. Everything is modelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.memory import working_bytes
from rockledge.board.prefill import CpuWork, StageProduct, chunk_stages
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import band_ms
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.prompt_time import layer_linears
from rockledge.runtime.offload.budget import largest_plan, npu_budget
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import PrefillPlan
from rockledge.runtime.offload.threshold import Offloaded, cpu_seconds
from rockledge.runtime.offload.work import block_work
from rockledge.synth import shape_config

LANES = 3
CONTEXT = 8192
BITS = 4
FLOAT = 4
NPU, BUS, BESIDE, ATTENTION, AROUND, HEAD = (
    "NPU",
    "DRAM bus",
    "CPU beside it",
    "attention",
    "other CPU",
    "head",
)


@dataclass(frozen=True)
class AsBuilt:
    """`elapsed`: the prompt's seconds by what the others wait for at the time; `alone`: seconds that NPU, bus
    and the CPU's work beside the NPU (epilogue, unpacking) would take for the linears. `pinned`: share of the
    blocks that stay unpacked."""

    steps: tuple[int, ...]
    elapsed: Mapping[str, float]
    alone: Mapping[str, float]
    pinned: float

    @property
    def seconds(self) -> float:
        """The whole prompt."""
        return sum(self.elapsed.values())

    @property
    def binds(self) -> str:
        """What most time is spent on."""
        return max(self.elapsed, key=lambda part: self.elapsed[part])


def model_linears(config: ModelConfig, planes: int = 1) -> tuple[Linear, ...]:
    """The linears of all layers at 4.25 bits."""
    return tuple(
        Linear(4 * layer + number, n, k, planes, {BITS: n * k}, stored_bytes(BITS, n, k))
        for layer in range(config.layers)
        for number, (n, k) in enumerate(layer_linears(config))
    )


def weight_bytes(config: ModelConfig) -> int:
    """Bytes of all matrices at 4.25 bits."""
    matrices = 1 if config.tied else 2
    return matrices * stored_bytes(BITS, config.vocab, config.hidden) + sum(
        linear.stored_bytes for linear in model_linears(config)
    )


class Prefill:
    """What a board's engine plans for one of the named shapes, and what prompts take with it."""

    def __init__(self, board: Board, model: str, planes: int = 1, *, cached: bool = False) -> None:
        """`cached`: floats between operations stay in the caches."""
        self._board, self._cached = board, cached
        self._config = shape_config(model)
        linears = model_linears(self._config, planes)
        self.plan = _plan(board, self._config, linears)
        self._kinds: dict[tuple[int, ...], tuple[Offloaded, int]] = {}
        for linear, at in zip(linears, self.plan.linears, strict=True):
            slots = self.plan.block_slot[at.first_block : at.first_block + at.blocks]
            streamed = sum(slot >= self.plan.pinned for slot in slots)
            one = Offloaded(linear, self.plan.shapes[at.shape], at.blocks, streamed)
            kind = (linear.outputs, linear.inputs, at.shape, at.blocks, streamed)
            self._kinds[kind] = one, self._kinds.get(kind, (one, 0))[1] + 1

    def prompt(self, tokens: int, *, fresh: bool = False, streamed: bool = False) -> AsBuilt:
        """`tokens` behind an empty context. `fresh`: nothing is unpacked yet; `streamed`: no block has a slot
        of its own."""
        steps = self.plan.chunks(tokens)
        elapsed = dict.fromkeys((NPU, BUS, BESIDE, ATTENTION, AROUND, HEAD), 0.0)
        alone = dict.fromkeys((NPU, BUS, BESIDE), 0.0)
        start = 0
        for number, rows in enumerate(steps):
            for one, times in self._kinds.values():
                if rows < self.plan.from_rows:
                    elapsed[AROUND] += times * cpu_seconds(one.linear, rows, self._board)
                    continue
                share = 1.0 if streamed or (fresh and number == 0) else one.streamed / one.blocks
                self._linear(one, times, rows, share, elapsed, alone)
            work = self._cpu(rows, start)
            elapsed[ATTENTION] += work.attention
            elapsed[AROUND] += work.seconds - work.attention
            start += rows
        elapsed[HEAD] = band_ms(BITS, self._config.vocab, self._config.hidden, board=self._board) / 1e3
        pinned = self.plan.pinned / len(self.plan.block_slot)
        return AsBuilt(steps, elapsed, alone, pinned)

    def _linear(
        self,
        one: Offloaded,
        times: int,
        rows: int,
        streamed: float,
        elapsed: dict[str, float],
        alone: dict[str, float],
    ) -> None:
        """Like `npu_seconds` of runtime/offload/threshold.py, with what else moves while blocks run."""
        size = next(size for size in one.shape.sizes if rows <= size.rows)
        lanes = self.plan.lanes
        columns = lanes * one.shape.lane_columns
        cost = size.matmul.tiling.cost
        work = block_work(one.linear, rows, columns, size.sums, self._board)
        # o and down add to what they find.
        adds = one.linear.outputs == self._config.hidden
        floats = 0.0 if self._cached else FLOAT * (1 + adds) * rows * columns
        finished = work.epilogue_bytes + floats
        epilogue = max(work.epilogue, finished / self._board.value("cpu_read_bandwidth"))
        moved = lanes * cost.moved_bytes + streamed * work.unpack_bytes
        unpack = streamed * work.unpack
        bus = self._board.value("npu_bus_bandwidth")
        # Beside the first block there is no epilogue, behind the last one nothing else runs.
        first = {NPU: cost.npu_seconds, BUS: moved / bus, BESIDE: unpack}
        other = {NPU: cost.npu_seconds, BUS: (moved + finished) / bus, BESIDE: epilogue + unpack}
        for sides, blocks in ((first, 1), (other, one.blocks - 1)):
            slowest = max(sides, key=lambda side: sides[side])
            elapsed[slowest] += times * blocks * sides[slowest]
        elapsed[BESIDE] += times * epilogue
        for side, seconds in other.items():
            alone[side] += times * one.blocks * seconds

    def _cpu(self, rows: int, start: int) -> CpuWork:
        """Seconds of all layers behind one another, floats through memory."""
        c = self._config
        nothing = [StageProduct(0.0, 0.0, 0.0, 0, 0)] * 4
        stages = chunk_stages(self._board, c, rows, start, nothing, hadamard=True)
        found = CpuWork()
        attention, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        moved = (  # floats read and written and codes written by the operations behind each product
            (FLOAT + 1) * (attention + 2 * kv) + (2 * FLOAT + 1) * attention,
            (FLOAT + 1) * c.hidden,
            (2 * FLOAT + 1) * c.ffn,
            (FLOAT + 1) * c.hidden,
        )
        for stage, each in zip(stages, moved, strict=True):
            bytes_seconds = 0.0 if self._cached else rows * each / self._board.value("cpu_read_bandwidth")
            # What waits for memory counts as quantisation, which is the last to touch every row.
            waits = max(0.0, bytes_seconds - (stage.cpu.seconds - stage.cpu.attention))
            found += stage.cpu + CpuWork(quantise=waits)
        return CpuWork(**{name: c.layers * seconds for name, seconds in vars(found).items()})


def _plan(board: Board, config: ModelConfig, linears: tuple[Linear, ...]) -> PrefillPlan:
    weights = weight_bytes(config)

    def budget(rows: int) -> int:
        return npu_budget(
            board,
            config,
            context=CONTEXT,
            rows=rows,
            weights=weights,
            others=weights + working_bytes(config, rows, CONTEXT, int(board.value("cpu_cores"))),
            memory=None,
            free=None,
        )

    return largest_plan(linears, lanes=LANES, spaces=1, board=board, context=CONTEXT, budget=budget)
