"""Room on a board: parts add up to its RAM, and what is said to fit does, to the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.artifact.layout import packed_size
from rockledge.board.boards import BOARDS, find_board
from rockledge.board.memory import PAGE_TOKENS
from rockledge.conversion.convert import plan_conversion
from rockledge.errors import BudgetError
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.fit import fits, least_bits, longest, most_streams, parameters, room
from rockledge.runtime.offload.prompt_time import weight_bytes

RUNNING = sorted(name for name, board in BOARDS.items() if not board.chip.refused)
LLAMA = KNOWN_SHAPES["llama-3.1-8b"].config


@given(
    st.sampled_from(RUNNING),
    st.sampled_from(["llama-3.1-8b", "llama-3.2-1b", "gemma-3-4b", "qwen3-8b"]),
    st.sampled_from([2, 3, 4, 8]),
    st.integers(1, 100_000),
)
def test_parts_add_up_and_agree_with_the_memory_plan(board: str, model: str, bits: int, tokens: int) -> None:
    config = KNOWN_SHAPES[model].config
    weights = weight_bytes(config, bits)
    found = room(find_board(board), config, weights, tokens)
    parts = found.system + found.process + found.weights + found.cache + found.arena + found.npu + found.free
    assert parts == found.ram == find_board(board).ram_bytes
    assert found.available == found.ram - found.system - found.process
    assert found.fits is fits(find_board(board), config, weights, tokens)


@pytest.mark.parametrize("board", ["rk3588-8gb", "rk3588-16gb", "rpi5-8gb"])
def test_the_longest_context_fits_and_a_page_more_does_not(board: str) -> None:
    weights = weight_bytes(LLAMA, 4)
    tokens = longest(find_board(board), LLAMA, weights)
    assert fits(find_board(board), LLAMA, weights, tokens)
    assert tokens == LLAMA.context or not fits(find_board(board), LLAMA, weights, tokens + PAGE_TOKENS)
    streams = most_streams(find_board(board), LLAMA, weights, 8192)
    assert fits(find_board(board), LLAMA, weights, 8192 * streams)
    assert streams == 32 or not fits(find_board(board), LLAMA, weights, 8192 * (streams + 1))


@pytest.mark.parametrize("model", ["smollm2-135m", "gemma-3-1b", "qwen2.5-0.5b", "llama-3.2-1b"])
def test_the_fewest_bits_are_what_quantize_can_make(model: str) -> None:
    """As `quantize --instant` plans it before it reads a weight; a twentieth less it refuses."""
    config = KNOWN_SHAPES[model].config
    least = least_bits(config)
    made = plan_conversion(config, {}, least, 0)
    assert packed_size(made) <= int(least * parameters(config) / 8)
    with pytest.raises(BudgetError):
        plan_conversion(config, {}, 0.95 * least, 0)


def test_two_bits_are_the_fewest() -> None:
    """Two bits, a nibble for 16 weights, four bytes a row, and next to nothing: docs/formats.md."""
    rows = 32 * (6144 + 4096 + 28672 + 4096) + 2 * 128256
    weights = 32 * 4096 * (6144 + 4096 + 28672 + 14336) + 2 * 128256 * 4096
    norms = 65 * 4096
    least = (weights * 2.25 + 32 * rows) / (weights + norms)
    assert least < least_bits(LLAMA) < least + 0.02
