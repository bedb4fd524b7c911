"""From how many tokens a step is faster on the NPU, and in which steps prefill of a prompt is fastest.

Both follow from the time of linears (`board/prefill.py`). What stays on the CPU either way (attention, norms,
gates) is left out. All modelled.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.npu_syncs import LaneBytes, ranged_syncs, whole_syncs
from rockledge.board.placement import CPU, NPU, Placement, Way, place
from rockledge.board.prefill import Cut, LinearTime, cpu_linear_seconds, npu_linear
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SUM_BYTES
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.shapes import Shape


@dataclass(frozen=True)
class Offloaded:
    """A linear as the NPU does it: in `blocks`, of which `streamed` are unpacked in every step."""

    linear: Linear
    shape: Shape
    blocks: int
    streamed: int


class StepTimes:
    """Modelled seconds of a step's linears by its tokens, on either side."""

    def __init__(
        self, linears: Sequence[Offloaded], steps: Sequence[int], lanes: int, spaces: int, board: Board
    ) -> None:
        kinds = {_kind(one): one for one in linears}
        times = Counter(map(_kind, linears))
        self._counted = [(one, times[kind]) for kind, one in kinds.items()]
        self._steps, self._lanes, self._spaces, self._board = tuple(steps), lanes, spaces, board
        shapes = [one.shape for one in kinds.values()]
        self._buffers = {role: max((s.most(role) for s in shapes), default=0) for role in (INPUT, OUTPUT)}

    @property
    def kinds(self) -> tuple[Offloaded, ...]:
        """One linear of each kind, in the order of what `linears` and `cuts` give."""
        return tuple(one for one, _ in self._counted)

    def linears(
        self, tokens: int, *, streamed: float | None = None, cached: bool = False
    ) -> Iterator[tuple[int, LinearTime]]:
        """For each kind of linear, how many there are and what one takes on the NPU, with the programs of the
        next step size. `streamed`: the share of every linear's blocks that is unpacked on the way, None for
        that of the plan; `cached` as for `npu_linear`."""
        for (one, count), (_, cut) in zip(self._counted, self.cuts(tokens), strict=True):
            share = one.streamed / one.blocks if streamed is None else streamed
            yield count, npu_linear(self._board, one.linear, cut, tokens, streamed=share, cached=cached)

    def cuts(self, tokens: int) -> Iterator[tuple[int, Cut]]:
        """For each kind of linear, how many there are and what the NPU does for one in a step of `tokens`."""
        return ((count, self._cut(one, tokens)) for one, count in self._counted)

    def _cut(self, one: Offloaded, tokens: int) -> Cut:
        shape = one.shape
        size = next(size for size in shape.sizes if tokens <= size.rows)
        used = size.used_vectors(tokens * shape.planes)
        lane = LaneBytes(
            input=used * shape.inputs,
            plane=SUM_BYTES * used * shape.lane_columns,
            weights=shape.lane_bytes,
            words=size.program.size_bytes,
            sums=size.sums,
            programs=len(size.program.starts),
            marks=size.marks,
            input_buffer=self._buffers[INPUT],
            output_buffer=self._buffers[OUTPUT],
        )
        syncs = (ranged_syncs if self._spaces == 1 else whole_syncs)(lane, self._lanes)
        cost = size.matmul.tiling.cost
        columns = self._lanes * shape.lane_columns
        return Cut(one.blocks, columns, size.sums, cost.npu_seconds, self._lanes * cost.moved_bytes, syncs)

    def npu(self, tokens: int) -> float:
        """With the programs of the next step size."""
        return sum(count * time.seconds for count, time in self.linears(tokens))

    def cpu(self, tokens: int) -> float:
        """Without the NPU."""
        return sum(n * cpu_linear_seconds(self._board, one.linear, tokens) for one, n in self._counted)

    def placed(self, tokens: int, most: int | None = None) -> Placement:
        """Where a step's linears run; `most`: as if the NPU had so many tokens."""
        return place((Way(CPU, self.cpu(tokens)), Way(NPU, self.npu(most or tokens))))

    def threshold(self) -> int:
        """The least number of tokens from which on every step is faster on the NPU; one more than the largest
        step where none is."""
        for smaller, size in zip((*self._steps[-2::-1], 0), reversed(self._steps), strict=True):
            if last := self._last_slower(smaller + 1, size):
                return last + 1
        return 1

    def _last_slower(self, first: int, last: int) -> int:
        """The most tokens, of `first` to `last`, with which a step is not faster on the NPU; 0 for none. All
        take the same programs, so more tokens take neither side less time."""
        if self.placed(first, last).choice.place == NPU:
            return 0
        if first == last:
            return first
        middle = (first + last) // 2
        return self._last_slower(middle + 1, last) or self._last_slower(first, middle)

    def chunks(self, tokens: int, from_rows: int) -> tuple[int, ...]:
        """The steps in which a prompt of `tokens` takes least time: padding costs as much as tokens do, one
        more step reads the weights again. Steps below `from_rows` are the CPU's."""
        largest = self._steps[-1]
        whole, rest = divmod(tokens, largest)
        return (largest,) * whole + (self._split(rest, from_rows, largest)[1] if rest else ())

    def _split(self, tokens: int, from_rows: int, most: int) -> tuple[float, tuple[int, ...]]:
        """Seconds and sizes of the best: one step, or a full one of up to `most` and the best of the rest."""
        best: tuple[float, tuple[int, ...]]
        best = self.npu(tokens) if tokens >= from_rows else self.cpu(tokens), (tokens,)
        for rows in self._steps:
            if from_rows <= rows < tokens and rows <= most:
                seconds, others = self._split(tokens - rows, from_rows, rows)
                best = min(best, (self.npu(rows) + seconds, (rows, *others)))
        return best


def _kind(one: Offloaded) -> tuple[object, ...]:
    linear = one.linear
    weights = tuple(sorted(linear.weights.items()))
    sizes = linear.outputs, linear.inputs, linear.planes, weights, linear.stored_bytes, linear.adds
    # By identity: a shape holds its programs, which take long to hash.
    return id(one.shape), one.blocks, one.streamed, sizes
