"""From how many tokens a step is faster on the NPU: the time formula for both sides, linears only.

What stays on the CPU either way (attention, norms, gates) is left out. All modelled:

    CPU of a linear = max(its bytes / bandwidth, (unpacking + tokens x products) / four big cores)
    NPU of a linear = its first block + for each other block max(NPU, CPU work beside it, bytes / bus)
                      + the last block's epilogue

where a block takes the NPU as long as the step's padded size does, and the CPU beside it turns the sums of
the block before into floats and unpacks the one behind it, if that passes through the ring.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.prefill import unpack_seconds
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.shapes import Shape, Size
from rockledge.runtime.offload.work import block_work


@dataclass(frozen=True)
class Offloaded:
    """A linear as the NPU does it: in `blocks`, of which `streamed` are unpacked in every step."""

    linear: Linear
    shape: Shape
    blocks: int
    streamed: int


def threshold(linears: Sequence[Offloaded], steps: Sequence[int], lanes: int, board: Board) -> int:
    """The least number of tokens from which on every step is faster on the NPU; one more than the largest
    step where none is."""
    alike = Counter((one.shape, one.blocks, one.streamed, _sizes(one.linear)) for one in linears)
    kinds = {(one.shape, one.blocks, one.streamed, _sizes(one.linear)): one for one in linears}
    counted = [(kinds[kind], times) for kind, times in alike.items()]

    def gains(tokens: int) -> bool:
        size = next(number for number, rows in enumerate(steps) if tokens <= rows)
        npu = sum(times * npu_seconds(one, size, tokens, lanes, board) for one, times in counted)
        cpu = sum(times * cpu_seconds(one.linear, tokens, board) for one, times in counted)
        return npu < cpu

    tokens = steps[-1]
    while tokens and gains(tokens):
        tokens -= 1
    return tokens + 1


def cpu_seconds(linear: Linear, tokens: int, board: Board) -> float:
    """A linear on the CPU: codes are unpacked once, then every token multiplies."""
    unpack = sum(unpack_seconds(board, count, bits) for bits, count in linear.weights.items())
    products = tokens * linear.planes * sum(linear.weights.values())
    rate = board.value("cpu_cores") * board.value("cpu_hz") * board.value("cpu_prefill_macs_per_cycle")
    return max(linear.stored_bytes / board.value("cpu_read_bandwidth"), unpack + products / rate)


def npu_seconds(one: Offloaded, size: int, tokens: int, lanes: int, board: Board) -> float:
    """A linear on the NPU, in a step of `tokens` padded to step size number `size`."""
    programs: Size = one.shape.sizes[size]
    cost = programs.matmul.tiling.cost
    columns = lanes * one.shape.lane_columns
    work = block_work(one.linear, tokens, columns, programs.sums, board)
    streamed = one.streamed / one.blocks
    cpu = work.epilogue + streamed * work.unpack
    moved = lanes * cost.moved_bytes + work.epilogue_bytes + streamed * work.unpack_bytes
    each = max(cost.npu_seconds, cpu, moved / board.value("npu_bus_bandwidth"))
    return cost.npu_seconds + (one.blocks - 1) * each + work.epilogue


def _sizes(linear: Linear) -> tuple[int, int, int, tuple[tuple[int, int], ...], int]:
    weights = tuple(sorted(linear.weights.items()))
    return linear.outputs, linear.inputs, linear.planes, weights, linear.stored_bytes
