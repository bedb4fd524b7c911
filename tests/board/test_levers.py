"""Levers: what they cost follows from the timing model, and the ladder begins with what costs nothing."""

from dataclasses import replace

import pytest
from tests.virtual_board.works import eight_billion

from rockledge.board.boards import find_board
from rockledge.board.levers import Demand, Setting, ladder, speed, with_threads
from rockledge.board.memory import kv_bytes
from rockledge.board.time import predict_decode
from rockledge.model.known_shapes import find_shape
from rockledge.runtime.modelled_work import CONTEXT_TOKENS

WRITING, BATCH, READING = Demand(1, False), Demand(4, False), Demand(0, True)


def test_full_speed_is_the_timing_model() -> None:
    work = eight_billion()
    shape = find_shape("llama-3-8b")
    assert shape is not None
    bands = [band for band, count in work.bands for _ in range(count)]
    for streams in (1, 4):
        expected = predict_decode(
            bands, kv_bytes_read=kv_bytes(shape.config, CONTEXT_TOKENS), board=work.board, sequences=streams
        )
        found = speed(work, work.full, Demand(streams, False)).decode_tok_s
        assert found == pytest.approx(streams * expected.decode_tok_s, rel=1e-9)


def test_two_cores_suffice_for_four_bits_and_not_for_three() -> None:
    """136 bytes a tile, 24 cycles: 12.5 GB/s a core of 24 GB/s; at 3 bits 32 cycles for 104 bytes."""
    assert ladder(eight_billion(4), WRITING)[1].setting.threads == 2
    assert ladder(eight_billion(4), WRITING)[1].kept == pytest.approx(1.0, abs=0.005)
    three = {rung.setting.threads: rung.kept for rung in ladder(eight_billion(3), WRITING)[1:-1]}
    assert three[3] == pytest.approx(3 / 3.34, abs=0.02)


def test_prompts_give_up_the_npu_clocks_that_the_bus_does_not_notice_first() -> None:
    second = ladder(eight_billion(), READING)[1]
    assert second.setting.threads == 4
    assert second.setting.npu_hz < 1e9
    assert second.kept == pytest.approx(1.0, abs=0.005)


def test_a_batch_has_no_free_threads() -> None:
    assert all(rung.kept < 0.9 for rung in ladder(eight_billion(), BATCH)[1:])


@pytest.mark.parametrize("demand", [WRITING, BATCH, READING, Demand(4, True)])
@pytest.mark.parametrize("npu", [True, False])
def test_no_setting_is_above_the_ladder(demand: Demand, npu: bool) -> None:
    work = eight_billion(npu=npu)
    rungs = ladder(work, demand)
    watts = [rung.watts for rung in rungs]
    assert watts == sorted(watts, reverse=True)
    assert rungs[0].setting == work.full
    full = speed(work, work.full, demand)
    for threads in (1, 2, 3, 4):
        for sequences in (1, 4):
            found = speed(work, Setting(threads, 1.0, work.npu_hz, sequences), demand)
            ratios = [
                n / f
                for n, f in (
                    (found.decode_tok_s, full.decode_tok_s),
                    (found.prompt_tok_s, full.prompt_tok_s),
                )
                if f
            ]
            above = next(one for one in reversed(rungs) if one.watts >= found.watts - 1e-9)
            assert sum(ratios) / len(ratios) <= above.kept + 1e-9


def test_nothing_to_do_holds_nothing_back() -> None:
    (only,) = ladder(eight_billion(), Demand(0, False))
    assert only.watts == 0.0


def test_one_core_of_a_raspberry_pi_reads_as_fast_as_all() -> None:
    """11.85 GB/s by one (ThomasKaiser/sbc-bench, RPi-5B-Rev1.0.md), 10.2 by four that decode."""
    board = find_board("rpi5-8gb")
    assert with_threads(board, 1).value("cpu_read_bandwidth") == board.value("cpu_read_bandwidth")


def test_threads_of_a_board_without_rates_by_cores() -> None:
    board = find_board("rpi5-8gb")
    facts = {name: fact for name, fact in board.facts.items() if name != "cpu_read_bandwidth_1_core"}
    board = replace(board, facts=facts)
    assert with_threads(board, 4) is board
    one = with_threads(board, 1)
    assert one.value("cpu_cores") == 1
    assert one.value("cpu_read_bandwidth") == pytest.approx(board.value("cpu_read_bandwidth") / 2)
