"""The formula for a whole prompt, by hand: two machines in turn and side by side, a layer's CPU work."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import BOARDS
from rockledge.board.prefill import (
    CpuWork,
    Stage,
    StageProduct,
    attention_cycles,
    chunk_stages,
    makespan,
    unpack_seconds,
    wave,
)

BOARD = BOARDS["rk3588-8gb"]


@dataclass(frozen=True)
class Shape:
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 128
    vocab: int = 1000


def stage(npu: float, cpu: float) -> Stage:
    return Stage(npu, CpuWork(norm=cpu))


def test_one_chunk_takes_turns() -> None:
    assert makespan([[stage(3, 1), stage(2, 4)]]) == 10


def test_two_chunks_hide_behind_each_other() -> None:
    # NPU: A 0-2, B 2-4, A 4-6, B 6-8; CPU: A 2-4, B 4-6, A 6-8, B 8-10.
    assert makespan([[stage(2, 2), stage(2, 2)]] * 2) == 10
    # A slow CPU is never idle after its first product: 1 + 4 x 3.
    assert makespan([[stage(1, 3), stage(1, 3)]] * 2) == 13
    assert makespan([]) == 0


TIMES = st.floats(0, 10)
JOBS = st.lists(st.lists(st.builds(stage, TIMES, TIMES), max_size=6), max_size=3)


@given(JOBS)
def test_the_makespan_lies_between_its_bounds(jobs: list[list[Stage]]) -> None:
    npu = sum(s.npu_seconds for job in jobs for s in job)
    cpu = sum(s.cpu.seconds for job in jobs for s in job)
    longest = max((sum(s.npu_seconds + s.cpu.seconds for s in job) for job in jobs), default=0.0)
    found = makespan(jobs)
    assert found >= max(npu, cpu, longest) * (1 - 1e-12)
    assert found <= (npu + cpu) * (1 + 1e-12)


def test_attention_meets_every_earlier_position() -> None:
    one = attention_cycles(BOARD, Shape(), 1, 0)
    # 4 queries behind 10 positions see 11 + 12 + 13 + 14.
    assert attention_cycles(BOARD, Shape(), 4, 10) == pytest.approx(50 * one)
    per_mac = ("cpu_attention_cycles_per_score_mac", "cpu_attention_cycles_per_value_mac")
    macs = sum(BOARD.value(fact) for fact in per_mac)
    assert one == pytest.approx(4 * (BOARD.value("cpu_attention_cycles_per_score") + 16 * macs))


def test_stages_of_a_layer() -> None:
    products = [
        StageProduct(float(i), 0.0, 0.0, outputs=n, parts=1) for i, n in enumerate((128, 64, 256, 64))
    ]
    plain = chunk_stages(BOARD, Shape(), 8, 0, products, hadamard=False)
    turned = chunk_stages(BOARD, Shape(), 8, 0, products, hadamard=True)
    assert [s.npu_seconds for s in plain] == [0, 1, 2, 3]
    assert [i for i, s in enumerate(plain) if s.cpu.attention] == [0]
    assert [i for i, s in enumerate(plain) if s.cpu.gate] == [2]
    added = turned[2].cpu.gate - plain[2].cpu.gate
    assert added == pytest.approx(8 * 128 * BOARD.value("cpu_hadamard_cycles") / 8.8e9)
    assert plain[1].cpu == plain[3].cpu


def test_reading_sums_back_can_take_longer_than_adding_them() -> None:
    products = [StageProduct(0.0, 0.0, 24e9, outputs=64, parts=3)] * 4
    assert chunk_stages(BOARD, Shape(), 8, 0, products, hadamard=False)[1].cpu.epilogue == pytest.approx(1.0)


def test_a_wave_is_bound_by_its_slowest_side() -> None:
    chunk = [stage(1, 1)]
    alone = wave(BOARD, [chunk], layers=3, moved_bytes=0.0, unpack=0.0)
    assert (alone.seconds, alone.npu_seconds, alone.cpu.seconds) == (6, 3, 3)
    assert wave(BOARD, [chunk], layers=3, moved_bytes=0.0, unpack=4.0).seconds == 15
    assert wave(BOARD, [chunk], layers=3, moved_bytes=10 * 26e9, unpack=0.0).seconds == pytest.approx(30)


def test_unpacking_takes_all_big_cores() -> None:
    for for_npu, fact in ((False, "cpu_unpack_cycles"), (True, "cpu_unpack_for_npu_cycles")):
        cycles = BOARD.value(f"{fact}_per_weight_4_bits")
        found = unpack_seconds(BOARD, 1000, 4, for_npu=for_npu)
        assert found == pytest.approx(1000 * cycles / (4 * 2.2e9))
