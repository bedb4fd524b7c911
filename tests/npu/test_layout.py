"""Native layouts: every element is where the fact sheet's index formula says, and comes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.npu.layout import NATIVE, pack_cube, pack_kernels, pad, unpack_cube

sizes = st.integers(1, 5)


def numbered(rows, cols):
    """A matrix whose elements are all different."""
    return np.arange(rows * cols, dtype=np.int32).reshape(rows, cols)


@given(st.integers(1, 20), sizes, st.sampled_from([4, 8, 16, 32]), st.data())
def test_a_cube_element_is_where_the_formula_says(pixels, atoms, c, data):
    x = numbered(pixels, atoms * c)
    m, k = data.draw(st.integers(0, pixels - 1)), data.draw(st.integers(0, atoms * c - 1))
    assert pack_cube(x, c)[k // c * pixels * c + m * c + k % c] == x[m, k]


@given(st.sampled_from(sorted(NATIVE)), sizes, sizes, st.data())
def test_a_kernel_element_is_where_the_formula_says(name, groups, runs, data):
    native = NATIVE[name]
    b = numbered(groups * native.group, runs * native.run)
    n, k = data.draw(st.integers(0, b.shape[0] - 1)), data.draw(st.integers(0, b.shape[1] - 1))
    block = n // native.group * runs + k // native.run
    at = block * native.group * native.run + n % native.group * native.run + k % native.run
    assert pack_kernels(b, native)[at] == b[n, k]


@given(st.sampled_from(sorted(NATIVE)), st.integers(1, 20), sizes)
def test_unpacking_a_cube_is_the_inverse(name, pixels, atoms):
    native = NATIVE[name]
    cube = numbered(pixels, atoms * native.atom)
    assert (unpack_cube(pack_cube(cube, native.atom), *cube.shape, native.atom) == cube).all()


@given(sizes, sizes, st.integers(2, 4), st.data())
def test_parts_of_the_inputs_and_blocks_of_columns_are_contiguous(groups, runs, pixels, data):
    native = NATIVE["int8"]
    a, b = numbered(pixels, runs * native.run), numbered(groups * native.group, runs * native.run)
    first = data.draw(st.integers(0, runs - 1)) * native.run
    part = pack_cube(a[:, first:], native.atom)
    assert (pack_cube(a, native.atom)[first * pixels :] == part).all()
    row = data.draw(st.integers(0, groups - 1)) * native.group
    assert (pack_kernels(b, native)[row * b.shape[1] :] == pack_kernels(b[row:], native)).all()


def test_padding_adds_zeros_below_and_to_the_right():
    x = numbered(3, 5) + 1
    wide = pad(x, 4, 8)
    assert wide.shape == (4, 8)
    assert (wide[:3, :5] == x).all()
    assert wide.sum() == x.sum()
    assert pad(x, 3, 5) is x


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda: pack_cube(numbered(2, 17), 16), "pad them with zeros to 32"),
        (lambda: pack_kernels(numbered(33, 32), NATIVE["int8"]), "33 kernels"),
        (lambda: pack_kernels(numbered(32, 40), NATIVE["int8"]), "40 inputs of a kernel"),
        (lambda: unpack_cube(np.zeros(63, np.int8), 4, 16, 16), "63 elements, expected at least 64"),
    ],
)
def test_what_does_not_fill_the_layout_is_refused(act, words):
    with pytest.raises(UsageError, match=words):
        act()
