"""A prompt as the runtime reads it: what the engine would plan for a model, put into the time of a prompt.

For a model that is not here, only its configuration: all linears at one width. The floats of a step go
through memory between operations. Without an NPU all of it is the CPU's. Everything is modelled.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape, working_bytes
from rockledge.board.npu_syncs import Sync
from rockledge.board.prefill import (
    BESIDE,
    BUS,
    LINEAR_SIDES,
    NPU,
    SYNC,
    BetweenLinears,
    between_linears,
    cpu_linear_seconds,
)
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import band_ms
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.runtime.offload.budget import largest_plan, npu_budget
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import PrefillPlan

CONTEXT: Final = 8192
"""Tokens of cache that are planned for where nothing else is said."""
ATTENTION, OTHER_CPU, HEAD = "attention", "other CPU", "head"
PARTS: Final = (NPU, BUS, BESIDE, SYNC, ATTENTION, OTHER_CPU)
"""What a prompt's seconds are spent on, in the order of tables; the head is left to the reader."""


@dataclass(frozen=True)
class PromptTime:
    """`elapsed`: the prompt's seconds by what the others wait for at the time; `alone`: seconds that NPU,
    bus, the CPU's work beside the NPU (epilogue, unpacking, syncs) and cache maintenance by one core would
    take for the linears; `syncs`: that maintenance. `pinned`: share of the blocks that stay unpacked.
    `npu_macs`: products that the NPU makes and somebody wants, without padding."""

    steps: tuple[int, ...]
    elapsed: Mapping[str, float]
    alone: Mapping[str, float]
    syncs: Sync
    pinned: float
    npu_macs: float

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


def model_linears(config: DecoderShape, bits: int, planes: int = 1) -> tuple[Linear, ...]:
    """The linears of all layers at one width, as the runtime joins them."""
    return tuple(
        Linear(4 * layer + number, n, k, planes, {bits: n * k}, stored_bytes(bits, n, k), adds)
        for layer in range(config.layers)
        for number, (n, k, adds) in enumerate(layer_linears(config))
    )


def weight_bytes(config: ModelConfig, bits: int) -> int:
    """Bytes of all matrices at one width."""
    return sum(stored_bytes(bits, linear.rows, linear.cols) for _, linear in decoder(config).linears())


class PromptTimes:
    """What a board's engine plans for a model at one width, and what prompts take with it."""

    def __init__(
        self,
        board: Board,
        config: ModelConfig,
        bits: int,
        planes: int = 1,
        *,
        context: int = CONTEXT,
        cached: bool = False,
        spaces: int = 1,
        weights: int | None = None,
        steps: Sequence[int] = STEP_ROWS,
    ) -> None:
        """`context`: tokens of cache in all; `cached`: floats between operations stay in the caches;
        `spaces`: of addresses, 3 with mainline; `weights`: bytes of the artifact, None for those of the
        width; `steps`: the sizes that steps on the NPU may have. Raises BudgetError where the board has too
        little memory."""
        self._board, self._config, self._bits, self._cached = board, config, bits, cached
        self._linears = model_linears(config, bits, planes)
        size = weight_bytes(config, bits) if weights is None else weights
        self.plan = self._planned(context, spaces, size, steps) if board.has_npu else None

    def _planned(self, context: int, spaces: int, weights: int, steps: Sequence[int]) -> PrefillPlan:
        board, config = self._board, self._config

        def budget(rows: int) -> int:
            return npu_budget(
                board,
                config,
                context=context,
                rows=rows,
                weights=weights,
                others=weights + working_bytes(config, rows, context, int(board.value("cpu_cores"))),
                memory=None,
                free=None,
            )

        lanes = int(board.value("npu_cores"))
        return largest_plan(
            self._linears,
            lanes=lanes,
            spaces=spaces,
            board=board,
            context=context,
            budget=budget,
            sizes=steps,
        )

    def prompt(
        self, tokens: int, *, after: int = 0, fresh: bool = False, streamed: bool = False
    ) -> PromptTime:
        """`tokens` after a context of `after`. `fresh`: nothing is unpacked yet; `streamed`: no block has a
        slot of its own."""
        plan, config = self.plan, self._config
        steps = _cpu_steps(tokens) if plan is None else plan.chunks(tokens)
        elapsed = dict.fromkeys((*PARTS, HEAD), 0.0)
        alone = dict.fromkeys(LINEAR_SIDES, 0.0)
        syncs, start, macs = Sync(), after, 0.0
        each = sum(sum(linear.weights.values()) for linear in self._linears)
        for number, rows in enumerate(steps):
            if plan is None:
                elapsed[OTHER_CPU] += self._on_cpu(rows)
            elif not plan.takes(rows):
                elapsed[OTHER_CPU] += plan.times.cpu(rows)
            else:
                macs += rows * each
                unpacked = 1.0 if streamed or (fresh and number == 0) else None
                for count, time in plan.times.linears(rows, streamed=unpacked, cached=self._cached):
                    syncs += time.syncs.times(count)
                    for side in LINEAR_SIDES:
                        elapsed[side] += count * time.elapsed[side]
                        alone[side] += count * time.alone[side]
            for window, layers in Counter(config.windows or (0,) * config.layers).items():
                between = self.between(rows, start, window)
                elapsed[ATTENTION] += layers * between.attention
                elapsed[OTHER_CPU] += layers * between.other
            start += rows
        if not config.headless:
            elapsed[HEAD] = band_ms(self._bits, config.vocab, config.hidden, board=self._board) / 1e3
        pinned = 0.0 if plan is None else plan.pinned / len(plan.block_slot)
        return PromptTime(steps, elapsed, alone, syncs, pinned, macs)

    def _on_cpu(self, rows: int) -> float:
        kinds = Counter((one.outputs, one.inputs) for one in self._linears)
        by_kind = {(one.outputs, one.inputs): one for one in self._linears}
        return sum(
            count * cpu_linear_seconds(self._board, by_kind[kind], rows) for kind, count in kinds.items()
        )

    def between(self, rows: int, start: int, window: int = 0) -> BetweenLinears:
        """What a layer with that window does between its linears, for `rows` tokens after `start` others."""
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


def _cpu_steps(tokens: int) -> tuple[int, ...]:
    whole, rest = divmod(tokens, STEP_ROWS[-1])
    return (STEP_ROWS[-1],) * whole + ((rest,) if rest else ())
