"""The tiler: covers everything once, keeps every limit, and finds the best of all tilings of small shapes."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.board.npu_time import NpuRates, addition_seconds, kick_seconds, product_seconds
from rockledge.errors import NpuError
from rockledge.npu.programs.tile_search import DEFAULT_RATES, WINDOW_BYTES, cut, plan
from rockledge.npu.programs.tiling import Addition, Kick, Product, Reuse, Sums, Tiling

BANKS, BANK_BYTES, SPARE = 12, 32768, 1  # of one core [T]; the spare data bank of int8 [H]

# m, n, k of linears and heads of Llama-family models; 1024 rows are 512 tokens in two planes
MODEL_SHAPES = [
    (1, 128256, 4096),
    (64, 192, 576),
    (128, 49152, 576),
    (256, 1536, 8960),
    (512, 1024, 4096),
    (512, 4096, 14336),
    (1024, 18944, 3584),
    (1024, 28672, 8192),
    (2048, 8192, 28672),
    (512, 152064, 3584),
]
SHAPES = st.tuples(st.integers(1, 600), st.integers(1, 2000), st.integers(1, 9000))
ADDERS = st.sampled_from([None, Sums.HOST, Sums.CHAIN])


def products(tiling: Tiling) -> Iterator[Product]:
    return (task for task in tiling.tasks() if isinstance(task, Product))


def need(rows: int, inputs: int) -> int:
    return -(-rows * inputs // BANK_BYTES) + SPARE


def check_coverage(tiling: Tiling) -> None:
    """Every unit of 4 rows x 32 columns x 32 inputs lies in one product; later parts are added once."""
    unit = 1 if tiling.m == 1 else 4
    shape = (tiling.padded_rows // unit, tiling.padded_columns // 32, tiling.padded_inputs // 32)
    times = np.zeros(shape, np.int8)
    for task in products(tiling):
        assert task.rows.size % unit == task.columns.size % 32 == task.inputs.size % 32 == 0
        assert task.inputs == tiling.input_parts[task.part]
        assert task.rows in tiling.row_tiles
        times[
            task.rows.start // unit : task.rows.stop // unit,
            task.columns.start // 32 : task.columns.stop // 32,
            task.inputs.start // 32 : task.inputs.stop // 32,
        ] += 1
    assert times.min() == times.max() == 1
    added = {(t.rows, t.columns, t.part) for t in tiling.tasks() if isinstance(t, Addition)}
    later = {(t.rows, t.columns, t.part) for t in products(tiling) if t.part > 0}
    assert added == (later if tiling.sums is Sums.CHAIN else set())
    assert (tiling.sums is Sums.SINGLE) == (len(tiling.input_parts) == 1)


def check_limits(tiling: Tiling, window: int = WINDOW_BYTES) -> None:
    """Fields, banks, tasks of a kick, addresses, and what a reused operand asks of the task before."""
    planes = {Sums.SINGLE: 1, Sums.HOST: len(tiling.input_parts), Sums.CHAIN: 2}[tiling.sums]
    for kick in tiling.kicks:
        rows, columns = kick.rows.size, kick.columns.size
        assert (rows + columns) * tiling.padded_inputs + 4 * planes * rows * columns <= window <= 1 << 32
        assert 1 <= len(kick.cores) <= 3
        for tasks in kick.cores:
            assert 1 <= len(tasks) <= 4095
            before = None
            for task in tasks:
                if isinstance(task, Product):
                    check_product(task, before)
                before = task


def check_product(task: Product, before: object) -> None:
    rows, columns, inputs = task.rows.size, task.columns.size, task.inputs.size
    assert rows + 1 < 1 << 10  # FEATURE_GRAINS; the height has one bit more
    assert inputs - 1 < 1 << 14  # real channels
    assert columns < 1 << 13  # a 13-bit size at its maximum is silently wrong in its tail [H]
    assert not (3072 < inputs < 4096 and rows > 4)  # submits fail [H]
    assert task.data_banks + task.weight_banks <= BANKS
    assert task.data_banks >= need(rows, inputs)
    assert task.weight_banks * BANK_BYTES >= 32 * inputs
    if task.reuse is not Reuse.NONE:
        assert isinstance(before, Product)
        assert (before.inputs, before.data_banks, before.weight_banks) == (
            task.inputs,
            task.data_banks,
            task.weight_banks,
        )
    if task.reuse is Reuse.DATA:
        assert isinstance(before, Product)
        assert before.rows == task.rows
    if task.reuse is Reuse.WEIGHT:
        assert isinstance(before, Product)
        assert before.columns == task.columns
        assert columns * inputs <= task.weight_banks * BANK_BYTES


def seconds_by_task(tiling: Tiling, rates: NpuRates) -> tuple[float, int]:
    """Seconds of all kicks and bytes moved by the NPU, one task after the other."""
    seconds, moved = 0.0, 0.0
    for kick in tiling.kicks:
        each = [core_seconds(kick, tasks, rates) for tasks in kick.cores]
        bytes_of_kick = sum(amount for _, amount in each)
        moved += bytes_of_kick
        seconds += kick_seconds(
            rates, slowest_core=max(spent for spent, _ in each), moved_bytes=bytes_of_kick
        )
    return seconds, round(moved)


def core_seconds(kick: Kick, tasks: tuple[object, ...], rates: NpuRates) -> tuple[float, float]:
    seconds, moved = 0.0, 0.0
    for task in tasks:
        if isinstance(task, Product):
            data = 0 if task.reuse is Reuse.DATA else task.rows.size * task.inputs.size
            weights = 0 if task.reuse is Reuse.WEIGHT else task.columns.size * task.inputs.size
            stream = weights + 4 * task.rows.size * task.columns.size
            seconds += product_seconds(
                rates,
                len(kick.cores),
                macs=task.rows.size * task.columns.size * task.inputs.size,
                data_bytes=data,
                stream_bytes=stream,
                streamed=task.weight_banks * BANK_BYTES >= 64 * task.inputs.size,
            )
            moved += data + stream + rates.program_bytes
        else:
            assert isinstance(task, Addition)
            elements = task.rows.size * task.columns.size
            seconds += addition_seconds(rates, len(kick.cores), elements=elements)
            moved += 12 * elements + rates.program_bytes
    return seconds, moved


@settings(deadline=None, max_examples=30)
@given(SHAPES, ADDERS, st.sampled_from([1 << 25, WINDOW_BYTES]))
def test_any_shape_is_covered_once_within_the_limits(
    shape: tuple[int, int, int], adder: Sums | None, window: int
) -> None:
    tiling = plan(*shape, sums=adder, window=window)
    m, n, k = shape
    assert (tiling.padded_columns, tiling.padded_inputs) == (-(-n // 32) * 32, -(-k // 32) * 32)
    assert tiling.padded_rows == (1 if m == 1 else -(-m // 4) * 4)
    check_coverage(tiling)
    check_limits(tiling, window)
    seconds, moved = seconds_by_task(tiling, DEFAULT_RATES)
    assert tiling.cost.npu_seconds == pytest.approx(seconds)
    assert tiling.cost.moved_bytes == pytest.approx(moved, abs=len(tiling.kicks))
    assert tiling.cost.kicks == len(tiling.kicks)


@pytest.mark.parametrize("shape", MODEL_SHAPES, ids=str)
def test_model_shapes(shape: tuple[int, int, int]) -> None:
    begin = time.process_time()
    tiling = plan(*shape, rates=replace(DEFAULT_RATES, hz=DEFAULT_RATES.hz + 1))  # not found in the cache
    assert time.process_time() - begin < 0.25  # on a busy machine; 0.05 on a quiet one
    check_coverage(tiling)
    check_limits(tiling)


@pytest.mark.parametrize("adder", [Sums.HOST, Sums.CHAIN])
def test_the_number_of_parts_and_who_adds_them_can_be_asked_for(adder: Sums) -> None:
    tiling = plan(64, 96, 4096, parts=3, sums=adder)
    assert [part.size for part in tiling.input_parts] == [1376, 1376, 1344]
    assert tiling.sums is adder
    check_coverage(tiling)
    check_limits(tiling)


@pytest.mark.parametrize("shape", [(64, 96, 8192), (512, 4096, 4096)], ids=str)
def test_the_cheaper_adder_is_taken(shape: tuple[int, int, int]) -> None:
    forced = [plan(*shape, sums=adder) for adder in (Sums.HOST, Sums.CHAIN)]
    assert plan(*shape).cost.seconds == min(tiling.cost.seconds for tiling in forced)
    # An addition reads two sums and writes one; the host reads one sum more for each part.
    assert forced[0].cost.seconds < forced[1].cost.seconds


def test_rows_of_a_tile_and_what_stays_can_be_asked_for() -> None:
    few = plan(64, 96, 2048, tile_rows=20)
    assert [tile.size for tile in few.row_tiles] == [16, 16, 16, 16]
    check_coverage(few)
    weights = plan(64, 96, 2048, tile_rows=20, stays=Reuse.WEIGHT)
    assert {task.reuse for task in products(weights)} == {Reuse.NONE, Reuse.WEIGHT}
    check_coverage(weights)
    check_limits(weights)


def every_tiling(m: int, n: int, k: int, rates: NpuRates) -> float:
    """The least seconds of all even tilings of a shape that fits one kick, sums added by the host."""
    best = float("inf")
    for parts, row_tiles, cores in itertools.product(range(1, 9), range(1, m // 4 + 1), range(1, 4)):
        part_sizes, tiles = cut(k, parts, 32), cut(m, row_tiles, 4)
        data = need(tiles[0], part_sizes[0])
        weight = BANKS - data
        if weight * BANK_BYTES < 32 * part_sizes[0] or any(3072 < p < 4096 for p in part_sizes):
            continue
        for by_rows, stays in itertools.product((False, True), (Reuse.DATA, Reuse.WEIGHT)):
            if cores > (row_tiles if by_rows else n // 32):
                continue
            core_columns = [n] * cores if by_rows else list(cut(n, cores, 32))
            counts = cut(row_tiles, cores, 1)
            ends = list(itertools.accumulate(counts))
            core_rows = (
                [tiles[e - c : e] if by_rows else tiles for c, e in zip(counts, ends, strict=True)]
                if by_rows
                else [tiles] * cores
            )
            for column_tiles in range(1, max(core_columns) // 32 + 1):
                spent = one_kick(rates, part_sizes, core_rows, core_columns, column_tiles, weight, stays)
                back = 4 * parts * m * n / rates.bus_bandwidth
                best = min(best, spent + back)
    return best


def one_kick(
    rates: NpuRates,
    parts: tuple[int, ...],
    core_rows: list[tuple[int, ...]],
    core_columns: list[int],
    column_tiles: int,
    weight_banks: int,
    stays: Reuse,
) -> float:
    slowest, moved = 0.0, 0.0
    for rows, columns in zip(core_rows, core_columns, strict=True):
        spent = 0.0
        sizes = cut(columns, min(column_tiles, columns // 32), 32)
        for part in parts:
            if stays is Reuse.WEIGHT and sizes[0] * part > weight_banks * BANK_BYTES:
                return float("inf")
            for (i, r), (j, c) in itertools.product(enumerate(rows), enumerate(sizes)):
                data = r * part if stays is Reuse.WEIGHT or j == 0 else 0
                stream = 4 * r * c + (c * part if stays is Reuse.DATA or i == 0 else 0)
                spent += product_seconds(
                    rates,
                    len(core_rows),
                    macs=r * c * part,
                    data_bytes=data,
                    stream_bytes=stream,
                    streamed=weight_banks * BANK_BYTES >= 64 * part,
                )
                moved += data + stream + rates.program_bytes
        slowest = max(slowest, spent)
    return kick_seconds(rates, slowest_core=slowest, moved_bytes=moved)


@pytest.mark.parametrize(
    "shape",
    [(4, 32, 64), (8, 96, 8192), (24, 160, 6144), (32, 64, 4096), (40, 96, 5120), (16, 224, 2048)],
    ids=str,
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dispatch_seconds": 0.0},
        {"dispatch_seconds": 0.0, "macs_per_cycle": 16.0},
        {"dispatch_seconds": 0.0, "bus_bandwidth": 60e9, "program_bytes": 0.0},
    ],
    ids=["board", "free dispatch", "slow arrays", "fast bus"],
)
def test_no_tiling_of_a_small_shape_is_better(shape: tuple[int, int, int], changes: dict[str, float]) -> None:
    rates = replace(DEFAULT_RATES, **changes)
    found = plan(*shape, rates=rates).cost.seconds
    assert found == pytest.approx(every_tiling(*shape, rates), rel=1e-9)


def test_the_best_tiling_of_large_work_lies_near_its_bound() -> None:
    """512 rows of a feed-forward layer cannot take less than all products on all cores."""
    tiling = plan(512, 28672, 4096)
    products_alone = 512 * 28672 * 4096 / (3 * 1024e9)
    assert products_alone < tiling.cost.npu_seconds < 1.1 * products_alone


@pytest.mark.parametrize(
    "arguments, options, said",
    [
        ((0, 32, 32), {}, "0 rows"),
        ((4, 32, -5), {}, "-5 inputs"),
        ((4, 32, 64), {"parts": 3}, "64 inputs are cut into 3 parts"),
        ((4, 32, 16384), {"parts": 1}, "choose another number"),
        ((4, 32, 1 << 20), {"window": 1 << 20}, "at most 1048576 in a kick"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    arguments: tuple[int, int, int], options: dict[str, int], said: str
) -> None:
    with pytest.raises(NpuError, match=said):
        plan(*arguments, **options)
