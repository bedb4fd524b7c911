"""The time of a prompt by hand: a linear on either side, a layer between them; and its properties."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import find_board
from rockledge.board.npu_syncs import Sync, Syncs, sync_seconds
from rockledge.board.prefill import (
    BESIDE,
    BUS,
    NPU,
    SYNC,
    Cut,
    attention_bytes,
    attention_cycles,
    between_linears,
    cpu_linear_seconds,
    npu_linear,
    unpack_seconds,
)

BOARD = find_board("rk3588-8gb")
CPU_HZ = 4 * 2.2e9


@dataclass(frozen=True)
class Shape:
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 128
    vocab: int = 1000
    windows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Linear:
    weights: Mapping[int, int]
    outputs: int = 1024
    inputs: int = 1024
    planes: int = 1
    stored_bytes: int = 1 << 19
    adds: bool = False


LINEAR = Linear({4: 1 << 20})
CUT = Cut(blocks=4, columns=256, parts=3, npu_seconds=1.0, moved_bytes=0.0, syncs=Syncs())


def test_blocks_follow_one_another_and_the_last_floats_come_after() -> None:
    found = npu_linear(BOARD, LINEAR, CUT, 100, streamed=0.0, cached=True)
    cycles = BOARD.value("cpu_epilogue_cycles") + 3 * BOARD.value("cpu_epilogue_cycles_per_part")
    floats = max(100 * 256 * cycles / CPU_HZ, 100 * 256 * 3 * 4 / BOARD.value("cpu_read_bandwidth"))
    assert found.elapsed == pytest.approx({NPU: 4.0, BUS: 0.0, BESIDE: floats, SYNC: 0.0})
    assert found.seconds == pytest.approx(4.0 + floats)
    assert found.alone[BESIDE] == pytest.approx(4 * floats)


def test_the_slowest_side_is_waited_for() -> None:
    bus = replace(CUT, moved_bytes=2 * BOARD.value("npu_bus_bandwidth"))
    assert npu_linear(BOARD, LINEAR, bus, 1, streamed=0.0).elapsed[BUS] == pytest.approx(8.0, rel=1e-3)
    cpu = replace(CUT, npu_seconds=1e-9)
    unpack = unpack_seconds(BOARD, 1 << 20, 4, for_npu=True) / 4
    found = npu_linear(
        BOARD.measured({"npu_bus_bandwidth": 1e13}, "a wide bus"), LINEAR, cpu, 0, streamed=1.0
    )
    assert found.elapsed[BESIDE] == pytest.approx(4 * unpack)


def test_syncs_are_waited_for_where_nothing_runs_and_beside_the_npu_otherwise() -> None:
    rate = BOARD.value("cpu_cache_sync_bandwidth")
    syncs = Syncs(input=Sync(rate, 0), between=Sync(2 * rate, 0), outputs=Sync(0.4 * rate, 0))
    found = npu_linear(BOARD, LINEAR, replace(CUT, syncs=syncs), 0, streamed=0.0)
    # One input, four times what is between, the last outputs by four cores.
    assert found.elapsed == pytest.approx({NPU: 4.0, BUS: 0.0, BESIDE: 0.0, SYNC: 1 + 4 * 2 + 0.1})
    assert found.syncs == syncs.linear(4, 0.0)
    assert found.alone[SYNC] == pytest.approx(sync_seconds(BOARD, found.syncs))
    beside = replace(CUT, syncs=Syncs(words=Sync(3 * rate, 0)))
    assert npu_linear(BOARD, LINEAR, beside, 0, streamed=0.0).elapsed[BESIDE] == pytest.approx(4 * 3.0)


SYNCS = st.builds(Sync, st.floats(0, 1e9), st.floats(0, 1e3))
CUTS = st.builds(
    Cut,
    st.integers(1, 20),
    st.integers(32, 4096),
    st.integers(1, 8),
    st.floats(0, 1),
    st.floats(0, 1e9),
    st.builds(Syncs, SYNCS, SYNCS, SYNCS, SYNCS, SYNCS),
)


@given(CUTS, st.integers(1, 512), st.integers(0, 512), st.floats(0, 1), st.booleans())
def test_more_rows_bytes_or_syncs_never_take_less(
    cut: Cut, tokens: int, more: int, streamed: float, cached: bool
) -> None:
    def seconds(cut: Cut, tokens: int, streamed: float = streamed) -> float:
        return npu_linear(BOARD, LINEAR, cut, tokens, streamed=streamed, cached=cached).seconds

    least = seconds(cut, tokens) * (1 - 1e-12)
    assert seconds(cut, tokens + more) >= least
    assert seconds(replace(cut, moved_bytes=cut.moved_bytes + more * 1e6), tokens) >= least
    assert seconds(cut, tokens, 1.0) >= least
    for name in vars(cut.syncs):
        larger = replace(cut.syncs, **{name: getattr(cut.syncs, name) + Sync(more * 1e6, more)})
        assert seconds(replace(cut, syncs=larger), tokens) >= least
    assert cpu_linear_seconds(BOARD, LINEAR, tokens + more) >= cpu_linear_seconds(BOARD, LINEAR, tokens)


@given(CUTS, st.integers(1, 512), st.floats(0, 1))
def test_a_linear_takes_no_less_than_its_longest_side(cut: Cut, tokens: int, streamed: float) -> None:
    found = npu_linear(BOARD, LINEAR, cut, tokens, streamed=streamed)
    without = found.seconds - found.elapsed[SYNC]
    # The first block has no sums of another beside it, the last ones come after it.
    assert without >= max(found.alone[NPU], cut.blocks * cut.moved_bytes / 26e9) * (1 - 1e-9)
    assert found.seconds <= sum(found.alone.values()) + found.elapsed[SYNC] + found.elapsed[BESIDE]


def test_the_cpu_side_by_hand() -> None:
    # 1024 x 1024 weights of 4 bits, 100 tokens: unpacking, then 32 products a cycle on four cores.
    unpack = BOARD.value("cpu_unpack_cycles_per_weight_4_bits") * 2**20 / CPU_HZ
    products = 100 * 2**20 / BOARD.value("cpu_prefill_macs_per_cycle") / CPU_HZ
    assert cpu_linear_seconds(BOARD, LINEAR, 100) == pytest.approx(unpack + products)
    two = replace(LINEAR, planes=2)
    assert cpu_linear_seconds(BOARD, two, 100) == pytest.approx(unpack + 2 * products)
    slow = BOARD.measured({"cpu_read_bandwidth": 1e9}, "slow memory")
    assert cpu_linear_seconds(slow, LINEAR, 1) == pytest.approx(LINEAR.stored_bytes / 1e9)


def test_eight_rows_read_keys_and_values_once() -> None:
    entry = 2 * 2 * (32 + 4)  # two heads of 16, padded to 32, keys and values with a scale each
    assert attention_bytes(Shape(), 1, 99) == 100 * entry
    assert attention_bytes(Shape(), 8, 40) == 48 * entry
    assert attention_bytes(Shape(), 20, 0) == (8 + 16 + 20) * entry
    assert attention_bytes(Shape(), 20, 0, together=1) == 210 * entry
    # The first of eight rows from position 40 on sees 31 to 40, the last 38 to 47.
    assert attention_bytes(Shape(), 8, 40, 10) == 17 * entry


def test_attention_waits_for_the_slower_of_cores_and_bus() -> None:
    facts = {name: 1e-3 for name in BOARD.facts if name.startswith("cpu_attention_cycles")}
    quick = BOARD.measured(facts, "cores that do not bind")
    found = between_linears(quick, Shape(), 8, 20, hadamards=()).attention
    assert found == pytest.approx(28 * 144 / BOARD.value("cpu_read_bandwidth"))


def test_attention_meets_every_earlier_position() -> None:
    one = attention_cycles(BOARD, Shape(), 1, 0)
    # 4 queries behind 10 positions see 11 + 12 + 13 + 14.
    assert attention_cycles(BOARD, Shape(), 4, 10) == pytest.approx(50 * one)
    per_mac = ("cpu_attention_cycles_per_score_mac", "cpu_attention_cycles_per_value_mac")
    macs = sum(BOARD.value(fact) for fact in per_mac)
    assert one == pytest.approx(4 * (BOARD.value("cpu_attention_cycles_per_score") + 16 * macs))


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 50))
def test_attention_meets_the_positions_of_its_window(rows: int, start: int, window: int) -> None:
    one = attention_cycles(BOARD, Shape(), 1, 0)
    seen = sum(min(position + 1, window or position + 1) for position in range(start, start + rows))
    assert attention_cycles(BOARD, Shape(), rows, start, window) == pytest.approx(seen * one)


def test_norms_after_branches_and_turned_inputs_take_their_time() -> None:
    def other(hadamards: tuple[str, ...] = (), **norms: Any) -> float:
        return CPU_HZ * between_linears(BOARD, Shape(), 8, 0, hadamards=hadamards, cached=True, **norms).other

    # Two branches of 64 channels, 8 tokens.
    norm, hadamard = (2 * 8 * 64 * BOARD.value(f"cpu_{kind}_cycles") for kind in ("norm", "hadamard"))
    assert other(norms="both") - other() == pytest.approx(norm)
    assert other(norms="after") == pytest.approx(other())
    assert other(("attn.in", "ffn.in")) - other() == pytest.approx(hadamard)
    slow = BOARD.measured({"cpu_read_bandwidth": 1e8}, "slow memory")
    both, before = (
        between_linears(slow, Shape(), 8, 0, hadamards=(), norms=norms).other for norms in ("both", "before")
    )
    # The branch and the residual are read, the residual is written.
    assert both - before == pytest.approx(2 * 8 * 3 * 4 * 64 / 1e8)
    seen = between_linears(BOARD, Shape(), 8, 20, hadamards=(), window=4).attention
    assert seen == pytest.approx(attention_cycles(BOARD, Shape(), 8, 20, 4) / CPU_HZ)


def test_what_a_layer_does_between_its_linears() -> None:
    plain = between_linears(BOARD, Shape(), 8, 0, hadamards=(), cached=True)
    turned = between_linears(BOARD, Shape(), 8, 0, hadamards=["ffn.down"], cached=True)
    assert plain.attention == pytest.approx(attention_cycles(BOARD, Shape(), 8, 0) / CPU_HZ)
    assert turned.other - plain.other == pytest.approx(8 * 128 * BOARD.value("cpu_hadamard_cycles") / CPU_HZ)
    slow = BOARD.measured({"cpu_read_bandwidth": 1e8}, "slow memory")
    through = between_linears(slow, Shape(), 8, 0, hadamards=())
    # Floats read and written and codes written: q|k|v and attention's, o's, the gate's, down's.
    moved = 5 * 128 + 9 * 64 + 5 * 64 + 9 * 128 + 5 * 64
    assert through.other == pytest.approx(8 * moved / 1e8)


def test_unpacking_takes_all_big_cores() -> None:
    for for_npu, fact in ((False, "cpu_unpack_cycles"), (True, "cpu_unpack_for_npu_cycles")):
        cycles = BOARD.value(f"{fact}_per_weight_4_bits")
        found = unpack_seconds(BOARD, 1000, 4, for_npu=for_npu)
        assert found == pytest.approx(1000 * cycles / CPU_HZ)
