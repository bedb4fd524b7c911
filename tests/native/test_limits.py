"""What the native core runs at most is what a checkpoint is held to when it is opened."""

from dataclasses import replace

import numpy as np
import pytest
from tests.native.one_op import NO_CACHE, aligned, float_buffer, int8_buffer, open_step
from tests.native.test_attention import Sizes, attention_program

from rockledge.errors import NativeError
from rockledge.model.limits import LARGEST, MOST_INPUTS
from rockledge.runtime import native
from rockledge.runtime.native import OpCode
from rockledge.runtime.native_step import Batch, Step


def linear_of(cols: int) -> Step:
    """A row of weights that are all 127, at 8 bits."""
    codes = aligned(np.full(8 * (cols + 31), 127, np.uint8))
    band = native.Band(codes, None, None, np.ones(1, np.float32), None, 1, cols, 8, 0)
    buffers = [int8_buffer(cols, 0), float_buffer(1, 1), float_buffer(1, 2)]
    op = native.Op(OpCode.LINEAR, (0, 1), (2,), bands=1)
    return open_step([op], [band], buffers, native.Shape(1, **NO_CACHE))


def test_the_widest_linears_run_and_sum_exactly() -> None:
    program = linear_of(MOST_INPUTS)
    program.buffer(0)[:], program.buffer(1)[:] = -128, 1
    nothing = np.zeros(1, np.int32)
    program.run(Batch(nothing, nothing, nothing, np.zeros((1, 1), np.int32)))
    assert program.buffer(2)[0, 0] == np.float32(-128 * 127 * MOST_INPUTS)
    program.close()
    with pytest.raises(NativeError, match="out of range"):
        linear_of(MOST_INPUTS + 1)


def test_the_largest_heads_run() -> None:
    largest = Sizes(1, 1, LARGEST["head_dim"], 8)
    attention_program(largest, 1, 1, kernel="auto", threads=1).close()
    with pytest.raises(NativeError, match="dimensions"):
        attention_program(replace(largest, head_dim=largest.head_dim + 2), 1, 1, kernel="auto", threads=1)


def test_as_many_heads_and_layers_as_the_limits_allow_run() -> None:
    attention_program(
        Sizes(LARGEST["heads"], LARGEST["kv_heads"], 2, 8), 1, 1, kernel="auto", threads=1
    ).close()
    attention_program(Sizes(1, 1, 2, 8), 1, 1, kernel="auto", threads=1, layers=LARGEST["layers"]).close()


@pytest.mark.parametrize("width", [LARGEST["vocab"], 2 * LARGEST["ffn"], 3 * MOST_INPUTS])
def test_rows_as_wide_as_the_limits_allow_fit(width: int) -> None:
    op = native.Op(OpCode.NORM, (0,), (1,), real=(1e-5,), weight=(None,))
    open_step([op], [], [float_buffer(width, 0), float_buffer(width, 1)], native.Shape(1, **NO_CACHE)).close()
