"""The one formula for milliseconds, and the decode speed that follows from it. Everything here is modelled.

    ms of a band = max(bytes / bandwidth, weights x cycles per weight / (cores x clock))

Cycles are those of the rows of activations together: up to four multiply while the codes stream in, and more
multiply what was unpacked once. It is a roofline: thread joins, norms and attention arithmetic are not in it;
a real board is a little slower.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rockledge.board.boards import PROGRAMMED, Board
from rockledge.board.cycles import STREAMED_ROWS, cycles_fact
from rockledge.board.tiles import stored_bytes

DEFAULT_BOARD = PROGRAMMED


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
    """Modelled speed of each of the sequences that a step serves. `bytes_per_token` = weights streamed + KV
    read in a step."""

    decode_tok_s: float
    ms_per_token: float
    bytes_per_token: int
    basis: str = "modelled"


def band_time(
    bits: int, rows: int, cols: int, *, board: Board = DEFAULT_BOARD, planes: int = 1, tokens: int = 1
) -> BandTime:
    """Modelled time of `tokens` through one band on all big cores, one of each of as many sequences.
    `planes`: activation planes (1 or 2)."""
    size = stored_bytes(bits, rows, cols)
    cycles = rows * cols * _cycles_per_weight(board, bits, planes * tokens)
    return BandTime(
        stored_bytes=size,
        memory_ms=1e3 * size / board.value("cpu_read_bandwidth"),
        compute_ms=1e3 * cycles / (board.value("cpu_cores") * board.value("cpu_hz")),
    )


def _cycles_per_weight(board: Board, bits: int, vectors: int) -> float:
    """Cycles that one core spends on a weight of width `bits` for so many rows of int8 activations."""
    if vectors > STREAMED_ROWS:
        unpack = board.value(f"cpu_unpack_cycles_per_weight_{bits}_bits")
        return unpack + vectors / board.value("cpu_prefill_macs_per_cycle")
    one, two = (board.value(cycles_fact(bits, rows)) for rows in (1, 2))
    return one + (vectors - 1) * (two - one)


def band_ms(bits: int, rows: int, cols: int, *, board: Board = DEFAULT_BOARD, planes: int = 1) -> float:
    """Modelled milliseconds of one token through one band (see `band_time`)."""
    return band_time(bits, rows, cols, board=board, planes=planes).ms


def predict_decode(
    bands: Iterable[tuple[int, int, int]],
    *,
    kv_bytes_read: int = 0,
    board: Board = DEFAULT_BOARD,
    sequences: int = 1,
) -> DecodePrediction:
    """Modelled decode speed of a model whose matrices are `bands` of (bits, rows, cols).

    List every matrix that a token multiplies with: all linears and the head. An input embedding that is only
    gathered does not belong in it; a tied matrix is listed once, as the head. `kv_bytes_read` is what
    attention reads for one of the `sequences` at the context in question (`memory.kv_bytes`).
    """
    counted = Counter(bands)
    times = {band: band_time(*band, board=board, tokens=sequences) for band in counted}
    ms = sum(n * times[band].ms for band, n in counted.items())
    ms += 1e3 * sequences * kv_bytes_read / board.value("cpu_read_bandwidth")
    return DecodePrediction(
        decode_tok_s=1e3 / ms,
        ms_per_token=ms,
        bytes_per_token=sum(n * times[band].stored_bytes for band, n in counted.items())
        + sequences * kv_bytes_read,
    )
