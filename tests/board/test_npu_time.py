"""The time of the NPU by hand, and beside single products that others measured."""

import pytest

from rockledge.board.boards import BOARDS
from rockledge.board.npu_time import (
    NpuRates,
    addition_seconds,
    kick_seconds,
    npu_rates,
    product_seconds,
)

# Round numbers: one core reads 10 B/s, the bus gives 24 B/s, an array makes 100 products a second.
RATES = NpuRates(
    cores=3,
    hz=10.0,
    macs_per_cycle=10.0,
    core_bandwidth=10.0,
    bus_bandwidth=24.0,
    dispatch_seconds=0.5,
    program_bytes=20.0,
)


def test_a_core_reads_at_its_own_rate_until_the_bus_is_shared_out() -> None:
    assert [RATES.share(active) for active in (1, 2, 3)] == [10.0, 10.0, 8.0]


def test_streamed_weights_hide_behind_products_or_the_other_way_round() -> None:
    work = {"macs": 300.0, "data_bytes": 60.0, "stream_bytes": 16.0}
    # 20 + 60 bytes first, at 8 B/s; then 3 s of products beside 2 s of streaming.
    assert product_seconds(RATES, 3, **work, streamed=True) == pytest.approx(10 + 3)
    assert product_seconds(RATES, 3, **work, streamed=False) == pytest.approx(10 + 3 + 2)
    assert product_seconds(RATES, 3, **{**work, "macs": 100.0}, streamed=True) == pytest.approx(10 + 2)


def test_an_addition_reads_two_sums_and_writes_one() -> None:
    assert addition_seconds(RATES, 1, elements=5.0) == pytest.approx((20 + 5 * 12) / 10)


def test_a_kick_waits_for_the_slowest_core_or_for_the_bus() -> None:
    assert kick_seconds(RATES, slowest_core=4.0, moved_bytes=48.0) == pytest.approx(0.5 + 4)
    assert kick_seconds(RATES, slowest_core=1.0, moved_bytes=48.0) == pytest.approx(0.5 + 2)


def test_rates_are_those_of_the_board() -> None:
    rates = npu_rates(BOARDS["rk3588-8gb"])
    assert rates.macs_per_second == 1024e9
    assert rates.share(3) == pytest.approx(26e9 / 3)
    slow = npu_rates(BOARDS["rk3588-8gb"].measured({"npu_hz": 6e8}, "mainline"))
    assert slow.macs_per_second == pytest.approx(614.4e9)


def test_one_core_beside_the_closed_library() -> None:
    """int8 128 x 1024 x 8192 on one core: about 1.8 TOP/s published, native layouts."""
    rates = npu_rates(BOARDS["rk3588-8gb"])
    macs = 128 * 1024 * 8192
    stream = 1024 * 8192 + 4 * 128 * 8192
    seconds = product_seconds(rates, 1, macs=macs, data_bytes=128 * 1024, stream_bytes=stream, streamed=True)
    assert 2 * macs / seconds == pytest.approx(1.8e12, rel=0.1)


def test_one_row_is_the_read_rate_of_one_core() -> None:
    """fp16 1 x 4096 x 4096 with the closed library: 11 GFLOP/s published."""
    rates = npu_rates(BOARDS["rk3588-8gb"])
    seconds = product_seconds(
        rates, 1, macs=4096 * 4096 * 2, data_bytes=8192, stream_bytes=2 * 4096 * 4096, streamed=True
    )
    assert 2 * 4096 * 4096 / seconds == pytest.approx(11e9, rel=0.1)
