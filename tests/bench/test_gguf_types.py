"""Types of matrices beside the sizes of real files, which llama-bench printed for others."""

import pytest

from bench.gguf_types import matrices
from bench.npu_published import SHAPES
from rockledge.model.known_shapes import KNOWN_SHAPES

GIB = 1 << 30


@pytest.mark.parametrize(("file_type", "gib"), [("F16", 5.98), ("Q8_0", 3.18), ("Q4_K_M", 1.87)])
def test_llama_3_2_3b(file_type: str, gib: float) -> None:
    """gregordinary/rockchip-npu-notes perf/data/llama32-3b.md, column "size"; its head is its embedding."""
    size = sum(matrix.bytes for matrix in matrices(KNOWN_SHAPES["llama-3.2-3b"].config, file_type))
    assert size / GIB == pytest.approx(gib, rel=0.005)


@pytest.mark.parametrize(("file_type", "gib"), [("F16", 6.39), ("Q8_0", 3.39), ("Q4_K_M", 1.99)])
def test_ministral_3_3b(file_type: str, gib: float) -> None:
    """perf/data/ministral3-3b.md of the same."""
    size = sum(matrix.bytes for matrix in matrices(SHAPES["Ministral-3-3B"], file_type))
    assert size / GIB == pytest.approx(gib, rel=0.005)


def test_the_mixture_of_28_layers() -> None:
    """14 of 28 layers have more bits: 0 to 2, 5, 8, 11, 14, 17, 20, 23 to 27 (llama-quant.cpp)."""
    shape = KNOWN_SHAPES["qwen3-0.6b"].config
    found = list(matrices(shape, "Q4_K_M"))
    down = [matrix.type for matrix in found if (matrix.outputs, matrix.inputs) == (1024, 3072)]
    assert [layer for layer, kind in enumerate(down) if kind == "Q6_K"] == [
        *(0, 1, 2, 5, 8, 11, 14, 17, 20),
        *(23, 24, 25, 26, 27),
    ]
    assert found[-1].type == "Q6_K"


def test_rows_that_are_not_whole_super_blocks_fall_back() -> None:
    """Gemma 3 1B has 1,152 inputs where most matrices begin, 6,912 in down."""
    found = list(matrices(KNOWN_SHAPES["gemma-3-1b"].config, "Q6_K"))
    assert {matrix.type for matrix in found if matrix.inputs == 1152} == {"Q8_0"}
    assert {matrix.type for matrix in found if matrix.inputs == 6912} == {"Q6_K"}
    four = list(matrices(KNOWN_SHAPES["gemma-3-1b"].config, "Q4_0"))
    assert {matrix.type for matrix in four[:-1]} == {"Q4_0"}
    assert four[-1].type == "Q8_0"


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(KeyError, match="Q3_X"):
        list(matrices(KNOWN_SHAPES["qwen3-0.6b"].config, "Q3_X"))
