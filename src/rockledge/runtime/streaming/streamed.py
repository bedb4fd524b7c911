"""An artifact whose weights do not fit into a budget, and what of them is in memory then."""

from dataclasses import dataclass

from rockledge.artifact import Artifact
from rockledge.artifact.uncached import BLOCK
from rockledge.board.streaming import PIECE_BYTES
from rockledge.formats.bands import TILE_BYTES, tiles
from rockledge.runtime.native import OpCode
from rockledge.runtime.program import ProgramPlan
from rockledge.runtime.streaming.fit import Fit, fit, least_ring
from rockledge.runtime.streaming.pieces import Piece, cut, held_bytes, hold, pieces_of


@dataclass(frozen=True)
class Streamed:
    """The program in pieces, over the mapping of `artifact`. `always`: bytes that are in memory whatever the
    budget: scales, tables, biases, gains, and where rows of the embedding are read to."""

    artifact: Artifact
    plan: ProgramPlan
    pieces: list[Piece]
    always: int

    @property
    def sizes(self) -> list[int]:
        """Bytes of the pieces."""
        return [piece.bytes for piece in self.pieces]

    @property
    def least(self) -> int:
        """Bytes without which no step runs: `always`, and the smallest ring."""
        return self.always + least_ring(self.sizes)

    def fit(self, room: int) -> Fit:
        """Which pieces stay in memory when weights may take `room` bytes, at least `least`."""
        return fit(self.sizes, room - self.always)

    def held(self) -> ProgramPlan:
        """The program over copies of what is always in memory. Nothing else of the file stays mapped into
        it, or in the page cache for its sake."""
        return hold(self.plan, self.artifact.mapped)


def streamed(artifact: Artifact, plan: ProgramPlan, threads: int, piece_bytes: int = PIECE_BYTES) -> Streamed:
    """The `plan` of an artifact in pieces of at most `piece_bytes`, for steps of so many threads."""
    parts = cut(plan, piece_bytes)
    pieces = pieces_of(parts, int(artifact.mapped.ctypes.data))
    always = held_bytes(parts, artifact.mapped) + threads * _staging_bytes(plan)
    return Streamed(artifact, parts, pieces, always)


def _staging_bytes(plan: ProgramPlan) -> int:
    """Where a thread reads rows of the embedding to: a strip of codes, and of indices (native/stream.cpp)."""
    embeddings = [op for op in plan.ops if op.code is OpCode.EMBED]
    bands = [b for op in embeddings for b in plan.bands[op.first_band : op.first_band + op.bands]]
    strip = max((tiles(band.cols) * TILE_BYTES[band.bits] for band in bands), default=0)
    return 2 * (-(-strip // BLOCK) + 1) * BLOCK
