"""The largest rotary pairs of a key's bias: whole pairs, few of every head, and nothing lost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rockledge.formats.key_bias import LARGE_PAIRS, large_bias_channels, split_bias

SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([8, 24, 64]))
BIASES = SHAPES.flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-300, 300, width=32))
)


@given(BIASES)
def test_the_parts_are_the_bias_in_whole_pairs(bias: np.ndarray) -> None:
    kept, scored = split_bias(bias.reshape(-1), bias.shape[1])
    np.testing.assert_array_equal(kept + scored, bias.reshape(-1))
    assert not np.any((kept != 0) & (scored != 0))
    pairs = large_bias_channels(np.square(bias)).reshape(len(bias), 2, -1)
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    assert pairs[:, 0].sum(axis=1).max() <= LARGE_PAIRS


@given(BIASES)
def test_no_pair_that_stays_is_larger_than_one_that_goes(bias: np.ndarray) -> None:
    squares = np.square(bias)
    large = large_bias_channels(squares)[:, : bias.shape[1] // 2]
    of_pairs = squares.reshape(len(bias), 2, -1).sum(axis=1)
    for head, chosen in zip(of_pairs, large, strict=True):
        assert chosen.sum() == min(LARGE_PAIRS, np.count_nonzero(head))
        if chosen.any() and not chosen.all():
            assert head[chosen].min() >= head[~chosen].max()


def test_the_largest_of_a_head_by_hand() -> None:
    bias = np.zeros((2, 64), np.float32)
    bias[0, 40] = -50  # the second of pair 8
    bias[1, :20] = np.arange(1, 21)
    kept, scored = (part.reshape(2, 64) for part in split_bias(bias.reshape(-1), 64))
    assert np.flatnonzero(scored[0]).tolist() == [40]
    assert np.flatnonzero(scored[1]).tolist() == list(range(12, 20))
    assert np.flatnonzero(kept[1]).tolist() == list(range(12))
