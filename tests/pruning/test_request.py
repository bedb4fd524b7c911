"""Requests out of flags and recipes."""

from pathlib import Path
from typing import Any

import pytest

from rockledge.errors import UsageError
from rockledge.pruning.request import recipe_settings, request_of


def test_a_recipe_names_the_teacher_and_what_flags_do(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nteacher: llama-3-8b\nprune:\n  target_params: 3.5b\n  hidden: 3072\n  tokens: 8192\n"
    )
    teacher, section = recipe_settings(recipe)
    asked = request_of(section, "recipe.yaml")
    assert teacher == "llama-3-8b"
    assert (asked.target_params, asked.sizes, asked.tokens) == (3_500_000_000, {"hidden": 3072}, 8192)


@pytest.mark.parametrize(
    "given, says",
    [
        ({}, "nothing to prune to"),
        ({"target_parms": "3b"}, "did you mean target_params"),
        ({"target_params": "many"}, "expected a number such as 3.5b"),
        ({"target_params": "3b", "body": 0.5}, "each a target"),
        ({"body": 1.5}, "expected a share"),
        ({"layers": "8"}, "expected a whole number"),
        ({"layers": True}, "expected a whole number"),
        ({"layers": 8, "by": "width"}, "--by chooses between shapes for a target"),
        ({"target_params": "3b", "by": "length"}, "depth, width or both"),
        ({"layers": 8, "decode_tok_s": 5}, "name the board"),
        ({"fit": "rk3588-8gb", "decode_tok_s": -1}, "positive"),
        ({"layers": 8, "tokens": 0}, "at least 1"),
        ({"layers": 8, "calibration": 3}, "not a text"),
    ],
)
def test_what_makes_no_sense_is_said(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        request_of(given, "recipe.yaml")


@pytest.mark.parametrize("text", ["version: 1\ndistill: {}", "version: 1\nprune: 3", "prune: {layers: 8}"])
def test_a_file_without_a_section_is_not_a_recipe(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(UsageError, match=r"section 'prune'|not a mapping|expected 1"):
        recipe_settings(recipe)
