"""What of a prompt runs where: every operation of a model at a board's own plan, with the ways it could go.

The decision is `board/placement.py`; what a way takes is said by the formulas of `board/` for the runtime's
plan. Linears go to the NPU step by step, all together (`runtime/offload/threshold.py`), so their rows here
say what each one alone would want. Everything is modelled.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rockledge.board.attention_forms import CPU_SOFTMAX, NPU_SOFTMAX, npu_attention
from rockledge.board.boards import Board
from rockledge.board.npu_operators import (
    cpu_norm_seconds,
    cpu_softmax_seconds,
    npu_norm_seconds,
    npu_softmax_seconds,
)
from rockledge.board.placement import CPU, NPU, Placement, Way, place
from rockledge.board.prefill import cpu_linear_seconds
from rockledge.board.time import predict_decode
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.npu.programs.tile_search import plan as tiling_of
from rockledge.npu.programs.tiling import Product, Reuse, Sums, Tiling
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import LANE_LIMITS, PrefillPlan
from rockledge.runtime.offload.prompt_time import PromptTimes, layer_linears
from rockledge.runtime.offload.shapes import choose_columns, make_shape
from rockledge.runtime.offload.threshold import Offloaded, StepTimes

LINEARS: Final = ("q|k|v", "o", "gate|up", "down")
DECODE: Final = "linears of a token"
ATTENTION, SOFTMAX, NORM = "attention", "softmax alone", "norm alone"
NORMS_IN_LAYER: Final = 2
EXACT_INPUTS: Final = 512
"""Inputs of a part whose sums of int16 activations (two planes end at 32,512) and int8 weights are surely
below 2^31, where the chip's int16 products saturate (GRN2, chips/rk3588.md)."""
ATTENTION_FORMS: Final = (CPU_SOFTMAX, NPU_SOFTMAX)
"""Those that may be chosen: without the largest score of a row, the third has no bound on its error."""


@dataclass(frozen=True)
class BufferUse:
    """Of the NPU's buffer: banks for activations (with the spare one) and for weights; bytes that are loaded
    again after the first time, because they did not stay there or each core wants its own."""

    data_banks: int
    weight_banks: int
    refetched: int


@dataclass(frozen=True)
class PlacedOperator:
    """An operation of all layers and the whole prompt; `size`: its shape in words; `buffer` of one layer's
    largest step, None without a product on the NPU."""

    operator: str
    size: str
    placement: Placement
    ways: tuple[Way, ...]
    buffer: BufferUse | None = None


@dataclass(frozen=True)
class PlaneForm:
    """A product of one step with activations in one of three forms: seconds of the NPU with its sums read
    back, and of the CPU (None: it has no such form); `bits` that the activations keep."""

    form: str
    bits: int
    npu: float
    cpu: float | None
    buffer: BufferUse


def placements(times: PromptTimes, board: Board, config: ModelConfig, tokens: int) -> list[PlacedOperator]:
    """Every operation of a prompt of `tokens` after an empty context, on a board whose NPU has a plan for
    the model (`times`). Raises ValueError where it has none."""
    plan = times.plan
    if plan is None:
        raise ValueError("a placement needs a board with an NPU that has a plan for the model")
    steps = plan.chunks(tokens)
    starts = [sum(steps[:number]) for number in range(len(steps))]
    found = list(_linears(plan, board, config, steps))

    chunks = list(zip(steps, starts, strict=True))
    on_cpu = sum(_cpu_attention(times, config, rows, start) for rows, start in chunks)
    forms = tuple(
        Way(NPU, sum(_npu_attention(board, config, rows, start, form) for rows, start in chunks), form)
        for form in ATTENTION_FORMS
    )
    found.append(_placed(ATTENTION, f"{config.heads} heads of {config.head_dim}", (Way(CPU, on_cpu), *forms)))
    scores = config.heads * sum(count * _seen(tokens, window) for window, count in _windows(config).items())
    ways = Way(CPU, cpu_softmax_seconds(board, scores)), Way(NPU, npu_softmax_seconds(board, scores))
    found.append(_placed(SOFTMAX, f"{scores / 1e6:,.0f} M scores", ways))
    norms = NORMS_IN_LAYER * config.layers
    ways = (
        Way(CPU, norms * sum(cpu_norm_seconds(board, rows, config.hidden) for rows in steps)),
        Way(NPU, norms * sum(npu_norm_seconds(board, rows, config.hidden) for rows in steps)),
    )
    found.append(_placed(NORM, f"{norms} of {config.hidden}", ways))
    return found


def decode_placement(plan: PrefillPlan, board: Board, config: ModelConfig, bits: int) -> PlacedOperator:
    """The linears of one token of an answer."""
    each = [(bits, n, k) for n, k, _ in layer_linears(config)] * config.layers
    on_cpu = predict_decode(each, board=board).ms_per_token / 1e3
    ways = Way(CPU, on_cpu), Way(NPU, plan.times.npu(1), f"{plan.lanes} cores")
    return _placed(DECODE, "1 row", ways)


def attention_from(times: PromptTimes, board: Board, config: ModelConfig, tokens: int) -> int | None:
    """The position from which on the largest step's attention is faster on the NPU, of those up to `tokens`
    where steps begin; None where the last one's is not. An advice for the threshold of a recipe or flag,
    which is a position so that results depend on nothing else."""
    rows, found = STEP_ROWS[-1], None
    for start in range(0, tokens, rows):
        on_npu = min(_npu_attention(board, config, rows, start, form) for form in ATTENTION_FORMS)
        ways = Way(CPU, _cpu_attention(times, config, rows, start)), Way(NPU, on_npu)
        if place(ways).choice.place == CPU:
            found = None
        elif found is None:
            found = start
    return found


