"""What the CPU does beside the NPU for a block of columns, in modelled seconds of all big cores."""

from dataclasses import dataclass

from rockledge.board.boards import Board
from rockledge.board.prefill import unpack_seconds
from rockledge.npu.programs.tile_program import SUM_BYTES
from rockledge.runtime.offload.linears import Linear


@dataclass(frozen=True)
class BlockWork:
    """`epilogue`: sums to floats. `unpack`: codes to int8. The bytes that either moves over the bus."""

    epilogue: float
    unpack: float
    epilogue_bytes: float
    unpack_bytes: float


def block_work(linear: Linear, rows: int, columns: int, parts: int, board: Board) -> BlockWork:
    """The work of a block of `columns` of `linear`, `rows` tokens, sums in `parts` planes."""
    share = columns / linear.outputs
    cycles = board.value("cpu_epilogue_cycles") + parts * board.value("cpu_epilogue_cycles_per_part")
    sums = rows * linear.planes * columns
    read = SUM_BYTES * parts * sums
    each = board.value("cpu_cores") * board.value("cpu_hz")
    unpacking = (unpack_seconds(board, count, bits, for_npu=True) for bits, count in linear.weights.items())
    written = columns * linear.inputs
    return BlockWork(
        epilogue=max(sums * cycles / each, read / board.value("cpu_read_bandwidth")),
        unpack=share * sum(unpacking),
        epilogue_bytes=read,
        unpack_bytes=share * linear.stored_bytes + written,
    )
