"""A prompt as the runtime reads it: what the engine would plan, put into the time of a prompt.

The plan is that of a board with 8k tokens of cache (`runtime/offload`), under either kernel driver. The
floats of a step go through memory between operations. Everything is modelled.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape, working_bytes
from rockledge.board.npu_syncs import Sync
from rockledge.board.prefill import BESIDE, BUS, LINEAR_SIDES, NPU, SYNC, BetweenLinears, between_linears
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import band_ms
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.runtime.offload.budget import largest_plan, npu_budget
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import PrefillPlan
from rockledge.synth import shape_config

LANES = 3
CONTEXT = 8192
BITS = 4
ATTENTION, OTHER_CPU, HEAD = "attention", "other CPU", "head"
PARTS = (NPU, BUS, BESIDE, SYNC, ATTENTION, OTHER_CPU)
"""What a prompt's seconds are spent on, in the order of tables; the head is left to the reader."""


@dataclass(frozen=True)
class AsBuilt:
    """`elapsed`: the prompt's seconds by what the others wait for at the time; `alone`: seconds that NPU,
    bus, the CPU's work beside the NPU (epilogue, unpacking, syncs) and cache maintenance by one core would
    take for the linears; `syncs`: that maintenance. `pinned`: share of the blocks that stay unpacked."""

    steps: tuple[int, ...]
    elapsed: Mapping[str, float]
    alone: Mapping[str, float]
    syncs: Sync
    pinned: float

    @property
    def seconds(self) -> float:
        """The whole prompt."""
        return sum(self.elapsed.values())

    @property
    def binds(self) -> str:
        """What most time is spent on."""
        return max(self.elapsed, key=lambda part: self.elapsed[part])


def layer_linears(shape: DecoderShape) -> tuple[tuple[int, int, bool], ...]:
    """(outputs, inputs, adds to the residual) of the four products of a layer: q|k|v, o, gate|up, down."""
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return (
        (attention + 2 * kv, shape.hidden, False),
        (shape.hidden, attention, True),
        (2 * shape.ffn, shape.hidden, False),
        (shape.hidden, shape.ffn, True),
    )


def model_linears(config: DecoderShape, planes: int = 1) -> tuple[Linear, ...]:
    """The linears of all layers at 4.25 bits."""
    return tuple(
        Linear(4 * layer + number, n, k, planes, {BITS: n * k}, stored_bytes(BITS, n, k), adds)
        for layer in range(config.layers)
        for number, (n, k, adds) in enumerate(layer_linears(config))
    )


def weight_bytes(config: ModelConfig) -> int:
    """Bytes of all matrices at 4.25 bits."""
    return sum(stored_bytes(BITS, linear.rows, linear.cols) for _, linear in decoder(config).linears())


class Prefill:
    """What a board's engine plans for one of the named shapes, and what prompts take with it."""

    def __init__(
        self, board: Board, model: str, planes: int = 1, *, cached: bool = False, spaces: int = 1
    ) -> None:
        """`cached`: floats between operations stay in the caches; `spaces`: of addresses, 3 with mainline."""
        self._board, self._cached = board, cached
        self._config = shape_config(model)
        self.plan = _plan(board, self._config, model_linears(self._config, planes), spaces)

    def prompt(self, tokens: int, *, fresh: bool = False, streamed: bool = False) -> AsBuilt:
        """`tokens` after an empty context. `fresh`: nothing is unpacked yet; `streamed`: no block has a slot
        of its own."""
        board, config, times = self._board, self._config, self.plan.times
        steps = self.plan.chunks(tokens)
        elapsed = dict.fromkeys((*PARTS, HEAD), 0.0)
        alone = dict.fromkeys(LINEAR_SIDES, 0.0)
        syncs, start = Sync(), 0
        for number, rows in enumerate(steps):
            if rows < self.plan.from_rows:
                elapsed[OTHER_CPU] += times.cpu(rows)
            else:
                everything = streamed or (fresh and number == 0)
                for count, time in times.linears(rows, all_streamed=everything, cached=self._cached):
                    syncs += time.syncs.times(count)
                    for side in LINEAR_SIDES:
                        elapsed[side] += count * time.elapsed[side]
                        alone[side] += count * time.alone[side]
            for window, layers in Counter(config.windows or (0,) * config.layers).items():
                between = self._between(rows, start, window)
                elapsed[ATTENTION] += layers * between.attention
                elapsed[OTHER_CPU] += layers * between.other
            start += rows
        elapsed[HEAD] = band_ms(BITS, config.vocab, config.hidden, board=board) / 1e3
        return AsBuilt(steps, elapsed, alone, syncs, self.plan.pinned / len(self.plan.block_slot))

    def _between(self, rows: int, start: int, window: int) -> BetweenLinears:
        turned = decoder(self._config).residual_turns
        return between_linears(
            self._board,
            self._config,
            rows,
            start,
            hadamards=("ffn.down",) if turned else ("attn.in", "ffn.in", "ffn.down"),
            norms=self._config.branch_norms,
            window=window,
            cached=self._cached,
        )


def _plan(board: Board, config: ModelConfig, linears: tuple[Linear, ...], spaces: int) -> PrefillPlan:
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

    return largest_plan(linears, lanes=LANES, spaces=spaces, board=board, context=CONTEXT, budget=budget)
