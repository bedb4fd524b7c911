"""The bench of modelled prompts: medians by hand, the goal's verdict, the stored result is today's."""

import json

import pytest

from bench import npu_prefill, npu_published
from bench.npu_prefill import (
    ALL_TESTED,
    ALL_UNFITTED,
    DRIVERS,
    VENDOR,
    Assumption,
    Forecast,
    Model,
    goal,
    median_errors,
    under,
)
from bench.npu_published import GROUPED, PROMPT, TILED, Pair
from rockledge.board.boards import find_board
from rockledge.runtime.offload.prompt_time import PARTS

BOARD = find_board("rk3588-8gb")


@pytest.fixture(scope="module")
def published() -> list[Pair]:
    return list(npu_published.pairs(BOARD))


def pair(kind: str, published: float, predicted: float, fitted: bool = False) -> Pair:
    return Pair("a run", kind, "tok/s", published, predicted, "a schedule", "a source", fitted)


def test_medians_leave_out_what_was_fitted() -> None:
    found = [pair("a", 10, 11), pair("a", 10, 8), pair("a", 10, 30, fitted=True)]
    found += [pair(PROMPT, 10, 15), pair(TILED, 10, 10), pair(GROUPED, 10, 9), pair("c", 1, 2, fitted=True)]
    errors = median_errors(found)
    assert errors["a"] == {"median_error": 0.15, "median_ratio": 0.95, "runs": 2}
    assert "c" not in errors
    # Every run once: prompts are predicted with two schedules.
    assert errors[ALL_UNFITTED] == {"median_error": 0.2, "median_ratio": 1.1, "runs": 3}
    assert errors[ALL_TESTED] == {"median_error": 0.1, "median_ratio": 0.95, "runs": 4}


def forecast(tok_s: float) -> Forecast:
    far = Assumption("one", "other", 3 * tok_s)
    near = Assumption("one", "other", tok_s / 2)
    return Forecast(VENDOR, "8b", 512, tok_s, tok_s, (512,), 20, "DRAM bus", {}, {}, 0, 0, {}, [near, far])


@pytest.mark.parametrize("tok_s, met", [(149.9, False), (150.0, True)])
def test_the_goal_is_judged_by_its_row(tok_s: float, met: bool) -> None:
    assert goal([forecast(tok_s)])["met"] is met


def test_the_largest_change_carries_the_figure() -> None:
    assert forecast(10.0).carried_by.tok_s == 30.0


@pytest.fixture(scope="module")
def small() -> Model:
    return Model(BOARD, "1b")


def test_a_forecast_has_its_swings_on_both_sides(small: Model) -> None:
    found = small.forecast(128)
    low, high = found.swings["DRAM bandwidth"]
    assert low <= found.tok_s <= high
    low, high = found.swings["cache maintenance"]
    assert low <= found.tok_s <= high
    for name in ("dispatch", "CPU cycles"):
        low, high = found.swings[name]
        assert high <= found.tok_s <= low
    assert found.first_tok_s < found.tok_s
    by_otherwise = {a.otherwise: a.tok_s for a in found.assumptions}
    assert by_otherwise["they stay in the caches"] > found.tok_s
    assert by_otherwise["two planes everywhere"] < found.tok_s
    assert by_otherwise["none does"] < found.tok_s
    assert by_otherwise["by one, while it waits"] < found.tok_s
    assert by_otherwise["10 GB/s"] < found.tok_s
    assert found.synced_bytes > 0 < found.sync_calls


def test_published_pairs(published: list[Pair]) -> None:
    found = published
    assert all(p.published > 0 and p.predicted > 0 for p in found)
    assert {p.kind for p in found if p.fitted} == {npu_published.TILED, npu_published.DECODE}
    (ours,) = (p for p in found if p.what == "RKLLM Llama-3-8B, 64 tokens" and p.kind == npu_published.PROMPT)
    assert ours.published == pytest.approx(56.7, abs=0.1)
    errors = median_errors(found)
    assert errors[npu_published.KERNEL]["median_error"] < 0.15
    assert errors[npu_published.TILED]["median_error"] < 0.15


def test_the_stored_result_is_todays(published: list[Pair], small: Model) -> None:
    stored = json.loads((npu_prefill.RESULTS / "npu_prefill.json").read_text(encoding="utf-8"))
    by_key = {(f["driver"], f["model"], f["tokens"]): f for f in stored["forecasts"]}
    assert small.forecast(512).tok_s == pytest.approx(by_key[VENDOR, "1b", 512]["tok_s"], rel=1e-3)
    for driver in DRIVERS:
        time = under(BOARD, driver, "8b").prompt(512)
        row = by_key[driver, "8b", 512]
        assert 512 / time.seconds == pytest.approx(row["tok_s"], rel=1e-3)
        assert (time.syncs.bytes, time.syncs.calls) == (row["synced_bytes"], row["sync_calls"])
    assert stored["goal"]["modelled_tok_s"] == by_key[VENDOR, "8b", 512]["tok_s"]
    assert stored["median_errors"] == median_errors(published)


def test_the_documented_tables_are_the_stored_result() -> None:
    stored = json.loads((npu_prefill.RESULTS / "npu_prefill.json").read_text(encoding="utf-8"))
    by_key = {(f["driver"], f["model"], str(f["tokens"])): f for f in stored["forecasts"]}
    page = (npu_prefill.RESULTS.parents[1] / "docs" / "npu.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    columns = 4 + len(PARTS)  # other tables of the page are bench.placement's
    documented = [cells for cells in rows if cells[0] in npu_prefill.MODELS and len(cells) == columns]
    assert len(documented) == 12
    for model, tokens, *cells in documented:
        f = by_key[VENDOR, model, tokens]
        parts = [f"{f['elapsed'][part]:.2f}" for part in PARTS]
        speeds = [f"{speed:.0f}" for speed in (f["tok_s"], f["first_tok_s"])]
        assert cells == [*speeds, *parts]
    drivers = [cells for cells in rows if cells[0] in DRIVERS]
    assert len(drivers) == 3 * 3
    for driver, model, *cells in drivers:
        f = by_key[driver, model, "512"]
        assert cells == [
            str(f["from_rows"]),
            f"{f['tok_s']:.0f}",
            f"{f['synced_bytes'] / 1e9:.1f}",
            str(f["sync_calls"]),
            f"{f['elapsed']['cache maintenance']:.2f}",
        ]
    errors = [f"{kind['median_error']:.0%}".replace("%", " %") for kind in stored["median_errors"].values()]
    assert all(f"| {error} |" in page for error in errors)
    for assumption in by_key[VENDOR, "8b", "512"]["assumptions"]:
        assert f" {assumption['tok_s']:.0f}" in page
