"""How a linear is cut for the NPU: blocks of columns, a lane of each block for every core, programs.

The columns of a linear are cut into blocks, a block into as many lanes as the device has cores, all of
`lane_columns`. What lies beyond the linear's width is computed and dropped. Linears of equal lane, inputs and
planes share their programs: a shape.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from rockledge.board.boards import Board
from rockledge.board.npu_syncs import LaneBytes, ranged_syncs, whole_syncs
from rockledge.board.npu_time import NpuRates, npu_rates
from rockledge.board.prefill import Cut, npu_linear
from rockledge.errors import NpuError
from rockledge.npu.programs.marks import marks
from rockledge.npu.programs.matmul import Launch, Matmul
from rockledge.npu.programs.steps import step_matmuls
from rockledge.npu.programs.tile_program import LARGEST_SIZE, SUM_BYTES
from rockledge.npu.programs.tile_search import UNIT, plan
from rockledge.npu.programs.tiling import Product, Reuse, Sums
from rockledge.npu.stream import Program
from rockledge.runtime.offload.linears import Linear

MOST_BLOCKS = 64


@dataclass(frozen=True)
class Size:
    """The programs of a shape for steps of up to `rows` tokens, the same on every lane."""

    rows: int
    matmul: Matmul

    @property
    def launch(self) -> Launch:
        """All of it: one kick."""
        return self.matmul.launches[0]

    @property
    def program(self) -> Program:
        """What a lane's core runs."""
        (chain,) = self.launch.chains
        assert chain is not None
        return chain

    @property
    def tile_starts(self) -> tuple[int, ...]:
        """First vector of every row tile, and the end of the last; a token of two planes is two vectors."""
        return (*(tile.start for tile in self.matmul.tiling.row_tiles), self.matmul.tiling.padded_rows)

    @property
    def sums(self) -> int:
        """Planes of sums in the output, which the epilogue adds."""
        tiling = self.matmul.tiling
        return len(tiling.input_parts) if tiling.sums is Sums.HOST else 1

    @cached_property
    def marks(self) -> int:
        """Places in a lane's results that show whether its programs ran."""
        return len(marks(self.program))

    def used_vectors(self, vectors: int) -> int:
        """Vectors of the row tiles that hold the first `vectors` of a step: these are synced, the others are
        padding."""
        return next(start for start in self.tile_starts if start >= vectors)

    def bytes(self, role: str) -> int:
        """What a lane needs of a buffer."""
        return self.launch.sizes[role]

    def with_seconds(self, seconds: float) -> "Size":
        """The same, with the measured `seconds` of a job of all lanes."""
        tiling = self.matmul.tiling
        cost = replace(tiling.cost, npu_seconds=seconds)
        return replace(self, matmul=replace(self.matmul, tiling=replace(tiling, cost=cost)))


