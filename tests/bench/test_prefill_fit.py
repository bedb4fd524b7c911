"""Seconds that are there are found, also beside rows that are far off."""

from dataclasses import replace

import pytest

from bench.prefill_fit import fit_prefill
from bench.prefill_time import ENGINES, PrefillConstants
from bench.published_prefill import CPU, ROCKET, Prompt

TRUE = PrefillConstants({"mac_s": 1e-12, "activation_s": 8e-9, "unpack_s": 2e-9, "score_s": 1.5e-8})
SIZES = ((16, 1024, 4096, 16), (24, 2048, 5632, 32), (32, 4096, 14336, 32))


def prompt(layers: int, width: int, ffn: int, heads: int, tokens: int, quant: str) -> Prompt:
    linears = ((width, 2 * width), (width, width), (width, 2 * ffn), (ffn, width))
    weights = layers * sum(inputs * outputs for inputs, outputs in linears)
    unpacked = 0 if quant == "F16" else weights
    one = Prompt(
        f"{width}", ROCKET, "somebody", quant, tokens, 1.0, layers, linears, {quant: weights}, 10**8, heads,
        unpacked=unpacked,
    )  # fmt: skip
    return replace(one, seconds=TRUE.seconds(one))


PROMPTS = [prompt(*size, n, quant) for size in SIZES for n in (128, 512, 2048) for quant in ("F16", "Q8_0")]


def test_seconds_that_are_there_are_found() -> None:
    found = fit_prefill(PROMPTS).seconds_of
    assert found == pytest.approx(TRUE.seconds_of, rel=0.02)


def test_a_slow_board_moves_little() -> None:
    slow = [replace(one, seconds=2 * one.seconds) for one in PROMPTS[::6]]
    found = fit_prefill([*PROMPTS[1:], *slow])
    assert all(found.seconds(one) == pytest.approx(one.seconds, rel=0.05) for one in PROMPTS)


def test_what_facts_give_is_not_fitted() -> None:
    runs = [replace(one, backend="RKLLM", bits=8) for one in PROMPTS]
    found = fit_prefill(runs).seconds_of
    known = ENGINES["RKLLM"].known
    assert {name: found[name] for name in known} == {name: fact.seconds for name, fact in known.items()}


def test_a_kernel_that_nobody_ran_takes_the_time_of_another() -> None:
    runs = [
        replace(one, backend=CPU, weights={kind: one.of_layers})
        for one in PROMPTS
        for kind in ("Q8_0", "Q4_0 in fours")
    ]
    found = fit_prefill(runs).seconds_of
    assert found["k_fours_mac_s"] == found["fours_mac_s"] > 0


def test_without_prompts_or_anything_of_a_term() -> None:
    with pytest.raises(ValueError, match="no prompts"):
        fit_prefill([])
    with pytest.raises(ValueError, match="tells unpack_s"):
        fit_prefill([one for one in PROMPTS if one.quant == "F16"])
