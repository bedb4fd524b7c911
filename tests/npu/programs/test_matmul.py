"""Whole matmuls as launches: no chain has anything suspicious, what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from tests.npu.tilings import NO_COST, tilings

from rockledge.errors import NpuError
from rockledge.npu.layout import NATIVE, pack_kernels, unpack_cube
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_search import plan
from rockledge.npu.programs.tiling import TASKS_IN_KICK, Kick, Product, Reuse, Span, Sums, Tiling
from rockledge_npu_lab.linting.check import lint

ADDRESSES = {
    "input": 0x0010_0000,
    "weight": 0x1000_0000,
    "output": 0x5000_0000,
    "scratch": 0x9000_0000,
    "program": 0xC000_0000,
}


@settings(max_examples=30, deadline=None)
@given(tilings())
def test_no_chain_has_anything_suspicious(tiling):
    for launch in compile_matmul(tiling).launches:
        for chain in launch.chains:
            assert chain is None or lint(chain.at(ADDRESSES).tolist()) == []


@settings(max_examples=30, deadline=None)
@given(tilings())
def test_every_relocation_is_inside_its_buffer(tiling):
    for launch in compile_matmul(tiling).launches:
        sizes = dict(launch.sizes)
        for chain in launch.chains:
            if chain is not None:
                sizes["program"] = chain.size_bytes
                assert all(0 <= r.offset < sizes[r.role] for r in chain.relocations)


def within(x, rows, cols):
    """Those rows and columns of x, zeros beyond its edge."""
    wide = np.zeros((rows.stop, cols.stop), x.dtype)
    part = x[: rows.stop, : cols.stop]
    wide[: part.shape[0], : part.shape[1]] = part
    return wide[rows.start :, cols.start :]


@settings(max_examples=30, deadline=None)
@given(tilings())
def test_every_region_holds_what_it_says(tiling):
    random = np.random.default_rng(0)
    a = random.integers(-128, 128, (tiling.m, tiling.k)).astype(np.int8)
    b = random.integers(-128, 128, (tiling.n, tiling.k)).astype(np.int8)
    matmul = compile_matmul(tiling)
    for launch in matmul.launches:
        buffers = {"input": matmul.input_bytes(launch, a), "weight": matmul.weight_bytes(launch, b)}
        for region in launch.of("input"):
            flat = buffers["input"][region.offset : region.offset + region.size]
            found = unpack_cube(flat, region.rows.size, region.inputs.size, 16)
            assert (found == within(a, region.rows, region.inputs)).all()
        for region in launch.of("weight"):
            flat = buffers["weight"][region.offset : region.offset + region.size]
            assert (flat == pack_kernels(within(b, region.columns, region.inputs), NATIVE["int8"])).all()
        for role in ("input", "weight"):
            assert len(buffers[role]) == launch.sizes[role]


@settings(max_examples=30, deadline=None)
@given(tilings())
def test_regions_fill_their_buffers_without_gaps(tiling):
    for launch in compile_matmul(tiling).launches:
        for role, size in launch.sizes.items():
            end = 0
            for region in launch.of(role):
                assert region.offset == end
                end += region.size
            assert end == size


def test_operands_of_another_shape_or_type_are_refused():
    matmul = compile_matmul(plan(8, 64, 96))
    (launch,) = matmul.launches
    with pytest.raises(NpuError, match=r"A is int8 \[8, 64\], expected int8 \[8, 96\]"):
        matmul.input_bytes(launch, np.zeros((8, 64), np.int8))
    with pytest.raises(NpuError, match="B is int16"):
        matmul.weight_bytes(launch, np.zeros((64, 96), np.int16))


def product(rows, columns, inputs):
    return Product(Span(0, rows), Span(0, columns), Span(0, inputs), 0, 2, 10, Reuse.NONE)


def tiling(rows, columns, inputs, tasks):
    kick = Kick(Span(0, rows), Span(0, columns), (tasks, (), ()))
    spans = (Span(0, rows),), (Span(0, inputs),)
    shape = (rows, columns, inputs)
    return Tiling(*shape, *shape, *spans, Sums.SINGLE, (kick,), NO_COST)


def test_tasks_that_are_no_tile_of_their_kick_are_refused():
    with pytest.raises(NpuError, match="rows 0 to 4 are not a row tile of the launch"):
        compile_matmul(tiling(8, 32, 32, (product(4, 32, 32),)))


def test_a_sum_that_can_leave_int32_is_refused():
    with pytest.raises(NpuError, match=r"expected at most 131071 \(a sum of more can overflow int32\)"):
        compile_matmul(replace(tiling(4, 32, 131_072, ()), k=131_072))


def test_more_programs_than_a_kick_takes_are_refused():
    tasks = (product(4, 32, 32),) * (TASKS_IN_KICK + 1)
    with pytest.raises(NpuError, match="4096 programs for a core, expected at most 4095"):
        compile_matmul(tiling(4, 32, 32, tasks))


def test_more_memory_than_an_address_reaches_is_refused():
    with pytest.raises(NpuError, match="32-bit addresses"):
        compile_matmul(tiling(4, 1 << 20, 4096, ()))
