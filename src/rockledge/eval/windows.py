"""How a text becomes scored positions: disjoint windows of which the second half is scored.

This is what llama.cpp's perplexity tool does with `-c WINDOW`, so that numbers can be put side by side:
windows do not overlap, a remainder shorter than a window is left out, a beginning token takes the place of
every window's first token, and the logits at positions window/2 .. window-2 are scored against the token that
follows (255 of 512).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import RockledgeError, UsageError

Logits = Callable[[Sequence[int]], NDArray[np.float32]]
"""tokens [T] -> logits [T, vocab], fp32; row t is the prediction after token t. Every call starts afresh."""

Progress = Callable[[int, int], None]
"""Called with (windows done, windows in all) after each window."""

DEFAULT_WINDOW = 512


def cut_windows(
    tokens: Sequence[int], window: int = DEFAULT_WINDOW, limit: int | None = None, bos: int | None = None
) -> list[list[int]]:
    """The first `limit` (None: all) disjoint windows of `window` tokens, each beginning with `bos` if there
    is one (then `tokens` should begin with it too). UsageError if there is not even one window."""
    if window < 4:
        raise UsageError(f"a window of {window} tokens scores nothing; take at least 4")
    count = len(tokens) // window
    if limit is not None:
        count = min(count, limit)
    if count < 1:
        raise UsageError(
            f"the text has {len(tokens)} tokens, less than one window of {window}; take a longer text"
        )
    windows = [list(tokens[i * window : (i + 1) * window]) for i in range(count)]
    if bos is not None:
        for piece in windows:
            piece[0] = bos
    return windows


def scored_logits(model: Logits, tokens: Sequence[int], first: int) -> NDArray[np.float32]:
    """Logits [len(tokens) - 1 - first, vocab] at positions first .. len-2 of one window.

    RockledgeError names the position when the model answers in another shape or with NaN or infinity.
    """
    logits = np.asarray(model(tokens), dtype=np.float32)
    if logits.ndim != 2 or logits.shape[0] != len(tokens):
        raise RockledgeError(
            f"the model answered {len(tokens)} tokens with logits {logits.shape}, expected one row for each"
        )
    rows = logits[first : len(tokens) - 1]
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        position = first + int(np.argmin(finite))
        raise RockledgeError(f"the model's logits at position {position} of a window are not finite numbers")
    return rows


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities [rows, vocab] of fp32 logits [rows, vocab], computed in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def row_chunks(rows: int, vocab: int) -> list[slice]:
    """Slices that cover `rows` rows so that one float64 array of a slice stays near 4 MiB: what fits in a
    processor's cache is worked on almost three times as fast."""
    step = max(1, (1 << 19) // vocab)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
