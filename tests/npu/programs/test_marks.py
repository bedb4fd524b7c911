"""Marks lie at the last int32 that each program of a chain writes, whatever it is made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu.tilings import tilings

from rockledge.errors import NpuError
from rockledge.npu.layout import pack_cube
from rockledge.npu.programs.marks import Mark, marks
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_program import OUTPUT, SCRATCH, addition_program, product_program
from rockledge.npu.programs.tiling import Sums
from rockledge.npu.stream import build


def test_of_single_programs():
    assert marks(product_program(8, 64, 96)) == (Mark(OUTPUT, 8 * 96 * 4 - 4),)
    assert marks(addition_program(8, 96)) == (Mark(OUTPUT, 8 * 96 * 4 - 4),)


@settings(max_examples=30, deadline=None)
@given(tilings(), st.integers(0, 3))
def test_every_chain_has_one_within_its_buffers(tiling, seed):
    """They are int32s of the launch's output, and each core of a launch has its own."""
    for launch in compile_matmul(tiling).launches:
        found = [mark for chain in launch.chains if chain is not None for mark in marks(chain)]
        assert len(set(found)) == len(found)
        for chain in launch.chains:
            if chain is not None:
                assert OUTPUT in {mark.role for mark in marks(chain)}
        for mark in found:
            assert mark.role in (OUTPUT, SCRATCH)
            assert mark.offset % 4 == 0
            assert 0 <= mark.offset <= launch.sizes[mark.role] - 4


def test_the_last_sum_of_a_native_layout_is_the_last_element():
    c = np.arange(8 * 96, dtype=np.int32).reshape(8, 96)
    assert pack_cube(c, 4)[-1] == c[-1, -1]


def test_what_writes_no_int32_is_refused():
    with pytest.raises(NpuError, match="writes to a fixed address"):
        marks(build([("DPU_DST_BASE_ADDR", 4096)], 0x1D))


@settings(max_examples=30, deadline=None)
@given(tilings())
def test_every_program_has_its_own_unless_the_npu_adds(tiling):
    for launch in compile_matmul(tiling).launches:
        for chain in launch.chains:
            if chain is None:
                continue
            found = marks(chain)
            programs = len(chain.starts)
            assert len(found) == programs or (tiling.sums is Sums.CHAIN and len(found) < programs)
