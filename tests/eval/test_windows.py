"""Windows and scored positions: llama.cpp's cut, bounded memory, and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rockledge.errors import RockledgeError, UsageError
from rockledge.eval.windows import cut_windows, log_softmax, row_chunks, scored_logits


@given(st.integers(4, 40), st.integers(0, 300), st.none() | st.integers(1, 5))
def test_windows_are_disjoint_and_whole(window: int, length: int, limit: int | None) -> None:
    tokens = list(range(length))
    if length < window:
        with pytest.raises(UsageError, match=str(length)):
            cut_windows(tokens, window, limit)
        return
    pieces = cut_windows(tokens, window, limit)
    assert len(pieces) == min(length // window, limit or length)
    assert [t for piece in pieces for t in piece] == tokens[: len(pieces) * window]


def test_every_window_begins_with_the_beginning_token() -> None:
    assert cut_windows([1, 10, 11, 12, 13, 14, 15, 16, 17], 4, bos=1) == [[1, 10, 11, 12], [1, 14, 15, 16]]


def test_scored_positions_of_a_512_window() -> None:
    """llama-perplexity -c 512 reports 255 tokens a chunk (6120 of 24 chunks): logits 256 .. 510."""

    def model(tokens: object) -> NDArray[np.float32]:
        return np.repeat(np.arange(512, dtype=np.float32)[:, None], 3, axis=1)

    rows = scored_logits(model, [0] * 512, 256)
    assert rows[:, 0].tolist() == list(range(256, 511))


def test_wrong_shapes_and_nan_are_named() -> None:
    with pytest.raises(RockledgeError, match=r"\(3, 5\)"):
        scored_logits(lambda tokens: np.zeros((3, 5), np.float32), [1, 2, 3, 4], 2)
    bad = np.zeros((8, 5), np.float32)
    bad[6, 2] = np.nan
    with pytest.raises(RockledgeError, match="position 6"):
        scored_logits(lambda tokens: bad, [0] * 8, 4)
    bad[6, 2], bad[1, 1] = 0, np.nan  # a position that is not scored
    assert scored_logits(lambda tokens: bad, [0] * 8, 4).shape == (3, 5)


@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-300, 300, width=32)))
def test_log_softmax_is_a_distribution_and_ignores_shifts(logits: NDArray[np.float32]) -> None:
    result = log_softmax(logits)
    np.testing.assert_allclose(np.exp(result).sum(axis=1), 1, rtol=1e-12)
    order = np.argsort(logits, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(result, order, axis=1), axis=1) >= 0).all()
    shifted = log_softmax((logits.astype(np.float64) + 1024).astype(np.float32))
    np.testing.assert_allclose(shifted, result, atol=2e-4)


@given(st.integers(1, 600), st.integers(1, 300000))
def test_chunks_cover_every_row_once_and_stay_small(rows: int, vocab: int) -> None:
    chunks = row_chunks(rows, vocab)
    assert [i for c in chunks for i in range(rows)[c]] == list(range(rows))
    assert all((c.stop - c.start) * vocab <= max(1 << 19, vocab) for c in chunks)
