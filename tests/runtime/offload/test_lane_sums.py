"""Sums that the core makes of operands in the NPU's layouts, beside NumPy's."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu.layout import INT8, SUMS_IN_ATOM, pack_cube, pack_kernels
from rockledge.runtime.offload.lane_sums import LaneSums


def lane(random, tiles, parts, columns, wrong=()):
    """A lane whose sums NumPy made, but for those at `wrong` (vector, column)."""
    vectors, inputs, planes = tiles[-1], parts[-1], len(parts) - 1
    a = random.integers(-128, 128, (vectors, inputs)).astype(np.int8)
    b = random.integers(-128, 128, (columns, inputs)).astype(np.int8)
    sums = [a[:, i:j].astype(np.int32) @ b[:, i:j].astype(np.int32).T for i, j in pairwise(parts)]
    for vector, column in wrong:
        sums[int(random.integers(planes))][vector, column] += int(random.choice([-1, 1, 1 << 20]))
    spans = list(pairwise(tiles))
    return LaneSums(
        np.concatenate([pack_cube(a[i:j], INT8.atom) for i, j in spans]).view(np.uint8),
        np.concatenate([pack_kernels(b[:, i:j], INT8) for i, j in pairwise(parts)]).view(np.uint8),
        np.concatenate([pack_cube(c[i:j], SUMS_IN_ATOM) for c in sums for i, j in spans]).view(np.uint8),
        np.array(parts, np.int32),
        np.array(tiles, np.int32),
        columns,
        planes,
    )


def starts(draw, step, most):
    sizes = draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    return [0, *(step * np.cumsum(sizes)).tolist()]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_wrong_sum_is_found_and_no_other(data):
    tiles, parts = starts(data.draw, 4, 5), starts(data.draw, 32, 4)
    columns = 32 * data.draw(st.integers(1, 3))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    wrong = data.draw(
        st.lists(
            st.tuples(st.integers(0, tiles[-1] - 1), st.integers(0, columns - 1)), max_size=4, unique=True
        )
    )
    made = lane(random, tiles, parts, columns, wrong)
    vectors, all_columns = np.arange(tiles[-1], dtype=np.int32), np.arange(columns, dtype=np.int32)
    found, vector, column = made.wrong(vectors, all_columns)
    assert found == len(wrong)
    assert not wrong or (vector, column) == min(wrong)
    some = vectors[::3]
    assert made.wrong(some, all_columns)[0] == sum(vector in some for vector, _ in wrong)


@pytest.mark.parametrize("vectors, columns", [([8], [0]), ([-1], [0]), ([0], [32]), ([0], [-1])])
def test_sums_that_the_lane_does_not_have(vectors, columns):
    made = lane(np.random.default_rng(0), [0, 8], [0, 32], 32)
    with pytest.raises(NpuError, match="was requested"):
        made.wrong(np.array(vectors, np.int32), np.array(columns, np.int32))
