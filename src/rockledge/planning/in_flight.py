"""A prompt with two chunks in flight: one's attention, norms and gates on the CPU beside the other's products
on the NPU. Modelled by the formula that prompts have today; the executor takes one chunk at a time.

Chunks A and B of one prompt go through a layer in turns:

    NPU   A q|k|v   B q|k|v   A o         B o         A gate|up   B gate|up   ...
    CPU             A attends B attends   A norms     B norms     A gates     ...

A's keys and values of a layer are in the cache before B attends, so nothing but the order of independent rows
changes. A turn takes as long as the slowest of NPU, bus and CPU with all that they do in it, and what the NPU
waits for cache maintenance between two jobs:

    turn = max(NPU + syncs between jobs, bytes of both chunks / bus,
               CPU beside the NPU + the other chunk between its linears + syncs between jobs)

A and B multiply with the same weights: what does not stay is unpacked once for both, half of it in each turn,
so the ring of slots has to hold all blocks of two linears, which leaves fewer that stay. Pairs follow one
another; the start of a pair and the end of its last turn have nothing beside them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.prefill import BESIDE, BUS, NPU, SYNC, BetweenLinears, LinearTime
from rockledge.model.config import ModelConfig
from rockledge.runtime.offload.plan import PrefillPlan
from rockledge.runtime.offload.prompt_time import HEAD, PromptTimes, layer_linears
from rockledge.runtime.offload.slots import RING


@dataclass(frozen=True)
class InFlight:
    """Modelled seconds of a prompt whose chunks of `rows` tokens go in pairs; `alone`: what NPU, bus and CPU
    have to do in all; `streamed`: the share of the weights that every pair unpacks."""

    rows: int
    seconds: float
    alone: Mapping[str, float]
    streamed: float

    @property
    def binds(self) -> str:
        """What has most to do."""
        return max(self.alone, key=lambda side: self.alone[side])


def in_flight(times: PromptTimes, board: Board, config: ModelConfig, tokens: int, rows: int) -> InFlight:
    """A prompt of `tokens` in chunks of `rows`, which must be a step size of the plan that the NPU takes.
    Raises ValueError where that is not so, and for a prompt that is not whole pairs."""
    plan = times.plan
    if plan is None or rows not in plan.steps or not plan.takes(rows) or tokens % (2 * rows):
        raise ValueError(f"{tokens} tokens are not pairs of {rows} that the NPU takes")
    streamed = streamed_share(plan, config)
    bus = board.value("npu_bus_bandwidth")
    seconds, alone = 0.0, {NPU: 0.0, BUS: 0.0, BESIDE: 0.0}
    linears = _by_linear(plan, config, rows, streamed / 2)
    for start in range(0, tokens, 2 * rows):
        for window, layers in Counter(config.windows or (0,) * config.layers).items():
            chunks = tuple(times.between(rows, at, window) for at in (start, start + rows))
            for linear, (cpu, moved) in _turns(linears, *chunks):
                waits = linear.elapsed[SYNC]
                sides = {
                    NPU: linear.alone[NPU] + waits,
                    BUS: linear.alone[BUS] + moved / bus,
                    BESIDE: linear.alone[BESIDE] + waits + cpu,
                }
                seconds += layers * max(sides.values())
                for side, value in sides.items():
                    alone[side] += layers * value
        # Before the first product of the pair A is quantised alone, after the last one B is added alone.
        first, last = (chunk.stages[-1][0] for chunk in chunks)
        seconds += first + last
    return InFlight(rows, seconds + times.prompt(tokens).elapsed[HEAD], alone, streamed)


def streamed_share(plan: PrefillPlan, config: ModelConfig) -> float:
    """The share of the weights that a pair unpacks: those that have no slot, and those that lose it to a
    ring that holds two linears following each other."""
    blocks = [plan.lanes * plan.shapes[at.shape].lane_bytes for at in plan.linears for _ in range(at.blocks)]
    stay = [slot < plan.pinned for slot in plan.block_slot]
    if all(stay):
        return 0.0
    ring = RING * max(size for size, stays in zip(blocks, stay, strict=True) if not stays)
    each = [outputs * inputs for outputs, inputs, _ in layer_linears(config)]
    needed = max(one + other for one, other in zip(each, (*each[1:], each[0]), strict=True))
    pinned = sum(size for size, stays in zip(blocks, stay, strict=True) if stays)
    left = max(0.0, pinned - max(0.0, needed - ring))
    return 1.0 - left / sum(blocks)


def _by_linear(plan: PrefillPlan, config: ModelConfig, rows: int, streamed: float) -> list[LinearTime]:
    """What the four linears of a layer take, in their order."""
    kinds = [(one.linear.outputs, one.linear.inputs) for one in plan.times.kinds]
    times = [time for _, time in plan.times.linears(rows, streamed=streamed)]
    return [times[kinds.index((outputs, inputs))] for outputs, inputs, _ in layer_linears(config)]


def _turns(
    linears: list[LinearTime], a: BetweenLinears, b: BetweenLinears
) -> Iterator[tuple[LinearTime, tuple[float, float]]]:
    """For every turn of a layer the linear, and seconds and bytes of what the CPU does for the chunk whose
    turn was before."""

    def after(chunk: BetweenLinears, linear: int) -> tuple[float, float]:
        seconds, moved = chunk.stages[linear]
        attends = linear == 0
        return seconds + attends * chunk.attention, moved + attends * chunk.attention_bytes

    for number, linear in enumerate(linears):
        yield linear, after(b, number - 1)  # of the layer before, where this is a layer's first
        yield linear, after(a, number)
