"""Prompts by the formula: schedules do what they say, bounds hold, the closed runtime's 8B is in reach."""

from dataclasses import replace

import pytest

from rockledge.board.boards import BOARDS
from rockledge.npu.programs.prompt_time import Schedule, best_schedule, layer_linears, prompt_time
from rockledge.synth import SHAPES

BOARD = BOARDS["rk3588-8gb"]
SMALL = SHAPES["135m"]
TWO = Schedule(chunk=64, in_flight=2)


def test_the_four_products_of_a_layer() -> None:
    assert layer_linears(SHAPES["8b"]) == ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))


@pytest.mark.parametrize(
    "schedule", [TWO, replace(TWO, in_flight=1, streamed=False), replace(TWO, group=128)]
)
def test_no_side_alone_takes_longer_than_all(schedule: Schedule) -> None:
    time = prompt_time(BOARD, SMALL, 256, schedule)
    assert time.seconds > max(time.npu_seconds, time.bus_seconds, time.cpu.seconds)
    assert time.npu_seconds > time.array_seconds + time.dispatch_seconds
    assert time.tok_s == pytest.approx(256 / time.seconds)


def test_products_at_full_rate_are_counted_with_padding() -> None:
    weights = sum(n * k for n, k in layer_linears(SMALL))
    time = prompt_time(BOARD, SMALL, 128, TWO)
    assert time.array_seconds == pytest.approx(30 * weights * 128 / (3 * 1024e9))
    # 130 tokens are three chunks of 64 rows.
    assert prompt_time(BOARD, SMALL, 130, TWO).array_seconds == pytest.approx(1.5 * time.array_seconds)


def test_two_chunks_in_flight_are_never_slower_and_streaming_is_never_faster() -> None:
    alone = prompt_time(BOARD, SMALL, 128, replace(TWO, in_flight=1))
    both = prompt_time(BOARD, SMALL, 128, TWO)
    assert both.seconds <= alone.seconds
    assert prompt_time(BOARD, SMALL, 128, replace(TWO, streamed=False)).seconds <= both.seconds
    # One wave unpacks once, two waves twice.
    assert alone.cpu.unpack == pytest.approx(2 * both.cpu.unpack)


def test_two_planes_are_twice_the_products() -> None:
    one, two = (prompt_time(BOARD, SMALL, 128, replace(TWO, planes=planes)) for planes in (1, 2))
    assert two.array_seconds == pytest.approx(2 * one.array_seconds)


def test_groups_and_small_tiles_cost_more() -> None:
    plain = prompt_time(BOARD, SMALL, 128, TWO)
    assert prompt_time(BOARD, SMALL, 128, replace(TWO, group=32)).bus_seconds > 2 * plain.bus_seconds
    assert prompt_time(BOARD, SMALL, 128, replace(TWO, tile_rows=8)).npu_seconds > plain.npu_seconds


def test_the_best_schedule_is_the_fastest_tried() -> None:
    schedule, time = best_schedule(BOARD, SMALL, 200, TWO)
    assert time == prompt_time(BOARD, SMALL, 200, schedule)
    for chunk in (64, 128, 256, 512):
        for number in (1, 2):
            other = replace(TWO, chunk=chunk, in_flight=number)
            assert prompt_time(BOARD, SMALL, 200, other).seconds >= time.seconds


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"npu_bus_bandwidth": 1e8}, "DRAM bus"),
        ({"npu_int8_macs_per_cycle": 1.0}, "MAC arrays"),
        ({"npu_submit_seconds": 1.0}, "NPU: loads and dispatch"),
        ({"cpu_attention_cycles_per_score": 1e5}, "CPU: attention"),
    ],
)
def test_what_binds_is_named(facts: dict[str, float], said: str) -> None:
    assert prompt_time(BOARD.measured(facts, "test"), SMALL, 128, TWO).binds == said


def test_the_closed_runtimes_8b_is_predicted_from_the_buffer_alone() -> None:
    """57 tok/s published for 64 tokens, w8a8. Inputs whole, nothing fitted: too fast, but not by half."""
    closed = Schedule(64, 1, bits=8, streamed=False, hadamard=False, whole_inputs=True)
    assert 56.7 < prompt_time(BOARD, SHAPES["8b"], 64, closed).tok_s < 1.5 * 56.7
