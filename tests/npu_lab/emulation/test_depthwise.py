"""Depthwise 1 x 1 convolutions with requantised results, in sizes and places no golden program has."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu_lab.emulation.running import Bench
from tests.npu_lab.sheet_depthwise import program


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 7).map(lambda x: 32 * x),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(-(2**15), 2**15 - 1),
    st.integers(0, 24),
    st.integers(-200, 200),
    st.sampled_from([0, 0, -128, 3, 128]),
    st.integers(0, 2**32 - 1),
)
def test_any_size(channels, height, width, scale, shift, offset, weight_offset, seed):
    random = np.random.default_rng(seed)
    pixels = height * width
    x = random.integers(-128, 128, (pixels, channels), np.int8)
    weight = random.integers(-128, 128, -(-channels // 64) * 64, np.int8)
    bias = random.integers(-(2**18), 2**18, channels).astype(np.int32)
    cube = x.reshape(pixels, channels // 16, 16).transpose(1, 0, 2)
    bench = Bench(
        {
            "input": np.ascontiguousarray(cube).reshape(-1).view(np.uint8),
            "weight": weight.view(np.uint8),
            "operand": bias.view(np.uint8),
            "output": np.zeros(pixels * channels, np.uint8),
        }
    )
    bench.kick(program(channels, height, width, scale, shift, offset, weight_offset))
    found = bench.buffers["output"].view(np.int8).reshape(channels // 16, pixels, 16).transpose(1, 0, 2)
    sums = x.astype(np.int64) * (weight[:channels].astype(np.int64) + weight_offset) + bias
    # float64 holds sum x scale exactly; rint takes ties to even.
    expected = np.clip(np.rint(sums * scale / 2.0**shift) + offset, -128, 127)
    np.testing.assert_array_equal(found.reshape(pixels, channels), expected)