@dataclass(frozen=True)
class Shape:
    """Programs for every step size over one packing of the weights. `inputs` is padded to 32."""

    inputs: int
    planes: int
    lane_columns: int
    sizes: tuple[Size, ...]

    @property
    def part_starts(self) -> tuple[int, ...]:
        """First input of every part, and the end of the last."""
        return (*(part.start for part in self.sizes[0].matmul.tiling.input_parts), self.inputs)

    @property
    def lane_bytes(self) -> int:
        """Int8 weights of a lane of one block."""
        return self.lane_columns * self.inputs

    def blocks(self, outputs: int, lanes: int) -> int:
        """Blocks of a linear of that width."""
        return -(-outputs // (lanes * self.lane_columns))

    def most(self, role: str) -> int:
        """Bytes of a lane's buffer that serves all step sizes; roles input and output."""
        return max(size.bytes(role) for size in self.sizes)


def lane_rates(board: Board, lanes: int) -> NpuRates:
    """The rates of one core while all of them work: an equal part of the bus, all of its own products."""
    rates = npu_rates(board)
    return replace(rates, cores=1, bus_bandwidth=rates.bus_bandwidth / lanes)


def make_shape(
    linear: Linear, lane_columns: int, steps: Sequence[int], board: Board, lanes: int, *, chained: bool
) -> Shape:
    """The programs of `linear` cut into lanes of `lane_columns`, for steps of these many tokens.

    `chained`: a lane's programs run in one kick. Where every program is a kick, as with mainline's driver,
    none may count on what another left in the buffer [H]. The CPU adds the sums of input parts: so every
    program writes a place of its own, which is marked (`npu/programs/marks.py`).
    Raises NpuError for a lane that does not fit one job.
    """
    rates = lane_rates(board, lanes)
    return _make_shape(linear.inputs, linear.planes, lane_columns, tuple(steps), rates, chained)


@lru_cache(maxsize=64)
def _make_shape(
    inputs: int, planes: int, lane_columns: int, steps: tuple[int, ...], rates: NpuRates, chained: bool
) -> Shape:
    # Activations that stay let a program take all columns of the lane: there is none to leave them to.
    stays = None if chained else Reuse.DATA
    matmuls = step_matmuls(
        lane_columns, inputs, planes, rates=rates, sizes=steps, stays=stays, sums=Sums.HOST
    )
    for rows, matmul in matmuls.items():
        reused = any(
            isinstance(task, Product) and task.reuse is not Reuse.NONE for task in matmul.tiling.tasks()
        )
        if reused and not chained:
            raise NpuError(
                f"{lane_columns} columns take programs that reuse each other's operands, which works within "
                "one kick only; cut the columns into more blocks"
            )
        if len(matmul.launches) != 1:
            raise NpuError(
                f"{rows} rows x {lane_columns} columns x {inputs} inputs take {len(matmul.launches)} kicks, "
                "expected one; cut the columns into more blocks"
            )
    return Shape(inputs, planes, lane_columns, tuple(Size(rows, m) for rows, m in matmuls.items()))


def choose_columns(
    linear: Linear,
    rows: int,
    board: Board,
    lanes: int,
    *,
    most_bytes: int,
    streamed: bool,
    chained: bool,
) -> int:
    """Columns of a lane for which `linear` takes least time with `rows` tokens, its weights at most
    `most_bytes` a lane if there is a way. `streamed`: blocks are unpacked on the way. `chained` as for
    `make_shape`.

    One tiling is searched, for the widest lane; what narrower ones take follows from it, because a kick's
    time is a part that every block has (dispatch, loading activations) and one that grows with its columns.
    """
    widths = [width for width in _widths(linear.outputs, lanes) if width * linear.inputs <= most_bytes]
    if not widths:
        return UNIT
    rates = lane_rates(board, lanes)
    vectors = rows * linear.planes
    stays = None if chained else Reuse.DATA
    widest = plan(vectors, widths[0], linear.inputs, rates=rates, stays=stays)
    loaded = vectors * linear.inputs
    fixed = rates.dispatch_seconds + loaded / rates.share(1)
    growing = max(widest.cost.npu_seconds - fixed, 0.0) / widths[0]
    moved = max(widest.cost.moved_bytes - loaded, 0.0) / widths[0]

    sums, programs = len(widest.input_parts), sum(1 for _ in widest.tasks())

    def seconds(width: int) -> float:
        plane = SUM_BYTES * vectors * width
        lane = LaneBytes(
            input=loaded,
            plane=plane,
            weights=width * linear.inputs,
            words=int(rates.program_bytes) * programs,
            sums=sums,
            programs=programs,
            marks=programs,
            input_buffer=loaded,
            output_buffer=sums * plane,
        )
        cut = Cut(
            blocks=-(-linear.outputs // (lanes * width)),
            columns=lanes * width,
            parts=sums,
            npu_seconds=fixed + growing * width,
            moved_bytes=lanes * (loaded + moved * width),
            syncs=(ranged_syncs if chained else whole_syncs)(lane, lanes),
        )
        return npu_linear(board, linear, cut, rows, streamed=float(streamed)).seconds

    return min(widths, key=seconds)


def _widths(outputs: int, lanes: int) -> Iterator[int]:
    """Lane widths for 1, 2, ... blocks, widest first, without repetitions; one program takes any of them."""
    last = 0
    for blocks in range(1, MOST_BLOCKS + 1):
        width = -(-outputs // (lanes * blocks * UNIT)) * UNIT
        if width != last and width <= LARGEST_SIZE:
            yield width
        last = width
