"""The validation of the time formula: what it predicts it did not see, and every row is accounted for."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from tests.bench.error_table import assert_table_says

from bench.board_validation import RESULTS, model, same, validate
from bench.engine_time import Constants
from bench.left_out import GOALS, MANY, left_out, others, source
from bench.published_decode import BATCHES, LLAMA_BENCH, TABLE, Run, by_backend, published

PAGE = Path(__file__).parents[2] / "docs" / "measuring.md"
TRUE = Constants(bandwidth=20e9, weight_s=40e-12, layer_s=3e-4, group_s=0.0)


def run(weights: float, bits: float, layers: int, where: str = "somebody") -> Run:
    unknown = Run(f"{weights:g}", "engine", where, "q", int(weights), bits, layers, 0, 1.0)
    return replace(unknown, tok_s=TRUE.tok_s(unknown))


RUNS = [
    run(weights, bits, layers)
    for (weights, layers), bits in product(
        ((5e8, 24), (1e9, 16), (1.7e9, 28), (3e9, 28), (8e9, 32)), (4, 8, 16)
    )
]


def test_what_is_predicted_was_not_seen() -> None:
    seen: list[tuple[set[str], str]] = []

    def spy(runs):
        known = {model(one) for one in runs}

        def predict(one):
            seen.append((known, model(one)))
            return one.tok_s

        return predict

    predicted = left_out(RUNS, spy, model)
    assert [one for one, _ in predicted] == RUNS
    assert all(one.tok_s == tok_s for one, tok_s in predicted)
    assert all(held not in known and len(known) == 4 for known, held in seen)


def test_without_a_source() -> None:
    wrong = [run(2e9, 8, 24, "another")]
    found = validate("engine", [*RUNS, *wrong])
    assert found.sources == 2
    assert found.source_out is not None
    assert found.source_out.formula.rows == 16
    assert validate("engine", RUNS).source_out is None
    assert found.model_out.formula.p90 < 0.02 < found.model_out.baseline.p90
    # One run of another source cannot predict fifteen.
    assert found.goals == {"model": True, "source": False}


def test_what_other_sources_saw_of_the_same() -> None:
    one, two = run(2e9, 8, 24), run(2e9, 8, 24, "another")
    slower = replace(two, tok_s=one.tok_s / 2)
    assert others(RUNS, same) is None
    found = others([*RUNS, one, slower], same)
    assert found is not None
    assert (found.rows, found.median) == (2, pytest.approx(0.75))  # half and twice as fast


def test_every_row_is_a_run_or_left_out_for_a_reason() -> None:
    runs, left = published()
    assert all(one.reason for one in left)
    assert {one.chip for one in runs} == {"rk3588", "rk3576", "rpi5"}
    assert {"RKLLM on RK3576"} == {one.backend for one in runs if one.chip == "rk3576"}
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:]
    batches = BATCHES.read_text(encoding="utf-8").splitlines()[1:]
    repeated = [line for line in lines if LLAMA_BENCH.search(line)]
    assert len(lines) + len(batches) - len(repeated) < len(left) + len(runs) <= len(lines) + len(batches)
    assert all(line.rstrip('"').rpartition(",")[2] for line in lines)


def test_the_batch_table_is_in_it() -> None:
    """unimatrix099's two rows of milliseconds for 1 to 8 rows."""
    runs, _ = published()
    several = [one for one in runs if one.model == "Gemma-4-E4B"]
    assert [round(1e3 * one.seconds) for one in several] == [
        *(150, 231, 293, 224, 308, 369, 405),
        *(172, 237, 247, 262, 285, 302, 338),
    ]


def test_figures_of_llama_bench_count_once() -> None:
    """llama32-3b.md of rockchip-npu-notes has three quantisations under two builds, three lengths each; what
    GatekeeperZA measured with four prompts is four figures, two of them alike."""
    runs, _ = published()
    found = [one for one in runs if one.model == "Llama-3.2-3B" and one.source.startswith("gregordinary")]
    assert len(found) == 6
    # From an empty context: 32 of 64 tokens' keys and values, not those of a prompt of 512.
    assert {one.cache for one in found} == {4 * 32 * 28 * 8 * 128}
    server = [one for one in runs if one.source.startswith("GatekeeperZA") and one.model == "Qwen3-1.7B"]
    assert [one.tok_s for one in server] == [13.6, 12.6, 12.6, 13.3]


def test_the_written_results_are_those_of_the_table() -> None:
    written = {one["backend"]: one for one in json.loads(RESULTS.read_text())["backends"]}
    runs, _ = published()
    backends = dict(by_backend(runs))
    assert set(written) == set(backends)
    for backend, of_backend in backends.items():
        one, found = written[backend], validate(backend, of_backend)
        assert one["model_out"]["formula"]["p90"] == pytest.approx(found.model_out.formula.p90, rel=0.02)
        assert one["model_out"]["baseline"]["p90"] == pytest.approx(found.model_out.baseline.p90, rel=1e-6)
        assert one["goals"] == found.goals
        assert len(one["fitted"]) <= 4
        assert one["model_out"]["formula"]["rows"] == len(of_backend) >= MANY


def test_goals_are_what_they_say() -> None:
    for one in json.loads(RESULTS.read_text())["backends"]:
        for name, met in one["goals"].items():
            out = one[f"{name}_out"]
            formula, baseline = out["formula"], out["baseline"]
            assert formula["rows"] == baseline["rows"]
            assert met is (
                formula["median"] < GOALS[0] and formula["p90"] < min(GOALS[1], GOALS[2] * baseline["p90"])
            )


def test_the_page_says_what_was_written() -> None:
    lines = PAGE.read_text(encoding="utf-8").partition("### Prompts")[0].splitlines()
    assert_table_says(lines, json.loads(RESULTS.read_text())["backends"], "facts")


def test_sources_are_told_apart_by_project() -> None:
    runs, _ = published()
    assert {source(one) for one in runs if one.backend == "RKLLM on RK3576"} == {"airockchip/rknn-llm"}
