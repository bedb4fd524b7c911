"""What threads, boards and rows do to a step, and that batch costs follow from models with one row."""

from dataclasses import replace

import pytest

from bench.engine_fit import fit
from bench.engine_time import Constants, memory_share, thread_share
from bench.published_decode import Run, batches, published

CONSTANTS = Constants(bandwidth=20e9, weight_s=15e-12, layer_s=2e-4, group_s=4e-9)
CPU = Run("m", "llama.cpp CPU", "s", "q", 4_000_000_000, 4.5, 32, 0, 1.0, threads=4)


def test_a_step_of_four_rows_is_cheaper_than_one_of_three() -> None:
    """As unimatrix099 measured it: 293 and 224 ms."""
    three, four = (CONSTANTS.seconds(replace(CPU, rows=rows)) for rows in (3, 4))
    assert four < three
    assert CONSTANTS.seconds(replace(CPU, rows=8)) < 2 * four


def test_reading_and_multiplying_overlap_in_part() -> None:
    one = replace(CPU, layers=0)
    read, products = one.bytes / 20e9, one.weights * 15e-12
    assert max(read, products) < CONSTANTS.seconds(one) < read + products
    assert CONSTANTS.seconds(replace(one, weights=0, cache=10**9)) == pytest.approx(0.05)


def test_threads() -> None:
    """Two do half; of eight, the slowest is an A55, which reads 3.0 GB/s where an A76 reads 16.2."""
    assert [thread_share(threads) for threads in (2, 4)] == [2.0, 1.0]
    assert thread_share(8) == pytest.approx(0.5 * 16.241 / 3.0)
    assert CONSTANTS.seconds(replace(CPU, threads=2)) > CONSTANTS.seconds(CPU)


def test_a_board_with_half_the_bus() -> None:
    pi = replace(CPU, chip="rpi5")
    assert memory_share(CPU) == 1.0
    assert memory_share(pi) == pytest.approx(17.07 / 33.8)
    assert 1.5 < CONSTANTS.seconds(pi) / CONSTANTS.seconds(CPU) < 2.0


def test_the_processor_works_for_every_row_beside_the_npu() -> None:
    npu = replace(CPU, threads=0)
    two = CONSTANTS.seconds(replace(npu, rows=2)) - CONSTANTS.seconds(npu)
    assert two == pytest.approx(32 * 2e-4)
    grouped = CONSTANTS.seconds(replace(npu, group=128)) - CONSTANTS.seconds(npu)
    assert grouped == pytest.approx(4e9 / 128 * 4e-9)


def test_batch_costs_follow_from_other_models() -> None:
    """The published table, predicted by constants of models with one row only."""
    runs, _ = published()
    single = [run for run in runs if run.backend == CPU.backend and run.rows == 1]
    constants = fit([run for run in single if run.model != "Gemma-4-E4B"])
    table = [run for run in batches() if run.backend == CPU.backend]
    assert [run.rows for run in table] == [1, 2, 3, 4, 5, 6, 8]
    modelled = [constants.seconds(run) for run in table]
    assert modelled == pytest.approx([run.seconds for run in table], rel=0.2)
    # What makes speculation with three drafted tokens pay.
    assert modelled[3] < modelled[2]
