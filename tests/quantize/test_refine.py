"""Refinement the whole way: through a recipe, killed and continued, one allocation beside another."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rockledge.artifact import open_artifact
from rockledge.quantize.pipeline import quantize
from rockledge.quantize.recipe import read_recipe
from rockledge.synth import synth_checkpoint

STEPS = 4
SETTINGS: dict[str, Any] = {"bits": 4.0, "tokens": 1024}


class StoppedError(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth_checkpoint("toy", tmp_path_factory.mktemp("refine") / "model")


@pytest.fixture(scope="module")
def recipe(source: Path) -> Path:
    path = source.parent / "refine.yaml"
    path.write_text(f"version: 1\nsteps:\n  refine: {STEPS}\n")
    return path


@pytest.fixture(scope="module")
def whole(source: Path, recipe: Path) -> Path:
    """The artifact of a run that nobody stopped, without a work directory of its own."""
    quantize(source, source.parent / "whole", **SETTINGS, recipe=recipe)
    return source.parent / "whole"


def contents(artifact: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in artifact.iterdir()}


def stopped_at(wanted: tuple[str, int]) -> Callable[[str, int, int], None]:
    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == wanted:
            raise StoppedError

    return progress


def test_only_scales_move_and_the_recipe_says_so(source: Path, whole: Path) -> None:
    quantize(source, source.parent / "plain", **SETTINGS)
    plain, refined = open_artifact(source.parent / "plain"), open_artifact(whole)
    moved = 0
    for name in plain.linears:
        before, after = plain.linear(name), refined.linear(name)
        assert np.array_equal(before.codes, after.codes)
        assert np.array_equal(before.index, after.index)
        assert np.array_equal(before.tables, after.tables)
        np.testing.assert_allclose(before.scale, after.scale, rtol=0.02)
        moved += not np.array_equal(before.scale, after.scale)
    assert moved
    assert read_recipe(whole / "recipe.yaml").steps.refine == STEPS


def test_a_stopped_refinement_continues_and_makes_the_same_bytes(
    source: Path, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "recipe": recipe, "work": tmp_path / "work"}
    with pytest.raises(StoppedError):
        quantize(source, tmp_path / "out", **settings, progress=stopped_at(("refine", 1)))
    assert not (tmp_path / "out").exists()
    quantize(source, tmp_path / "out", **settings)
    assert contents(tmp_path / "out") == contents(whole)
    # A finished one is not done again.
    seen: list[str] = []
    quantize(source, tmp_path / "out", **settings, progress=lambda stage, *_: seen.append(stage))
    assert set(seen) == {"check", "write"}
    assert contents(tmp_path / "out") == contents(whole)


def test_every_allocation_has_its_own_refinement(
    source: Path, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    quantize(source, tmp_path / "other", **{**SETTINGS, "bits": 5.0}, recipe=recipe, work=work)
    quantize(source, tmp_path / "out", **SETTINGS, recipe=recipe, work=work)
    assert contents(tmp_path / "out") == contents(whole)


def test_an_artifacts_own_recipe_makes_it_again(source: Path, whole: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "out", recipe=whole / "recipe.yaml")
    made, again = open_artifact(whole), open_artifact(tmp_path / "out")
    for name in made.linears:
        assert np.array_equal(made.linear(name).scale, again.linear(name).scale)
