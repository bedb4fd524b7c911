"""The one formula for milliseconds, and the decode speed that follows from it. Everything here is modelled.

    ms of a band = max(bytes / bandwidth, weights x cycles per weight / (cores x clock))

It is a roofline: thread joins, norms and attention arithmetic are not in it; a real board is a little slower.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rockledge.board.boards import BOARDS, Board
from rockledge.board.cycles import cycles_fact
from rockledge.board.tiles import stored_bytes

DEFAULT_BOARD = BOARDS["rk3588-8gb"]


@dataclass(frozen=True)
class BandTime:
    """What one decode step spends on one band: bytes streamed, and modelled milliseconds by either wall."""

    stored_bytes: int
    memory_ms: float
    compute_ms: float

    @property
    def ms(self) -> float:
        """Milliseconds: whichever of the two walls is hit first."""
        return max(self.memory_ms, self.compute_ms)


@dataclass(frozen=True)
class DecodePrediction:
    """Modelled speed of one sequence. `bytes_per_token` = weights streamed + KV read."""

    decode_tok_s: float
    ms_per_token: float
    bytes_per_token: int
    basis: str = "modelled"


def band_time(bits: int, rows: int, cols: int, *, board: Board = DEFAULT_BOARD, planes: int = 1) -> BandTime:
    """Modelled time of one token through one band on all big cores. `planes`: activation planes (1 or 2)."""
    size = stored_bytes(bits, rows, cols)
    cycles = rows * cols * board.value(cycles_fact(bits, planes))
    return BandTime(
        stored_bytes=size,
        memory_ms=1e3 * size / board.value("cpu_read_bandwidth"),
        compute_ms=1e3 * cycles / (board.value("cpu_cores") * board.value("cpu_hz")),
    )


def band_ms(bits: int, rows: int, cols: int, *, board: Board = DEFAULT_BOARD, planes: int = 1) -> float:
    """Modelled milliseconds of one token through one band (see `band_time`)."""
    return band_time(bits, rows, cols, board=board, planes=planes).ms


def predict_decode(
    bands: Iterable[tuple[int, int, int]], *, kv_bytes_read: int = 0, board: Board = DEFAULT_BOARD
) -> DecodePrediction:
    """Modelled decode speed of a model whose matrices are `bands` of (bits, rows, cols).

    List every matrix that a token multiplies with: all linears and the head. An input embedding that is only
    gathered does not belong in it; a tied matrix is listed once, as the head. `kv_bytes_read` is what
    attention reads at the context in question (`memory.kv_bytes`).
    """
    times = [band_time(bits, rows, cols, board=board) for bits, rows, cols in bands]
    ms = sum(t.ms for t in times) + 1e3 * kv_bytes_read / board.value("cpu_read_bandwidth")
    return DecodePrediction(
        decode_tok_s=1e3 / ms,
        ms_per_token=ms,
        bytes_per_token=sum(t.stored_bytes for t in times) + kv_bytes_read,
    )
