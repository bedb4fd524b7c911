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


class StepTimes:
    """Modelled seconds of a step's linears by its tokens, on either side."""

    def __init__(self, linears: Sequence[Offloaded], steps: Sequence[int], lanes: int, board: Board) -> None:
        kinds = {_kind(one): one for one in linears}
        times = Counter(map(_kind, linears))
        self._counted = [(one, times[kind]) for kind, one in kinds.items()]
        self._steps, self._lanes, self._board = tuple(steps), lanes, board

    def npu(self, tokens: int) -> float:
        """With the programs of the next step size."""
        size = next(number for number, rows in enumerate(self._steps) if tokens <= rows)
        return sum(n * npu_seconds(one, size, tokens, self._lanes, self._board) for one, n in self._counted)

    def cpu(self, tokens: int) -> float:
        """Without the NPU."""
        return sum(n * cpu_seconds(one.linear, tokens, self._board) for one, n in self._counted)

    def threshold(self) -> int:
        """The least number of tokens from which on every step is faster on the NPU; one more than the largest
        step where none is."""
        tokens = self._steps[-1]
        while tokens and self.npu(tokens) < self.cpu(tokens):
            tokens -= 1
        return tokens + 1

    def chunks(self, tokens: int, from_rows: int) -> tuple[int, ...]:
        """The steps in which a prompt of `tokens` takes least time: padding costs as much as tokens do, one
        more step reads the weights again. Steps below `from_rows` are the CPU's."""
        largest = self._steps[-1]
        whole, rest = divmod(tokens, largest)
        return (largest,) * whole + (self._split(rest, from_rows, largest)[1] if rest else ())

    def _split(self, tokens: int, from_rows: int, most: int) -> tuple[float, tuple[int, ...]]:
        """Seconds and sizes of the best: one step, or a full one of up to `most` and the best behind it."""
        best: tuple[float, tuple[int, ...]]
        best = self.npu(tokens) if tokens >= from_rows else self.cpu(tokens), (tokens,)
        for rows in self._steps:
            if from_rows <= rows < tokens and rows <= most:
                seconds, others = self._split(tokens - rows, from_rows, rows)
                best = min(best, (self.npu(rows) + seconds, (rows, *others)))
        return best


def cpu_seconds(linear: Linear, tokens: int, board: Board) -> float:
    """A linear on the CPU: codes are unpacked once, then every token multiplies."""
    unpack = sum(unpack_seconds(board, count, bits, for_npu=False) for bits, count in linear.weights.items())
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


def _kind(one: Offloaded) -> tuple[object, ...]:
    linear = one.linear
    weights = tuple(sorted(linear.weights.items()))
    sizes = linear.outputs, linear.inputs, linear.planes, weights, linear.stored_bytes
    return one.shape, one.blocks, one.streamed, sizes
