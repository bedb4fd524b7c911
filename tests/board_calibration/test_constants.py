"""Constants out of seconds: those that are there are found, and a board of them gives the seconds back."""

import random
from dataclasses import replace

import pytest
from tests.board_calibration.fake_seconds import (
    BANDWIDTHS,
    HZ,
    THREADS,
    TRUE,
    WEIGHTS_BYTES,
    seconds,
)

from rockledge.board.facts import UNITS
from rockledge.board.facts_file import MeasuredFacts, streamed_fact
from rockledge.board.memory import kv_bytes
from rockledge.board.prefill import between_linears
from rockledge.board.step_time import DRAW, OPERATION, OUTPUT, PROMPT_OUTPUT, SEQUENCE, STEP
from rockledge.board.time import band_ms, predict_decode
from rockledge.board_calibration import probes as p
from rockledge.board_calibration.calibrate import HOW, cpu_facts
from rockledge.board_calibration.constants import constants
from rockledge.planning.speed import Speed
from rockledge.synth import SHAPES


def found(threads=THREADS, hz=HZ, times=seconds):
    probes = set(p.probes(threads, WEIGHTS_BYTES))
    return constants({probe: times(probe) for probe in probes}, threads, hz, WEIGHTS_BYTES)


def test_constants_that_are_there_are_found():
    values = found()
    for name, value in TRUE.items():
        assert values[name] == pytest.approx(value, rel=1e-6), name
    assert values["cpu_read_bandwidth_1_core"] == pytest.approx(BANDWIDTHS[1])
    assert values["cpu_read_bandwidth_2_cores"] == pytest.approx(BANDWIDTHS[2])
    assert values["cpu_read_bandwidth_4_cores"] == values["cpu_read_bandwidth"]
    assert set(values) == set(HOW)


def test_one_thread_has_all_of_them_but_the_bandwidths_of_more():
    values = found(1, times=lambda probe: seconds(probe, threads=1))
    for name, value in TRUE.items():
        assert values[name] == pytest.approx(value, rel=1e-6), name
    assert values["cpu_read_bandwidth_1_core"] == values["cpu_read_bandwidth"]
    assert "cpu_read_bandwidth_2_cores" not in values


def test_noise_makes_nothing_negative():
    """Seconds that contradict each other, such as a Hadamard that costs less than none."""
    for number in range(100):
        noise = random.Random(number)
        values = found(times=lambda probe, noise=noise: seconds(probe) * noise.uniform(0.3, 3.0))
        for name, value in values.items():
            unit = UNITS[HOW[name][0]]
            assert unit.least <= value <= unit.most, name


@pytest.fixture
def facts():
    samples = {
        probe: [seconds(probe) * slower for slower in (1.0, 1.02, 1.04, 1.06, 2.0)]
        for probe in set(p.probes(THREADS, WEIGHTS_BYTES))
    }
    return MeasuredFacts(
        "0", "a processor", "6.1", THREADS, 16 << 30, "", cpu_facts(samples, THREADS, WEIGHTS_BYTES, [HZ], 5)
    )


def test_a_fact_is_the_median_with_a_spread(facts):
    one = facts.facts["cpu_norm_cycles"]
    assert one.value == pytest.approx(1.04 * TRUE["cpu_norm_cycles"])
    assert one.spread == pytest.approx((TRUE["cpu_norm_cycles"], 1.06 * TRUE["cpu_norm_cycles"]))
    assert (one.unit, one.repeats) == ("cycles/element", 5)
    bandwidth = facts.facts["cpu_read_bandwidth_1_core"]
    assert bandwidth.spread == pytest.approx((BANDWIDTHS[1] / 1.06, BANDWIDTHS[1]))
    assert facts.facts["cpu_hz"].value == HZ
    assert facts.facts["cpu_cores"].value == THREADS


