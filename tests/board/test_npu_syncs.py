"""Cache maintenance by hand: which bytes, in how many calls, and what that takes."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import find_board
from rockledge.board.npu_syncs import (
    PIECE_BYTES,
    LaneBytes,
    Sync,
    Syncs,
    ranged_syncs,
    sync_seconds,
    whole_syncs,
)

BOARD = find_board("rk3588-8gb")
LANE = LaneBytes(
    input=1000,
    plane=5 << 20,
    weights=9 << 20,
    words=800,
    sums=3,
    programs=6,
    marks=6,
    input_buffer=4096,
    output_buffer=16 << 20,
)


def test_seconds_go_by_bytes_and_by_call() -> None:
    rate, call = BOARD.value("cpu_cache_sync_bandwidth"), BOARD.value("npu_sync_call_seconds")
    assert sync_seconds(BOARD, Sync(rate, 0)) == pytest.approx(1.0)
    assert sync_seconds(BOARD, Sync(0, 3)) == pytest.approx(3 * call)
    assert sync_seconds(BOARD, Sync(2 * rate, 4), cores=4) == pytest.approx(0.5 + call)


def test_the_vendors_driver_takes_what_is_used() -> None:
    syncs = ranged_syncs(LANE, 3)
    assert syncs.input == Sync(1000, 1)
    assert syncs.outputs == Sync(3 * 3 * (5 << 20), 3 * 3 * 2)  # two pieces of at most 4 MiB for each plane
    assert syncs.weights == Sync(3 * (9 << 20), 3 * 3)
    # An int32 for every program on every lane, and 40 bytes of the driver's list for each.
    assert syncs.between == Sync(3 * 6 * (4 + 40), 3 * 6 + 1)
    assert syncs.words == Sync(3 * (6 * 4 + 800), 3 * 6 + 3)


def test_mainlines_takes_whole_buffers() -> None:
    syncs = whole_syncs(LANE, 3)
    assert syncs.input == Sync(3 * 4096, 3)
    assert syncs.between == Sync(3 * ((16 << 20) + 4096), 6)
    assert syncs.words == Sync(3 * (4096 + (16 << 20)), 6)
    assert syncs.weights == Sync(3 * (9 << 20), 3)
    assert syncs.outputs == Sync()


def test_a_linears_input_is_handed_over_once_and_weights_where_they_are_unpacked() -> None:
    syncs = Syncs(Sync(1, 1), Sync(10, 1), Sync(100, 1), Sync(1000, 1), Sync(10000, 1))
    assert syncs.linear(4, 0.25) == Sync(1 + 4 * 1110 + 10000, 1 + 4 * 3 + 1)


@given(st.sampled_from([field.name for field in fields(LaneBytes)]), st.integers(1, 1 << 24))
def test_more_of_anything_never_costs_less(name: str, more: int) -> None:
    larger = replace(LANE, **{name: getattr(LANE, name) + more})
    for syncs in (ranged_syncs, whole_syncs):
        before, after = syncs(LANE, 3).linear(2, 1.0), syncs(larger, 3).linear(2, 1.0)
        assert after.bytes >= before.bytes
        assert after.calls >= before.calls


def test_a_piece_is_what_the_core_hands_over_at_once() -> None:
    source = (Path(__file__).parents[2] / "native" / "npu" / "plan.cpp").read_text(encoding="utf-8")
    found = re.search(r"kSyncPiece = std::int64_t\{(\d+)\} << (\d+);", source)
    assert found is not None
    assert int(found[1]) << int(found[2]) == PIECE_BYTES
