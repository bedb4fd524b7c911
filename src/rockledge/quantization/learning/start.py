"""Where training in the grid starts: the artifact that `quantize` makes by a recipe, and the float weights
that it was made of."""

import os
from functools import partial
from pathlib import Path

from rockledge.artifact import open_artifact
from rockledge.errors import UsageError
from rockledge.model.checkpoint import Checkpoint
from rockledge.quantization.choosing.budget import plan_artifact
from rockledge.quantization.choosing.recipe import BUILT_IN, Recipe, check_recipe, read_recipe
from rockledge.quantization.learning.model import LearningModel
from rockledge.quantization.pipeline import Progress, quantize
from rockledge.quantization.steps import Steps
from rockledge.quantization.transforming.order import stored_order
from rockledge.quantization.transforming.rotate import rotated

_ARTIFACT, _WORK, _RECIPE = "start", "quantized", "recipe.yaml"


def asked_recipe(wanted: str, student: Checkpoint) -> Recipe:
    """The recipe in a file, or one of so many bits a weight. UsageError for what is neither, or a recipe that
    does not fit the `student`."""
    try:
        bits = float(wanted)
    except ValueError:
        bits = None
    if bits is None:
        recipe = read_recipe(Path(wanted))
        if recipe.widths:
            check_recipe(recipe, student.config)
        return recipe
    if not 0 < bits <= 32:
        raise UsageError(
            f"the budget is {wanted} bits a weight, expected 2.3 to 8.5, or the file of a recipe"
        )
    return Recipe(
        model=student.path.name,
        seed=0,
        calibration=BUILT_IN,
        calibration_sha256="",
        tokens=None,
        bits_per_weight=bits,
        board=None,
        milliseconds=None,
        widths={},
        steps=Steps(),
    )


def is_made(place: Path) -> bool:
    """Whether `make_start` has ended."""
    return (place / _ARTIFACT).exists()


def make_start(student: Checkpoint, recipe: Recipe, place: Path, device: str, progress: Progress) -> None:
    """Quantizes `student` into `place`, where a stopped run goes on and a finished one is found again."""
    if is_made(place):
        return
    place.mkdir(parents=True, exist_ok=True)
    written = place / _RECIPE
    partial_file = written.with_suffix(".partial")
    partial_file.write_text(recipe.text(), encoding="utf-8")
    os.replace(partial_file, written)
    quantize(student, place / _ARTIFACT, recipe=written, device=device, work=place / _WORK, progress=progress)


def start_of(student: Checkpoint, place: Path, *, fixed_codes: bool = False) -> LearningModel:
    """The module that begins as the artifact that `make_start` left in `place`."""
    artifact = open_artifact(place / _ARTIFACT)
    made = read_recipe(place / _ARTIFACT / _RECIPE)
    model = rotated(student, made.seed, "cpu", made.steps)
    widths = {name: spec.bands for name, spec in artifact.linears.items()}
    planes = {name: spec.planes for name, spec in artifact.linears.items()}
    plan = plan_artifact(model, widths, planes, model.checkpoint.files(), artifact.recipe)
    order = partial(stored_order, place / _WORK)
    return LearningModel(model, plan, artifact.linear, order, fixed_codes=fixed_codes)
