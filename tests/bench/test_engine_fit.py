"""Constants that are there are found, and no others."""

from dataclasses import replace
from itertools import product

import pytest

from bench.engine_fit import LAYER_CALLS, LIBRARY_CALL, fit, ranges, told
from bench.engine_time import Constants
from bench.published_decode import Run

TRUE = Constants(bandwidth=20e9, weight_s=40e-12, layer_s=3e-4, group_s=0.0)


def run(
    weights: float, bits: float, layers: int, backend: str = "engine", true: Constants = TRUE, group: int = 0
) -> Run:
    unknown = Run(f"{weights:g}", backend, "somebody", "q", int(weights), bits, layers, 0, 1.0, group)
    return replace(unknown, tok_s=true.tok_s(unknown))


SIZES = ((5e8, 24), (1e9, 16), (1.7e9, 28), (3e9, 28), (8e9, 32))
RUNS = [run(weights, bits, layers) for (weights, layers), bits in product(SIZES, (4, 8, 16))]


def test_constants_that_are_there_are_found() -> None:
    found = fit(RUNS)
    assert found.bandwidth == pytest.approx(TRUE.bandwidth, rel=0.01)
    assert found.weight_s == pytest.approx(TRUE.weight_s, rel=0.01)
    assert found.layer_s == pytest.approx(TRUE.layer_s, rel=0.02)
    assert found.group_s == 0.0


def test_what_runs_cannot_tell_is_not_fitted() -> None:
    one_width = [run(weights, 8, 24) for weights in (5e8, 1e9, 2e9, 4e9, 6e9, 8e9, 9e9)]
    assert fit(one_width).weight_s == 0.0
    assert fit(RUNS[:3]).layer_s == 0.0
    assert told(RUNS) == ("bandwidth", "layer_s", "weight_s")
    assert len(told([run(1e9, 8, 24, group=128)] * 20)) <= 4


def test_a_constant_stays_within_what_was_published_of_it() -> None:
    """Even if every run says otherwise: the NPU reads 26.6 to 28.6 GB/s."""
    slow = Constants(bandwidth=10e9, weight_s=0.0, layer_s=5e-3, group_s=0.0)
    found = fit([run(weights, 8, layers, "RKLLM", slow) for weights, layers in SIZES * 2])
    assert found.bandwidth == pytest.approx(26.6e9)
    assert found.layer_s == pytest.approx(LAYER_CALLS[1] * LIBRARY_CALL)
    assert ranges("RKLLM")["bandwidth"].high == 28.6e9
    assert ranges("engine") == {}


def test_groups_that_nobody_else_has_are_calls_of_the_library() -> None:
    grouped = replace(RUNS[0], group=128, input_groups=1000)
    assert fit(RUNS).seconds(grouped) - fit(RUNS).seconds(RUNS[0]) == pytest.approx(1000 * LIBRARY_CALL)
    seen = fit([*RUNS, replace(grouped, tok_s=grouped.tok_s / 2)])
    assert seen.input_group_s == 0.0
    assert seen.group_s > 0.0


def test_without_runs() -> None:
    with pytest.raises(ValueError, match="no runs"):
        fit([])