def plane_forms(outputs: int, inputs: int, rows: int, bits: int, board: Board) -> tuple[PlaneForm, ...]:
    """Products [rows, inputs] x [outputs, inputs] with activations of one int8 plane, of two, and of the
    chip's own int16; weights are int8 values.

    An int16 operand has the bytes of twice as many int8 inputs, and its products take twice as long: so it is
    planned as twice the inputs, in parts that cannot saturate.
    """

    def form(name: str, kept: int, planes: int | None, tiling: Tiling) -> PlaneForm:
        cpu = None
        if planes is not None:
            one = Linear(0, outputs, inputs, planes, {bits: outputs * inputs}, outputs * inputs * bits // 8)
            cpu = cpu_linear_seconds(board, one, rows)
        return PlaneForm(name, kept, tiling.cost.seconds, cpu, _use(tiling, 1))

    parts = -(-inputs // EXACT_INPUTS)
    return (
        form("one int8 plane", 8, 1, tiling_of(rows, outputs, inputs)),
        form("two int8 planes", 16, 2, tiling_of(2 * rows, outputs, inputs)),
        form(
            "the chip's int16",
            16,
            None,
            tiling_of(rows, outputs, 2 * inputs, parts=parts, sums=Sums.HOST if parts > 1 else None),
        ),
    )


def _windows(config: ModelConfig) -> Counter[int]:
    """Layers by the positions that their attention sees, 0 for all."""
    return Counter(config.windows or (0,) * config.layers)


def _seen(tokens: int, window: int) -> int:
    """Pairs of a position and one that it sees."""
    beyond = max(0, tokens - window) if window else 0
    return (tokens * (tokens + 1) - beyond * (beyond + 1)) // 2


def _cpu_attention(times: PromptTimes, config: ModelConfig, rows: int, start: int) -> float:
    """Seconds of all layers."""
    layers = _windows(config).items()
    return sum(count * times.between(rows, start, window).attention for window, count in layers)


def _npu_attention(board: Board, config: ModelConfig, rows: int, start: int, form: str) -> float:
    """Seconds of all layers."""
    return sum(
        count * npu_attention(board, config, rows, start, form, window=window).seconds
        for window, count in _windows(config).items()
    )


def _linears(
    plan: PrefillPlan, board: Board, config: ModelConfig, steps: tuple[int, ...]
) -> Iterator[PlacedOperator]:
    """Rows of the four products of a layer, each with all cores as planned, and with fewer."""
    for name, (outputs, inputs, _) in zip(LINEARS, layer_linears(config), strict=True):
        planned = on_cpu = 0.0
        kinds = [
            (number, one)
            for number, one in enumerate(plan.times.kinds)
            if (one.linear.outputs, one.linear.inputs) == (outputs, inputs)
        ]
        for rows in steps:
            found = list(plan.times.linears(rows))
            for number, one in kinds:
                count, time = found[number]
                planned += count * time.seconds
                on_cpu += count * cpu_linear_seconds(board, one.linear, rows)
        example = kinds[0][1]
        streamed = sum(found[n][0] * one.streamed / one.blocks for n, one in kinds) / config.layers

        def narrower(lanes: int, example: Offloaded = example, streamed: float = streamed) -> float:
            each = Counter(steps)
            return config.layers * sum(
                count * _seconds(board, plan, example, rows, lanes, streamed) for rows, count in each.items()
            )

        fewer = tuple(
            Way(NPU, narrower(lanes), f"{lanes} core{'s' * (lanes > 1)}")
            for lanes in range(plan.lanes - 1, 0, -1)
        )
        ways = Way(CPU, on_cpu), Way(NPU, planned, f"{plan.lanes} cores"), *fewer
        size = next(size for size in example.shape.sizes if steps[0] <= size.rows)
        use = _use(size.matmul.tiling, plan.lanes * example.blocks)
        yield _placed(name, f"{outputs} x {inputs}", ways, use)


def _seconds(
    board: Board, plan: PrefillPlan, planned: Offloaded, rows: int, lanes: int, streamed: float
) -> float:
    """A linear cut for so many cores, by the runtime's own rule and with lanes no wider than planned."""
    linear = planned.linear
    columns = choose_columns(
        linear,
        plan.steps[-1],
        board,
        lanes,
        most_bytes=next(limit for limit in reversed(LANE_LIMITS) if planned.shape.lane_bytes <= limit),
        streamed=streamed > 0,
        chained=True,
    )
    shape = make_shape(linear, columns, plan.steps, board, lanes, chained=True)
    one = Offloaded(linear, shape, shape.blocks(linear.outputs, lanes), 0)
    ((_, time),) = StepTimes([one], plan.steps, lanes, 1, board).linears(rows, streamed=streamed)
    return time.seconds


def _use(tiling: Tiling, times: int) -> BufferUse:
    """Of `times` matmuls cut like this one."""
    products = [task for task in tiling.tasks() if isinstance(task, Product)]
    loaded = sum(
        task.inputs.size
        * (
            (task.reuse is not Reuse.DATA) * task.rows.size
            + (task.reuse is not Reuse.WEIGHT) * task.columns.size
        )
        for task in products
    )
    once = tiling.padded_inputs * (tiling.padded_rows + times * tiling.padded_columns)
    return BufferUse(products[0].data_banks, products[0].weight_banks, times * loaded - once)


def _placed(
    operator: str, size: str, ways: tuple[Way, ...], buffer: BufferUse | None = None
) -> PlacedOperator:
    return PlacedOperator(operator, size, place(ways), ways, buffer)
