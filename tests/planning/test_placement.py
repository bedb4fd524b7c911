"""What runs where: what the planner says is what the runtime does, and never what costs more."""

from dataclasses import replace

import pytest

from rockledge.board.attention_forms import CPU_SOFTMAX, npu_attention
from rockledge.board.boards import find_board
from rockledge.board.placement import CPU, NPU
from rockledge.board.prefill import LINEAR_SIDES, cpu_linear_seconds
from rockledge.npu.programs.tile_search import plan as tiling_of
from rockledge.npu.programs.tiling import Product, Reuse
from rockledge.planning.placement import (
    ATTENTION,
    EXACT_INPUTS,
    LINEARS,
    NORM,
    SOFTMAX,
    PlacedOperator,
    attention_from,
    decode_placement,
    placements,
    plane_forms,
)
from rockledge.runtime.offload import prompt_time
from rockledge.runtime.offload.prompt_time import PromptTimes, model_linears
from rockledge.synth import shape_config

BOARD = find_board("rk3588-8gb")
MODELS = ("1b", "8b")
TIMES = {name: PromptTimes(BOARD, shape_config(name), 4) for name in MODELS}


def placed(name: str, tokens: int) -> dict[str, PlacedOperator]:
    return {one.operator: one for one in placements(TIMES[name], BOARD, shape_config(name), tokens)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [300, 2048])
def test_the_choice_is_the_cheapest_way(name: str, tokens: int) -> None:
    found = placed(name, tokens)
    assert list(found) == [*LINEARS, ATTENTION, SOFTMAX, NORM]
    for one in found.values():
        assert one.placement.choice.seconds == min(way.seconds for way in one.ways)
        assert one.placement.runner_up in one.ways


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [512, 1500, 8192])
def test_linears_take_what_a_prompt_takes(name: str, tokens: int) -> None:
    """No formula of its own: the rows of all cores add up to the seconds of the engine's forecast."""
    prompt = TIMES[name].prompt(tokens)
    found = placed(name, tokens)
    planned = sum(found[linear].ways[1].seconds for linear in LINEARS)
    assert planned == pytest.approx(sum(prompt.elapsed[side] for side in LINEAR_SIDES))
    assert found[ATTENTION].ways[0].seconds == pytest.approx(prompt.elapsed[prompt_time.ATTENTION])
    each = model_linears(shape_config(name), 4)
    on_cpu = sum(cpu_linear_seconds(BOARD, one, rows) for one in each for rows in prompt.steps)
    assert sum(found[linear].ways[0].seconds for linear in LINEARS) == pytest.approx(on_cpu)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_goes_where_its_linears_are_faster_together(name: str) -> None:
    plan = TIMES[name].plan
    assert plan is not None
    for rows in (1, plan.from_rows - 1, plan.from_rows, plan.from_rows + 1, 128, 512):
        assert plan.takes(rows) == (plan.times.placed(rows).choice.place == NPU)
    # Then each of them is, too: nothing is gained by keeping some of them on the CPU.
    for linear in LINEARS:
        assert placed(name, 512)[linear].placement.choice.place == NPU


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_cpus(name: str) -> None:
    plan = TIMES[name].plan
    assert plan is not None
    found = decode_placement(plan, BOARD, shape_config(name), 4)
    assert found.placement.choice.place == CPU
    assert not plan.takes(1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [512, 2048, 8192])
def test_softmax_and_norms_by_themselves_are_the_cpus(name: str, tokens: int) -> None:
    """As published: oRKLLM/ork-driver, gregordinary/rockchip-npu-notes."""
    found = placed(name, tokens)
    assert {found[what].placement.choice.place for what in (SOFTMAX, NORM)} == {CPU}


@pytest.mark.parametrize("name", MODELS)
def test_once_attention_pays_on_the_npu_it_pays_for_longer_prompts(name: str) -> None:
    places = [placed(name, tokens)[ATTENTION].placement.choice.place for tokens in range(512, 8193, 3840)]
    assert places == sorted(places)  # "CPU" before "NPU"
    assert places[-1] == NPU


