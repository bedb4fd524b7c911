"""Two chunks in flight: bounds from both sides, the same work as today, and what it must not be asked."""

import pytest

from rockledge.board.boards import find_board
from rockledge.board.prefill import BESIDE, BUS, NPU
from rockledge.planning.in_flight import in_flight, streamed_share
from rockledge.runtime.offload.prompt_time import ATTENTION, HEAD, OTHER_CPU, PromptTimes
from rockledge.synth import shape_config

BOARD = find_board("rk3588-8gb")
ROWS = 256
TIMES = {name: PromptTimes(BOARD, shape_config(name), 4, steps=(ROWS,)) for name in ("1b", "8b")}


@pytest.mark.parametrize("name", ["1b", "8b"])
@pytest.mark.parametrize("tokens", [512, 4096])
def test_it_lies_between_the_busiest_side_and_the_same_chunks_one_by_one(name: str, tokens: int) -> None:
    times = TIMES[name]
    found = in_flight(times, BOARD, shape_config(name), tokens, ROWS)
    one_by_one = times.prompt(tokens)
    assert max(found.alone.values()) <= found.seconds < one_by_one.seconds
    assert found.alone[found.binds] == max(found.alone.values())


@pytest.mark.parametrize("tokens", [512, 4096])
def test_the_work_is_that_of_one_chunk_after_another(tokens: int) -> None:
    """All weights of the 1B stay: nothing is unpacked in either order, so all sides have the same to do, but
    for the syncs that NPU and CPU both wait for, and the bytes that the CPU moves between linears."""
    times, config = TIMES["1b"], shape_config("1b")
    found, today = in_flight(times, BOARD, config, tokens, ROWS), times.prompt(tokens)
    assert found.streamed == 0.0
    waits = found.alone[NPU] - today.alone[NPU]
    assert 0 < waits < today.alone["cache maintenance"]
    cpu = today.alone[BESIDE] + waits + today.elapsed[ATTENTION] + today.elapsed[OTHER_CPU]
    assert found.alone[BESIDE] == pytest.approx(cpu)
    assert found.alone[BUS] > today.alone[BUS]


def test_a_pair_unpacks_once() -> None:
    """Half of what streams in each turn: less on the bus than twice all of it."""
    times, config = TIMES["8b"], shape_config("8b")
    assert times.plan is not None
    share = streamed_share(times.plan, config)
    assert 1 - times.plan.pinned / len(times.plan.block_slot) - 0.05 < share < 1
    found = in_flight(times, BOARD, config, 512, ROWS)
    assert found.streamed == share
    assert found.alone[BUS] < times.prompt(512).alone[BUS] + 0.2


def test_a_faster_bus_never_hurts_and_the_head_is_counted() -> None:
    config, tokens = shape_config("8b"), 512
    fast = BOARD.measured({"npu_bus_bandwidth": 28e9}, "a faster bus")
    quick = in_flight(PromptTimes(fast, config, 4, steps=(ROWS,)), fast, config, tokens, ROWS).seconds
    slow = in_flight(TIMES["8b"], BOARD, config, tokens, ROWS).seconds
    assert quick < slow
    assert slow > TIMES["8b"].prompt(tokens).elapsed[HEAD] > 0


@pytest.mark.parametrize("tokens, rows", [(256, 256), (768, 256), (512, 128), (512, 100)])
def test_what_is_not_pairs_of_a_step_is_refused(tokens: int, rows: int) -> None:
    with pytest.raises(ValueError, match="are not pairs of"):
        in_flight(TIMES["1b"], BOARD, shape_config("1b"), tokens, rows)


def test_nor_is_a_board_without_an_npu() -> None:
    config = shape_config("135m")
    with pytest.raises(ValueError, match="are not pairs of"):
        in_flight(PromptTimes(BOARD.without_npu(), config, 4), BOARD, config, 512, ROWS)
