"""The millisecond formula: exact by hand on one band, and within published figures on an 8B."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import BOARDS
from rockledge.board.cycles import cycles_fact
from rockledge.board.memory import kv_bytes
from rockledge.board.tiles import stored_bytes
from rockledge.board.time import band_ms, band_time, predict_decode
from rockledge.synth import shape_config

BOARD = BOARDS["rk3588-8gb"]
WIDTHS = st.sampled_from([2, 3, 4, 8])
SIZES = st.integers(1, 5000)


def llama3_8b(bits: int) -> list[tuple[int, int, int]]:
    """Every matrix of Llama-3-8B that a token multiplies with: 7.505e9 weights."""
    attention = [(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096)]
    block = [*attention, (14336, 4096), (14336, 4096), (4096, 14336)]
    return [(bits, rows, cols) for rows, cols in block * 32 + [(128256, 4096)]]


def test_one_band_by_hand() -> None:
    # 64 x 64 at 4 bits: 8 strips x 2 tiles x (128 + 8) bytes + 64 scales of 4 bytes.
    assert stored_bytes(4, 64, 64) == 16 * 136 + 256
    # 8 rows x 33 inputs need a second tile.
    assert stored_bytes(8, 8, 33) == 2 * 256 + 32
    time = band_time(8, 4096, 4096)
    assert time.memory_ms == pytest.approx((4096 * 4096 + 4 * 4096) / 24e9 * 1e3)
    assert time.ms == time.memory_ms > time.compute_ms


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_cycles_are_above_the_bound_of_the_products(bits: int) -> None:
    """16 sdot (and 16 tbl below 8 bits) on two pipes for 256 weights; a second plane adds 16 sdot. Taking
    codes apart costs no more than that again."""
    bound = (16 if bits == 8 else 32) / BOARD.value("cpu_vector_pipes") / 256
    one, two = (BOARD.value(cycles_fact(bits, planes)) for planes in (1, 2))
    assert bound <= one <= 2 * bound
    assert bound + 16 / BOARD.value("cpu_vector_pipes") / 256 <= two <= 2 * one


def test_computing_can_be_the_wall() -> None:
    """Ten cycles a weight: 64 x 64 weights on four cores of 2.2 GHz."""
    slow = BOARD.measured({cycles_fact(4, 1): 10.0}, "a slow kernel")
    assert band_ms(4, 64, 64, board=slow) == pytest.approx(64 * 64 * 10 / 8.8e9 * 1e3)


def test_8_bit_8b_against_published_speeds() -> None:
    """RKLLM (NPU, w8a8): 3.79 tok/s, which is 28.4 GB/s of weights. llama.cpp on the CPU: 22.3 GB/s."""
    ours = predict_decode(llama3_8b(8))
    assert 3.79 * ours.bytes_per_token == pytest.approx(28.4e9, rel=0.01)
    slowest = BOARD.value("cpu_read_bandwidth_llamacpp_8b_q8_0") / ours.bytes_per_token
    assert slowest < ours.decode_tok_s < 3.79
    assert ours.basis == "modelled"


def test_4_bit_8b_lies_between_published_cpu_speed_and_the_bandwidth_ceiling() -> None:
    """Best published Q4 on the CPU is 4.8 tok/s; the NPU's read rate would allow 7.6 at 4.0 bits."""
    assert 4.8 < predict_decode(llama3_8b(4)).decode_tok_s < 7.6


def test_kv_reads_cost_time() -> None:
    short = predict_decode(llama3_8b(4))
    long = predict_decode(llama3_8b(4), kv_bytes_read=24_000_000)
    assert long.ms_per_token - short.ms_per_token == pytest.approx(1.0)
    assert long.bytes_per_token - short.bytes_per_token == 24_000_000


def test_windows_shorten_what_a_token_reads_of_the_cache() -> None:
    full = shape_config("8b")
    half = replace(full, windows=(1024, 0) * 16)
    early, late = (
        [predict_decode([], kv_bytes_read=kv_bytes(shape, past)).ms_per_token for shape in (full, half)]
        for past in (1000, 9 * 1024)
    )
    assert early[0] == early[1]
    assert late[1] == pytest.approx((9 + 1) / (2 * 9) * late[0])


@given(WIDTHS, SIZES, SIZES)
def test_time_grows_with_the_band(bits: int, rows: int, cols: int) -> None:
    assert band_ms(bits, rows, cols) > 0
    assert band_ms(bits, rows + 8, cols) > band_ms(bits, rows, cols)
    assert band_ms(bits, rows, cols + 32) > band_ms(bits, rows, cols)
    assert band_ms(bits, rows, cols, planes=2) >= band_ms(bits, rows, cols)


@given(SIZES, SIZES)
def test_fewer_bits_never_take_more_bytes(rows: int, cols: int) -> None:
    sizes = [stored_bytes(bits, rows, cols) for bits in (2, 3, 4, 8)]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= rows * cols
