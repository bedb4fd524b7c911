"""The validation of the time formula: it finds constants that are there, and predicts what it did not see."""

import json
import re
from itertools import product
from pathlib import Path

import pytest

from bench.board_validation import (
    GOALS,
    MANY,
    RESULTS,
    Constants,
    fit,
    left_out,
    model,
    source,
    validate,
)
from bench.published_decode import TABLE, Run, by_backend, published

PAGE = Path(__file__).parents[2] / "docs" / "measuring.md"
TRUE = Constants(bandwidth=20e9, weight_s=40e-12, layer_s=3e-4, group_s=0.0)


def run(weights: float, bits: float, layers: int, where: str = "somebody") -> Run:
    unknown = Run(f"{weights:g}", "engine", where, "q", int(weights), bits, layers, 0, 1.0)
    return Run(**{**vars(unknown), "tok_s": 1 / TRUE.seconds(unknown)})


RUNS = [
    run(weights, bits, layers)
    for (weights, layers), bits in product(
        ((5e8, 24), (1e9, 16), (1.7e9, 28), (3e9, 28), (8e9, 32)), (4, 8, 16)
    )
]


def test_constants_that_are_there_are_found() -> None:
    found = fit(RUNS)
    assert found.bandwidth == pytest.approx(TRUE.bandwidth, rel=0.02)
    assert found.weight_s == pytest.approx(TRUE.weight_s, rel=0.02)
    assert found.layer_s == pytest.approx(TRUE.layer_s, rel=0.05)
    assert found.group_s == 0.0


def test_what_runs_cannot_tell_is_not_fitted() -> None:
    one_width = [run(weights, 8, 24) for weights in (5e8, 1e9, 2e9, 4e9, 6e9, 8e9, 9e9)]
    assert fit(one_width).weight_s == 0.0
    assert fit(RUNS[:3]).layer_s == 0.0


def test_what_is_predicted_was_not_seen() -> None:
    seen: list[tuple[set[str], str]] = []

    def spy(runs):
        known = {model(one) for one in runs}

        def predict(one):
            seen.append((known, model(one)))
            return one.tok_s

        return predict

    error = left_out(RUNS, spy, model)
    assert (error.rows, error.median, error.p90) == (15, 0.0, 0.0)
    assert len(seen) == 15
    assert all(held not in known and len(known) == 4 for known, held in seen)


def test_without_a_source() -> None:
    wrong = [run(2e9, 8, 24, "another")]
    found = validate("engine", [*RUNS, *wrong])
    assert found.sources == 2
    assert found.source_out is not None
    assert found.source_out.rows == 16
    assert validate("engine", RUNS).source_out is None
    assert found.model_out.p90 < 0.02 < found.baseline.p90


def test_every_row_is_a_run_or_left_out_for_a_reason() -> None:
    runs, left = published()
    assert all(one.reason for one in left)
    assert {"Raspberry Pi 5", "RK3576"} <= {part for one in runs for part in one.backend.split(" on ")}
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert len(left) + len(runs) < len(lines)  # a run's figure is repeated by length of prompt
    assert all(line.rstrip('"').rpartition(",")[2] for line in lines)


def test_repeated_figures_count_once() -> None:
    """llama32-3b.md of rockchip-npu-notes has three quantisations under two builds, three lengths each."""
    runs, _ = published()
    found = [one for one in runs if one.model == "Llama-3.2-3B" and one.source.startswith("gregordinary")]
    assert len(found) == 6


def test_the_written_results_are_those_of_the_table() -> None:
    written = {one["backend"]: one for one in json.loads(RESULTS.read_text())["backends"]}
    runs, _ = published()
    backends = dict(by_backend(runs))
    assert set(written) == set(backends)
    pi = "llama.cpp CPU on Raspberry Pi 5"
    found = validate(pi, backends[pi])
    assert written[pi]["model_out"]["median"] == pytest.approx(found.model_out.median, rel=0.05)
    assert written[pi]["baseline"]["p90"] == pytest.approx(found.baseline.p90, rel=1e-6)
    for one in written.values():
        if one["goals"] is not None:
            assert one["model_out"]["rows"] >= MANY
            met = one["model_out"]["median"] < GOALS[0] and one["model_out"]["p90"] < min(
                GOALS[1], GOALS[2] * one["baseline"]["p90"]
            )
            assert one["goals"] is met


def test_the_page_says_what_was_written() -> None:
    written = {one["backend"]: one for one in json.loads(RESULTS.read_text())["backends"]}
    shown = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in written:
            shown[cells[0]] = cells[1:]
    assert set(shown) == set(written)
    for backend, cells in shown.items():
        one = written[backend]
        errors = (one["model_out"], one["source_out"], one["baseline"], one["facts"])
        assert cells[0] == str(one["model_out"]["rows"])
        for cell, error in zip(cells[1:], errors, strict=True):
            if error is None:
                assert cell == "-"
            else:
                assert re.findall(r"\d+", cell) == [f"{100 * error[k]:.0f}" for k in ("median", "p90")]


def test_sources_are_told_apart_by_project() -> None:
    runs, _ = published()
    assert {source(one) for one in runs if one.backend == "RKLLM on RK3576"} == {"airockchip/rknn-llm"}
