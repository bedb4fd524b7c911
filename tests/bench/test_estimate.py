"""The estimate is within a factor of 1.5 of every run that `python -m bench.estimate` has measured."""

import json
from typing import Any

import pytest

from bench.estimate import GOAL, RECIPES, TARGET, expected
from rockledge.quantization.estimate import Speed
from rockledge.quantization.request import default_tokens
from rockledge.synth import SHAPES

ROWS = json.loads(TARGET.read_text())


def test_every_size_was_measured() -> None:
    assert {(row["model"], row["recipe"]) for row in ROWS} >= {
        ("135m", "fast"),
        ("1.5b", "fast"),
        ("8b", "fast"),
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['recipe']}")
def test_what_was_measured_was_foreseen(row: dict[str, Any]) -> None:
    model, recipe = row["model"], row["recipe"]
    now = Speed(row["products_per_second"], row["seconds_per_number"])
    found = expected(SHAPES[model], recipe, now, default_tokens(SHAPES[model], RECIPES[recipe]))
    assert 1 / GOAL < found.seconds / row["seconds"] < GOAL
