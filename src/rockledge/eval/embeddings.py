"""How far a compressed model's embeddings are from the float model's, on the same text.

1 - cosine between the two states after a token, which is what an embedding would be if the text ended there.
Windows are those of `windows.cut_windows`, and their second halves count, as for the divergence of logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import RockledgeError
from rockledge.eval.intervals import Interval, mean_interval
from rockledge.eval.windows import DEFAULT_WINDOW, Logits, Progress, cut_windows, scored_logits


@dataclass(frozen=True)
class EmbeddingReport:
    """Distances 1 - cosine of one model's embeddings from its reference's: 0 is the same direction."""

    cosine_distance_mean: float
    cosine_distance_mean_ci95: Interval
    cosine_distance_p99: float
    cosine_distance_max: float
    scored_tokens: int
    windows: int
    window_tokens: int


def embedding_distances(
    reference: Logits,
    model: Logits,
    tokens: Sequence[int],
    *,
    window: int = DEFAULT_WINDOW,
    limit: int | None = None,
    bos: int | None = None,
    progress: Progress | None = None,
) -> EmbeddingReport:
    """Compares the states fp32 [tokens, hidden] that both callables give, on the first `limit` windows of
    `tokens`. RockledgeError when they are not equally wide.
    """
    windows, found = cut_windows(tokens, window, limit, bos), []
    for done, piece in enumerate(windows, 1):
        expected, ours = (scored_logits(states, piece, window // 2) for states in (reference, model))
        if expected.shape != ours.shape:
            raise RockledgeError(
                f"the model's states have {ours.shape[1]} channels, its reference's {expected.shape[1]}; "
                "compare a model with the checkpoint it was made from"
            )
        found.append(cosine_distances(expected, ours))
        if progress is not None:
            progress(done, len(windows))
    distances = np.stack(found)
    return EmbeddingReport(
        cosine_distance_mean=float(distances.mean()),
        cosine_distance_mean_ci95=mean_interval(distances),
        cosine_distance_p99=float(np.percentile(distances, 99)),
        cosine_distance_max=float(distances.max()),
        scored_tokens=distances.size,
        windows=len(windows),
        window_tokens=window,
    )


def cosine_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - cosine of every row of `a` and `b` [rows, hidden]: half the squared distance of their directions,
    which keeps its digits where the cosine is nearly 1."""
    found: NDArray[np.float64] = 0.5 * np.square(_directions(a) - _directions(b)).sum(axis=1)
    return found


def _directions(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)
    return wide
