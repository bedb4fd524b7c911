"""Our programs on the emulator give the int32 sums of plain NumPy: any cut, shape, plane and core order."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu.tilings import tilings

from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_search import plan
from rockledge.npu.programs.tiling import Sums
from rockledge_npu_lab.emulation.options import Options
from rockledge_npu_lab.verify.emulated import EmulatedNpu, place, run_launch

seeds = st.integers(0, 2**32 - 1)


def operands(m, n, k, seed):
    random = np.random.default_rng(seed)
    return (random.integers(-128, 128, shape).astype(np.int8) for shape in ((m, k), (n, k)))


def exact(a, b):
    """The sums in float64, which has room for them all."""
    return a.astype(np.float64) @ b.astype(np.float64).T


def check(tiling, seed=0, options=None):
    """Runs a tiling on random operands, traced where it is small; returns the emulated device."""
    a, b = operands(tiling.m, tiling.n, tiling.k, seed)
    npu = EmulatedNpu(options or Options(), traced=tiling.m * tiling.n * tiling.k < 1 << 22)
    c = compile_matmul(tiling).multiply(a, b, npu.run)
    assert c.dtype == np.int32
    assert (c == exact(a, b)).all()
    assert npu.flags == []
    return npu


@settings(max_examples=40, deadline=None)
@given(tilings(), seeds)
def test_any_cut_gives_the_sums(tiling, seed):
    check(tiling, seed)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 300), st.integers(1, 2500), seeds)
def test_any_shape_gives_the_sums(m, n, k, seed):
    check(plan(m, n, k), seed)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 70), st.integers(1, 100), st.integers(64, 2000), st.integers(2, 4), seeds)
def test_both_ways_of_adding_parts_give_the_sums(m, n, k, parts, seed):
    for sums in (Sums.HOST, Sums.CHAIN):
        tiling = plan(m, n, k, parts=min(parts, -(-k // 32)), sums=sums)
        assert tiling.sums is sums
        check(tiling, seed)


# Outputs x inputs of SmolLM2-135M: Q and O, K and V, gate and up, down.
SMOLLM2 = ((576, 576), (192, 576), (1536, 576), (576, 1536))


@pytest.mark.parametrize("rows", [64, 128, 256, 512])
@pytest.mark.parametrize("outputs, inputs", SMOLLM2)
def test_every_layer_of_smollm2_gives_the_sums_at_every_step(rows, outputs, inputs):
    check(plan(rows, outputs, inputs))


# A few hundred of the outputs of Llama-3-8B's O and gate, and of down with its long inputs; two planes.
@pytest.mark.parametrize("rows, outputs, inputs", [(128, 640, 4096), (1024, 160, 4096), (128, 288, 14336)])
def test_tiles_of_llama_3_8b_give_the_sums(rows, outputs, inputs):
    check(plan(rows, outputs, inputs))


def test_the_longest_inputs_of_a_70b_give_the_sums_on_the_npu():
    npu = check(plan(16, 64, 28_672, sums=Sums.CHAIN))
    assert npu.macs == 16 * 64 * 28_672


def test_the_largest_operands_stay_exact():
    a, b = np.full((4, 28_672), -128, np.int8), np.full((32, 28_672), -128, np.int8)
    for sums in (Sums.HOST, Sums.CHAIN):
        matmul = compile_matmul(plan(4, 32, 28_672, sums=sums))
        assert (matmul.multiply(a, b, run_launch) == 28_672 << 14).all()


def test_cores_may_run_in_any_order():
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        check(plan(128, 576, 1536), options=Options(core_order=order))


# Injected faults are meant to change results, and limits to end kicks.
FAULTS = {
    "lost_job_rate",
    "first_job_lost",
    "lane0_event_rate",
    "core_order",
    "seed",
    "max_programs",
    "max_macs",
}


@pytest.mark.parametrize("name", sorted({field.name for field in fields(Options)} - FAULTS))
def test_no_open_point_of_the_emulator_reaches_our_programs(name):
    default = getattr(Options(), name)
    for value in (True, False) if isinstance(default, bool) else type(default):
        check(plan(12, 64, 300, parts=3, sums=Sums.CHAIN), options=Options(**{name: value}))


def test_several_launches_give_one_result():
    tiling = plan(300, 320, 96, window=40_000)
    assert len(tiling.kicks) > 1
    check(tiling)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 2), seeds)
def test_planes_keep_their_sums_apart(tokens, planes, seed):
    random = np.random.default_rng(seed)
    q = random.integers(-128, 128, (tokens, planes, 40)).astype(np.int8)
    b = random.integers(-128, 128, (33, 40)).astype(np.int8)
    matmul = compile_matmul(plan(tokens * planes, 33, 40))
    sums = matmul.multiply(q.reshape(-1, 40), b, run_launch).reshape(tokens, planes, 33)
    for plane in range(planes):
        assert (sums[:, plane] == exact(q[:, plane], b)).all()


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 1 << 20), max_size=6))
def test_buffers_are_placed_apart(sizes):
    addresses = place(sizes)
    spans = sorted((addresses[name], addresses[name] + size) for name, size in sizes.items())
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert all(address % 4096 == 0 for address in addresses.values())
