"""The comparison of predictions with `rockledge bench`: from facts to rows, and what is committed."""

import json
from pathlib import Path

import pytest
from tests.board_calibration.fake_seconds import HZ, THREADS, WEIGHTS_BYTES, seconds

from bench.calibration import DECODES, FACTS, MODELS, PROMPTS, TARGET, body, median_error, predicted, rows
from rockledge.board.facts_file import MeasuredFacts, read_facts
from rockledge.board_calibration import probes as p
from rockledge.board_calibration.calibrate import cpu_facts

SAMPLES = {probe: [seconds(probe)] for probe in set(p.probes(THREADS, WEIGHTS_BYTES))}
PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"
BOARD = MeasuredFacts(
    "0", "a processor", "6.1", THREADS, 16 << 30, "", cpu_facts(SAMPLES, THREADS, WEIGHTS_BYTES, [HZ], 1)
).board
WHAT = [f"decode, {n}" for n in DECODES] + [f"prefill, {n}" for n in PROMPTS]


def test_rows_are_predictions_beside_the_median_of_the_rounds() -> None:
    runs = {
        shape.name: {
            what: [tok_s / 1.1, tok_s / 1.1, 1e-6] for what, tok_s in predicted(shape, BOARD).items()
        }
        for shape in MODELS
    }
    found = rows(BOARD, runs)
    assert [(row.model, row.what) for row in found] == [
        (shape.name, what) for shape in MODELS for what in WHAT
    ]
    assert all(row.error == pytest.approx(0.1) for row in found)
    assert median_error(found) == pytest.approx(0.1)
    assert body(found, {"threads": 4})["median_error"] == 0.1


def test_a_batch_is_faster_together_and_a_larger_model_slower() -> None:
    speeds = [predicted(shape, BOARD) for shape in MODELS]
    for one in speeds:
        assert one["decode, 1"] < one["decode, 4"] < 4 * one["decode, 1"]
        assert one["decode, 1"] < one["prefill, 128"]
    for what in WHAT:
        assert speeds[0][what] > speeds[2][what]


def test_what_is_committed_is_what_the_page_says() -> None:
    """After a run on another day the page needs its figure: docs/calibration.md."""
    result = json.loads(TARGET.read_text())
    assert f"the median error of the 12 figures is {100 * result['median_error']:.1f} %" in PAGE.read_text()
    assert [row["what"] for row in result["rows"]] == WHAT * len(MODELS)
    errors = sorted(abs(row["predicted_tok_s"] / row["measured_tok_s"] - 1) for row in result["rows"])
    middle = (errors[5] + errors[6]) / 2
    assert result["median_error"] == pytest.approx(middle, abs=0.001)
    assert read_facts(FACTS).threads == result["threads"]
