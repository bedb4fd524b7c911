"""Recipes: what is written is read back, what people write by hand works, and mistakes are named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.formats.bands import Band
from rockledge.quantization.choosing.recipe import Recipe, check_recipe, read_recipe
from rockledge.synth import SHAPES

BY_HAND = """
version: 1
model: some.gguf
seed: 3
calibration: {text: built-in, sha256: abc, tokens: 2048}
budget: {bits_per_weight: 4.5, board: null}
widths:
  embed: 300x4
  layers.0.attn.q: 16x8 80x4
"""


def stacked(sizes: list[tuple[int, int]]) -> tuple[Band, ...]:
    bands, start = [], 0
    for rows, bits in sizes:
        bands.append(Band(start, rows, bits))
        start += rows
    return tuple(bands)


many_bands = st.lists(st.tuples(st.integers(1, 999), st.sampled_from([2, 3, 4, 8])), min_size=1).map(stacked)
recipes = st.builds(
    Recipe,
    model=st.text(max_size=20),
    seed=st.integers(0, 2**32),
    calibration=st.text(max_size=20),
    calibration_sha256=st.text("0123456789abcdef", max_size=64),
    tokens=st.integers(1, 10**6),
    bits_per_weight=st.one_of(st.none(), st.floats(2, 16)),
    board=st.one_of(st.none(), st.just("rk3588-8gb")),
    widths=st.dictionaries(st.text(min_size=1, max_size=20), many_bands, max_size=5),
    planes=st.dictionaries(st.text(min_size=1, max_size=20), st.just(2), max_size=3),
    milliseconds=st.one_of(st.none(), st.floats(0.1, 1e4)),
)


@given(recipes)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(recipe.text(), encoding="utf-8")
    assert read_recipe(path) == recipe


def test_a_recipe_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(BY_HAND)
    recipe = read_recipe(path)
    assert recipe.widths["layers.0.attn.q"] == (Band(0, 16, 8), Band(16, 80, 4))
    assert recipe.board is None
    assert recipe.bits_per_weight == 4.5
    assert recipe.planes == {}


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1", "version: 2", "version 1"),
        ("seed: 3", "seed: three", "malformed"),
        ("  embed: 300x4", "  embed: 300at4", "'300at4'"),
        ("budget: {bits_per_weight: 4.5, board: null}", "budget: 3", "malformed"),
        ("seed: 3", "steps: {rounding: up}", "rounding"),
        ("widths:", "widths: [", "YAML"),
        (BY_HAND, "just text", "not a recipe"),
    ],
)
def test_mistakes_are_named(old: str, new: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(BY_HAND.replace(old, new))
    with pytest.raises(UsageError, match=named):
        read_recipe(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml"):
        read_recipe(tmp_path / "nothing.yaml")


def test_a_recipe_for_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(BY_HAND)
    with pytest.raises(UsageError, match="in the recipe or in the model only"):
        check_recipe(read_recipe(path), SHAPES["toy"])
