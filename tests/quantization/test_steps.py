"""Steps: what a recipe may choose, through recipes and the whole way on a tiny model."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.artifact import open_artifact
from rockledge.cli.main import main
from rockledge.errors import UsageError
from rockledge.quantization.choosing.recipe import read_recipe
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.steps import FAST, Steps, read_steps
from rockledge.synth import synth_checkpoint

some_steps = st.builds(
    Steps,
    rotate=st.sampled_from(["hadamard", "none"]),
    down_hadamard=st.booleans(),
    balance=st.booleans(),
    channel_order=st.sampled_from(["price", "stored"]),
    tables=st.sampled_from(["learned", "normal"]),
    clip=st.booleans(),
    rounding=st.sampled_from(["gptq", "nearest"]),
    activation_order=st.booleans(),
    scale_tries=st.sampled_from([1, 3]),
    token_weights=st.sampled_from(["gradient", "equal"]),
    planes=st.sampled_from(["price", "one"]),
)


@given(some_steps | st.just(FAST))
def test_a_recipe_keeps_its_steps(tmp_path_factory: pytest.TempPathFactory, steps: Steps) -> None:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text("version: 1\n")
    bare = read_recipe(path)
    assert bare.steps == Steps()
    assert not bare.widths
    path.write_text(type(bare)(**{**vars(bare), "steps": steps}).text())
    assert read_recipe(path).steps == steps


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ({"round": "up"}, "no step 'round'"),
        ({"rounding": "up"}, "rounding cannot be 'up'"),
        ({"clip": 3}, "clip"),
        ({"scale_tries": 4}, "scale_tries cannot be 4"),
        ({"moments": "diagonal"}, "needs moments: full"),
        ({"refine": 8}, "refine: 8, a step that was removed because 8 steps lowered KL by 1.3 %"),
        ({"rotate": "learned"}, "rotate: learned, a step that was removed because it raised KL"),
        ({"refine": 5}, "no step 'refine'"),
    ],
)
def test_mistakes_are_named(lines: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        read_steps(lines)


@pytest.mark.parametrize(
    "steps",
    [
        Steps(rotate="none", down_hadamard=False),
        Steps(rotate="none"),
        Steps(down_hadamard=False, balance=False, channel_order="stored"),
        Steps(clip=False, tables="normal", rounding="nearest", planes="one"),
        FAST,
    ],
    ids=str,
)
def test_every_step_can_be_left_out(steps: Steps, tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    recipe = tmp_path / "r.yaml"
    lines = "".join(f"  {name}: {value}\n" for name, value in vars(steps).items())
    recipe.write_text(f"version: 1\nsteps:\n{lines}")
    report = quantize(source, tmp_path / "out", bits=8.0, recipe=recipe, tokens=2048)
    artifact = open_artifact(tmp_path / "out")
    assert (artifact.rotation is None) == (steps.rotate == "none")
    assert (artifact.ffn_block == 0) == (not steps.down_hadamard)
    # Random weights have no outliers: 8 bits are nearly the float model whatever is left out.
    assert report.numbers["divergence"]["kl_mean_nats"] < 2e-3
    assert read_recipe(tmp_path / "out" / "recipe.yaml").steps == steps


def test_steps_of_another_run_are_not_taken_over(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    recipe = tmp_path / "r.yaml"
    quantize(source, tmp_path / "out", bits=5.0, tokens=1024, work=tmp_path / "work")
    recipe.write_text("version: 1\nsteps: {rounding: nearest}\n")
    with pytest.raises(UsageError, match="steps"):
        quantize(source, tmp_path / "other", bits=5.0, tokens=1024, recipe=recipe, work=tmp_path / "work")
    recipe.write_text("version: 1\nsteps: {planes: one}\n")
    quantize(source, tmp_path / "other", bits=5.0, tokens=1024, recipe=recipe, work=tmp_path / "work")


def test_an_older_recipe_that_leaves_removed_steps_out_is_read(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(source, tmp_path / "out", bits=5.0, tokens=1024)
    recipe = tmp_path / "out" / "recipe.yaml"
    older = tmp_path / "older.yaml"
    older.write_text(recipe.read_text().replace("  planes: price\n", "  planes: price\n  refine: 0\n"))
    assert "refine: 0" in older.read_text()
    assert read_recipe(older) == read_recipe(recipe)


def test_an_artifact_whose_recipe_names_removed_steps_opens_and_is_inspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(source, tmp_path / "out", bits=5.0, tokens=1024)
    recipe = tmp_path / "out" / "recipe.yaml"
    text = recipe.read_text().replace("rotate: hadamard", "rotate: learned")
    recipe.write_text(text.replace("  planes: price\n", "  planes: price\n  refine: 8\n"))
    open_artifact(tmp_path / "out").verify()
    assert main(["inspect", str(tmp_path / "out")]) == 0
    assert "Rockledge artifact" in capsys.readouterr().out
    with pytest.raises(UsageError, match="was removed"):
        read_recipe(recipe)