@pytest.mark.parametrize("sequences", [1, 4])
def test_a_board_of_them_gives_a_step_of_decode_back(facts, sequences):
    """Added up here operation by operation, as the machine whose constants these are would take it."""
    config, bits, after = SHAPES["135m"], 3, 200
    slower, all_cores = 1.04, THREADS * HZ
    linears = [
        (960, 576), (576, 576), (3072, 576), (576, 1536)
    ] * config.layers + [(49152, 576)]  # fmt: skip
    weight = TRUE[streamed_fact(bits, sequences)]
    whole = TRUE[STEP] + sequences * TRUE[SEQUENCE] + 49152 * TRUE[DRAW] / HZ  # all four draw at once
    for outputs, inputs in linears:
        cycles = outputs * inputs * weight + sequences * outputs * TRUE[OUTPUT]
        whole += TRUE[OPERATION] + cycles / all_cores
    each = TRUE["cpu_norm_cycles"] + TRUE["cpu_quantise_cycles"]
    alone = 576 * each * 2
    alone += (576 + 192) * TRUE["cpu_rope_cycles"] + 2 * (576 + 192) * TRUE["cpu_quantise_cycles"]
    alone += 1536 * sum(TRUE[f"cpu_{name}_cycles"] for name in ("gate", "hadamard", "quantise"))
    score = TRUE["cpu_decode_attention_cycles_per_score"] + 64 * TRUE["cpu_decode_attention_cycles_per_mac"]
    read = p.from_memory(8, 1, THREADS, WEIGHTS_BYTES)
    key_and_value = 2 * 3 * (64 + 4)  # bytes of a position: three heads of int8, and their scales
    by_bus = (after + 1) * key_and_value * seconds(read) / read.bytes
    by_cores = 9 * (after + 1) * score / all_cores
    attention = TRUE[OPERATION] + sequences * max(by_cores, by_bus)
    whole += config.layers * (attention + sequences * alone / HZ)
    step = Speed(facts.board, config, bits, 512).decoding(after, sequences)
    assert step.ms_per_token == pytest.approx(1e3 * slower * whole, rel=0.001)
    assert step.decode_tok_s == pytest.approx(1e3 / step.ms_per_token)


def test_a_board_of_them_gives_a_prompt_back(facts):
    config, bits, tokens = SHAPES["1b"], 4, 128
    slower, all_cores = 1.04, THREADS * HZ
    linears = [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192)]
    cycles = 0.0
    for outputs, inputs in linears:
        unpack = TRUE[f"cpu_unpack_cycles_per_weight_{bits}_bits"]
        cycles += outputs * inputs * (unpack + tokens / TRUE["cpu_prefill_macs_per_cycle"])
        cycles += tokens * outputs * TRUE[PROMPT_OUTPUT]
    linear_seconds = config.layers * cycles / all_cores
    board = facts.board
    between = between_linears(board, config, tokens, 0, hadamards=("ffn.down",))
    head = band_ms(bits, config.vocab, config.hidden, board=board) / 1e3
    whole = slower * linear_seconds + config.layers * (between.attention + between.other) + head
    whole += slower * (10 * config.layers * TRUE[OPERATION] + TRUE[STEP] + TRUE[SEQUENCE])
    whole += slower * config.vocab * TRUE[DRAW] / HZ
    assert Speed(board, config, bits, 512).prompt_seconds(tokens) == pytest.approx(whole, rel=0.001)


def test_without_the_costs_of_steps_the_bare_formulas_hold(facts):
    bare = replace(facts, facts={name: one for name, one in facts.facts.items() if name != STEP})
    speed = Speed(bare.board, SHAPES["1b"], 4, 512)
    assert speed.prompt_seconds(128) == speed.prompt(128).seconds
    step = predict_decode(
        speed.bands, kv_bytes_read=kv_bytes(SHAPES["1b"], 100), board=bare.board, sequences=2
    )
    assert speed.decoding(100, 2) == step


def test_a_slow_end_is_slower(facts):
    speed = Speed(facts.board, SHAPES["135m"], 4, 512)
    decode, prefill = speed.decode(100), speed.prefill(128)
    assert decode.low < decode.likely < decode.high
    assert prefill.low < prefill.likely < prefill.high
    assert decode.high / decode.low == pytest.approx(1.06, rel=0.01)
