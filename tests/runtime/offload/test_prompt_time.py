"""Prompts as the runtime reads them: the parts add up, and what is unpacked when."""

import pytest

from bench.npu_as_built import BITS, Prefill
from rockledge.board.boards import find_board
from rockledge.board.prefill import BESIDE, LINEAR_SIDES, NPU, SYNC
from rockledge.runtime.offload.prompt_time import PARTS, layer_linears, model_linears, weight_bytes
from rockledge.synth import shape_config

BOARD = find_board("rk3588-8gb")


@pytest.fixture(scope="module")
def large() -> Prefill:
    return Prefill(BOARD, "8b")


def test_weights_by_hand() -> None:
    """Tiles of 8 x 32 at 4 bits have 128 bytes and 8 of indices, rows a scale of 4."""
    config = shape_config("8b")
    weights = 32 * 4096 * (6144 + 4096 + 28672 + 14336) + 2 * 128256 * 4096
    rows = 32 * (6144 + 4096 + 28672 + 4096) + 2 * 128256
    assert weight_bytes(config, BITS) == weights * 136 // 256 + 4 * rows
    assert len(model_linears(config, BITS)) == 4 * 32
    products = ((6144, 4096, False), (4096, 4096, True), (28672, 4096, False), (4096, 14336, True))
    assert layer_linears(config) == products


def test_linears_take_no_less_than_any_side_alone_and_no_more_than_all(large: Prefill) -> None:
    found = large.prompt(512)
    linears = sum(found.elapsed[side] for side in LINEAR_SIDES)
    assert max(found.alone.values()) <= linears + 1e-9 <= sum(found.alone.values())
    assert found.seconds == pytest.approx(sum(found.elapsed.values()))
    assert set(found.elapsed) == {*PARTS, "head"}


@pytest.mark.parametrize("tokens", [64, 300, 512])
def test_the_forecast_of_linears_is_what_the_threshold_goes_by(large: Prefill, tokens: int) -> None:
    found = large.prompt(tokens)
    linears = sum(found.elapsed[side] for side in LINEAR_SIDES)
    assert linears == pytest.approx(sum(large.plan.times.npu(rows) for rows in found.steps))


def test_mainline_hands_over_more_and_waits_longer(large: Prefill) -> None:
    vendor, mainline = large.prompt(512), Prefill(BOARD, "8b", spaces=3).prompt(512)
    assert mainline.syncs.bytes > vendor.syncs.bytes > 5e9
    assert mainline.elapsed[SYNC] > vendor.elapsed[SYNC] > 0


def test_blocks_with_a_slot_are_unpacked_once(large: Prefill) -> None:
    assert 0 < large.plan.pinned < len(large.plan.block_slot)
    warm, fresh, streamed = (
        large.prompt(512),
        large.prompt(512, fresh=True),
        large.prompt(512, streamed=True),
    )
    assert warm.alone[BESIDE] < fresh.alone[BESIDE] == pytest.approx(streamed.alone[BESIDE])
    # The second step of a fresh engine finds what the first unpacked.
    two = large.prompt(1024, fresh=True)
    assert two.alone[BESIDE] == pytest.approx(fresh.alone[BESIDE] + warm.alone[BESIDE])


def test_floats_in_the_caches_take_no_time() -> None:
    through, cached = Prefill(BOARD, "1b"), Prefill(BOARD, "1b", cached=True)
    assert cached.prompt(256).seconds < through.prompt(256).seconds
    assert cached.plan.from_rows == through.plan.from_rows


def test_steps_below_the_threshold_are_the_cpus(large: Prefill) -> None:
    found = large.prompt(large.plan.from_rows - 1)
    assert found.alone[NPU] == 0
    assert large.prompt(large.plan.from_rows).alone[NPU] > 0