def test_what_is_loaded_again_by_simulating_the_buffer() -> None:
    """Every program of every core loads what the program before it did not leave."""
    tiling = tiling_of(512, 4096, 14336)
    loaded = 0
    for kick in tiling.kicks:
        for core in kick.cores:
            there = {"rows": None, "columns": None}
            for task in core:
                assert isinstance(task, Product)
                for side, kept in (("rows", Reuse.DATA), ("columns", Reuse.WEIGHT)):
                    span = getattr(task, side), task.inputs
                    if task.reuse is kept:
                        assert there[side] == span
                    else:
                        loaded += span[0].size * span[1].size
                    there[side] = span
    found = plane_forms(4096, 14336, 512, 4, BOARD)[0].buffer
    assert found.refetched == loaded - 14336 * (512 + 4096) > 0
    assert found.data_banks + found.weight_banks <= BOARD.value("npu_cbuf_banks")


@pytest.mark.parametrize("outputs, inputs", [(576, 1536), (4096, 14336), (6144, 4096)])
def test_activations_in_three_forms(outputs: int, inputs: int) -> None:
    """Two planes take the CPU twice the products, and nobody less than one; int16 has no form there."""
    one, two, wide = plane_forms(outputs, inputs, 512, 4, BOARD)
    assert one.cpu is not None
    assert two.cpu is not None
    assert wide.cpu is None
    assert one.cpu < two.cpu < 2 * one.cpu
    assert one.npu < two.npu <= 2.5 * one.npu
    assert one.npu < wide.npu
    # Products at half the rate: never faster than they alone at 512 a cycle on three cores.
    assert wide.npu > 512 * outputs * inputs / (3 * 512 * BOARD.value("npu_hz"))


def test_sums_of_a_part_of_int16_cannot_saturate() -> None:
    """The largest activation of two planes (formats/activations.py) times the largest weight, all alike."""
    assert EXACT_INPUTS * 32_512 * 127 < 2**31 <= (EXACT_INPUTS + 32) * 32_512 * 127


def test_every_way_of_attention_knows_windows() -> None:
    """A window as long as the prompt changes nothing; a short one is a saving on either side."""
    config = shape_config("1b")
    found = []
    for window in (0, 2048, 128):
        windowed = replace(config, windows=(window,) * config.layers)
        times = PromptTimes(BOARD, windowed, 4)
        placed = {one.operator: one for one in placements(times, BOARD, windowed, 2048)}
        found.append([way.seconds for name in (ATTENTION, SOFTMAX) for way in placed[name].ways])
    assert found[0] == found[1]
    assert all(short < 0.5 * whole for short, whole in zip(found[2], found[0], strict=True))
    seen = sum(min(position + 1, 128) for position in range(2048))
    assert placed[SOFTMAX].size == f"{config.layers * config.heads * seen / 1e6:,.0f} M scores"
    assert attention_from(times, BOARD, windowed, 8192) is None


def test_a_board_without_a_plan_is_refused() -> None:
    config = shape_config("135m")
    with pytest.raises(ValueError, match="needs a board with an NPU"):
        placements(PromptTimes(BOARD.without_npu(), config, 4), BOARD, config, 512)


@pytest.mark.parametrize("name", MODELS)
def test_the_advised_position_is_where_a_step_begins_to_be_faster(name: str) -> None:
    config = shape_config(name)
    first = attention_from(TIMES[name], BOARD, config, 8192)
    assert first is not None
    slow = BOARD.measured({"npu_core_bandwidth": 5e8, "npu_bus_bandwidth": 1.5e9}, "a slow NPU")
    assert attention_from(PromptTimes(slow, config, 4, steps=(512,)), slow, config, 8192) is None
    for start in range(0, 8192, 1024):
        cpu = TIMES[name].between(512, start).attention
        npu = npu_attention(BOARD, config, 512, start, CPU_SOFTMAX).seconds
        assert (npu < cpu) == (start >= first)
