"""Weights from a disk: walls and bytes by hand, and where it does not help."""

import pytest

from rockledge.board.boards import find_board
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.plan import Plan
from rockledge.planning.streaming import streamed

SEVENTY = KNOWN_SHAPES["llama-3-70b"].config


def test_a_disk_that_is_slower_than_memory_binds() -> None:
    """By hand: 80 layers and the head at 136 bytes for 256 weights of 4 bits and a scale a row; what is left
    of 8 GiB without reserves, cache and arena stays; 1.5 GB/s, or 0.4 to 3, are read from NVMe."""
    plan = Plan("llama-3-70b", SEVENTY, find_board("rk3588-8gb"), 8192, 1)
    found = streamed(plan)
    assert found is not None
    weights = 80 * 8192 * (10240 + 8192 + 57344 + 28672) + 128256 * 8192
    rows = 80 * (10240 + 8192 + 57344 + 8192) + 128256
    room = plan.room.available - plan.room.cache - plan.room.arena
    assert found.resident == room - 6 * (16 << 20)
    assert found.read == weights * 136 // 256 + 4 * rows - found.resident
    for speed, rate in ((found.decode["NVMe"].likely, 1.5e9), (found.decode["NVMe"].low, 4e8)):
        assert speed == pytest.approx(rate / found.read)
    assert found.decode["NVMe"].low < found.decode["NVMe"].likely < found.decode["NVMe"].high
    order = [found.decode[disk].likely for disk in ("SD card", "eMMC", "NVMe")]
    assert order == sorted(order)


def test_a_prompt_reads_the_weights_once_a_step() -> None:
    """1,000 tokens are four steps of up to 256, which a slow disk feeds four times."""
    plan = Plan("llama-3-70b", SEVENTY, find_board("rpi5-8gb"), 8192, 1)
    found = streamed(plan)
    assert found is not None
    card = plan.board.value("disk_read_bandwidth_sd")
    assert found.prefill["SD card"].likely == pytest.approx(1000 / (4 * found.read / card))


def test_computing_binds_where_little_is_read() -> None:
    """A model that is a little too large for the context: the slower of both walls is the CPU's."""
    shape, board = KNOWN_SHAPES["llama-3.1-8b"].config, find_board("rk3588-8gb")
    plan = next(
        plan
        for context in range(30_000, 60_000, 200)
        if not (plan := Plan("llama-3.1-8b", shape, board, context, 1)).fits
    )
    found = streamed(plan)
    assert found is not None
    computed = plan.speed.decoding(plan.context)
    assert found.decode["NVMe"].likely <= computed.decode_tok_s * 1.01


def test_where_the_cache_alone_is_too_large_nothing_is_streamed() -> None:
    shape = KNOWN_SHAPES["llama-3.1-8b"].config
    assert streamed(Plan("llama-3.1-8b", shape, find_board("rk3588-4gb"), 131072, 1)) is None
